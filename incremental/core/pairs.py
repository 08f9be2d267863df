"""Weights of ordered pairs of ids, as many as have occurred together: a sparse table of fixed room that is summed up
exactly and keeps the order of first appearance."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.types import Data
from incremental.errors import UserError

LAST = jnp.iinfo(jnp.int32).max  # sorts behind every id


class Pairs(NamedTuple):
    """R places, each a pair's; places in use come in no order that anybody may rely on.

    Attributes:
        left: [R] int32; 0: the place is free
        right: [R] int32
        weight: [R] float32, above 0 where the place is used
        order: [R] int32: of two pairs the smaller one's first event came first
    """

    left: Array
    right: Array
    weight: Array
    order: Array


Counted = Callable[[Array, Array, Array], Sequence[tuple[Array, Array, Array]]]
"""(item, label, d), each [n] int32, the item being d events before the label: -> (left, right, weight) each [n]"""


def empty(room: int) -> Pairs:
    """No pair yet, and room for so many."""
    ids = jnp.zeros(room, jnp.int32)
    return Pairs(ids, ids, jnp.zeros(room), ids)


def absorbed(pairs: Pairs, data: Data, window: int, counted: Counted) -> tuple[Pairs, Array]:
    """The pairs with those of each new event: its label and each of the `window` last items of its history.

    They come event by event, and of one event the earliest item first. Where more pairs occur than there is room for,
    the lightest ones are dropped, of equal ones the latest; [] int32 says how many.
    """
    history = data.rows.inputs["history"][:, -window:]
    rows, length = history.shape
    real = (jnp.arange(rows) < data.size)[:, None] & (history > 0)
    ends = jnp.cumsum(real.sum(1))  # pairs up to each event
    room = len(pairs.left)
    if room + rows * length >= 2**31:
        raise UserError(
            f"model: {rows:,} events with histories of {length} may make more pairs of items than an update can number "
            "(2^31); cut the stream finer (data.cut), or shorten data.history or the model's window"
        )
    together = min(room, rows * length)  # pairs of a block: sorted with all that are kept

    def add(n: Array, carry: tuple[Pairs, Array]) -> tuple[Pairs, Array]:
        pairs, dropped = carry
        number = n * together + jnp.arange(together)
        row = jnp.minimum(jnp.searchsorted(ends, number, side="right"), rows - 1)
        distance = jnp.maximum(ends[row] - number, 1)  # the last item is the event's last pair
        item = jnp.where(number < ends[-1], history[row, length - distance], 0)
        label = data.rows.labels[row]
        parts = [
            Pairs(jnp.where(item > 0, left, 0), right, jnp.where(item > 0, weight, 0.0), room + number)
            for left, right, weight in counted(item, label, distance)
        ]
        pairs, number_dropped = merged(pairs, parts)
        return pairs, dropped + number_dropped

    pairs, dropped = jax.lax.fori_loop(0, (ends[-1] + together - 1) // together, add, (pairs, jnp.int32(0)))
    # Numbered anew, so that no number outgrows its type.
    order = jnp.zeros_like(pairs.order).at[jnp.argsort(pairs.order)].set(jnp.arange(room))
    return pairs._replace(order=order), dropped


def merged(pairs: Pairs, parts: Sequence[Pairs]) -> tuple[Pairs, Array]:
    """The table with further pairs, and how many were dropped: weights of a pair are added up, in the order of the
    numbers."""
    room = len(pairs.left)
    left, right, weight, order = (jnp.concatenate(each) for each in zip(pairs, *parts, strict=True))
    left = jnp.where(left > 0, left, LAST)
    left, right, order, weight = jax.lax.sort((left, right, order, weight), num_keys=3)
    new = jnp.concatenate([jnp.ones(1, bool), (left[1:] != left[:-1]) | (right[1:] != right[:-1])])
    pair, first = jnp.cumsum(new) - 1, new & (left < LAST)
    total = jnp.zeros_like(weight).at[pair].add(weight)
    place = jnp.where(first, pair, len(left))
    none = jnp.zeros_like(left)
    ids, others, numbers = (none.at[place].set(each, mode="drop") for each in (left, right, order))
    whole = Pairs(ids, others, total, numbers)

    def heaviest(whole: Pairs) -> Pairs:
        kept = jnp.lexsort((whole.order, -whole.weight))[:room]
        return jax.tree.map(lambda each: each[kept], whole)

    dropped = jnp.maximum(first.sum() - room, 0)
    fitting = jax.lax.cond(dropped == 0, lambda whole: jax.tree.map(lambda each: each[:room], whole), heaviest, whole)
    return fitting, dropped


def heaviest(pairs: Pairs, slots: int, number: int) -> tuple[Array, Array]:
    """ids [V, number] int32 and weights [V, number]: of each left id its heaviest partners, the heaviest first; of
    equal ones the first to appear. 0: there are fewer."""
    left = jnp.where(pairs.left > 0, pairs.left, slots)
    left, minus, _, right = jax.lax.sort((left, -pairs.weight, pairs.order, pairs.right), num_keys=3)
    place = jnp.arange(len(left)) - jnp.searchsorted(left, left, side="left")
    ids = jnp.zeros((slots, number), jnp.int32).at[left, place].set(right, mode="drop")
    return ids, jnp.zeros((slots, number)).at[left, place].set(-minus, mode="drop")
