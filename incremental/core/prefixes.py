"""Histories that are prefixes of one another share one run of the encoder.

An event's history is a prefix of that of its user's next event, so a causal encoder that has run over the longer one
has the shorter one's hidden vector on its way. Examples stay single events: what they share is computed once. A run is
a row of examples each of which is a prefix of the next; it is found by its items, so that whatever comes with a batch
(memories' examples, references) shares where it can and is a run of its own where it cannot. `by_runs` brings examples
of a run together in an epoch's order.

A batch's runs are laid out one behind the other (`core.packing`) in the least of a few numbers of blocks that holds
them; where none does each history is computed with its padding.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.order import inverse, ordered
from incremental.core.packing import Tokens, lengths_of, of_all_lanes, packed, padded
from incremental.core.types import Batch

Sharing = Literal["none", "prefix"]

# Tokens an example that there is a layout for: two about what a base part has, two about what later increments have.
ROOMS = (1.17, 1.6, 4.0, 8.0)


def goes_on(history: Array, lengths: Array) -> Array:
    """[b] bool: whether a history [b, L] is a prefix of the next one; the last one is of none."""
    after, longer = jnp.roll(history, -1, 0), jnp.roll(lengths, -1)
    length = history.shape[1]
    # Of the next one's item at the same distance from its first.
    column = jnp.arange(length) - (longer - lengths)[:, None]
    same = jnp.take_along_axis(after, jnp.clip(column, 0, length - 1), 1, mode="promise_in_bounds") == history
    inside = jnp.arange(length) >= length - lengths[:, None]
    return (same | ~inside).all(1) & (longer >= lengths) & (jnp.arange(len(history)) < len(history) - 1)


def layouts(rows: int, length: int) -> tuple[int, ...]:
    """Blocks of L tokens that a batch of b histories is laid out in, ascending."""
    found = {-(-int(room * rows) // length) for room in ROOMS}
    return tuple(sorted(blocks for blocks in found if 4 * blocks < rows))


def by_prefix(encode: Callable[[Tokens, Array | None], Array], history: Array, key: Array | None) -> Array:
    """`encode(tokens, key) -> hidden [B, D]` over histories [B, L], each run of them once.

    `encode` must give a history the same result in every layout and whatever follows it (dropout draws apart).
    """
    blocks = layouts(*history.shape)
    if not blocks:
        return encode(padded(history), key)
    lengths = lengths_of(history)
    joined = goes_on(history, lengths)
    place = jnp.arange(len(history))
    within = jax.lax.cummin(jnp.where(joined, len(history), place), reverse=True)
    tokens = jnp.where(joined, 0, lengths).sum()
    level = (tokens > jnp.array(blocks) * history.shape[1]).sum(dtype=jnp.int32)

    def laid_out(blocks: int) -> Callable[..., Array]:
        return lambda history, key: encode(packed(history, lengths, blocks, within), key)

    # What a branch keeps for its backward pass the others return as zeros: all but the least compute theirs again.
    first, *more = (*map(laid_out, blocks), lambda history, key: encode(padded(history), key))
    anew = [jax.checkpoint(branch, prevent_cse=False) for branch in more]
    return jax.lax.switch(of_all_lanes(level), [first, *anew], history, key)


def by_runs(key: Array, rows: Batch, history: Array, size: Array) -> Array:
    """[N] int32: the examples 0..size-1 run by run, the runs in a uniform order, then the padding rows.

    Runs are of one owner, whose examples are in the order that they have in `rows` [N], `history` [N, L].
    """
    place = jnp.arange(len(history))
    owner = jnp.zeros_like(place) if rows.owner is None else rows.owner
    padding = (place >= size).astype(jnp.uint32) << 31
    of_owners = ordered(owner.astype(jnp.uint32) | padding)  # stable: examples of an owner stay in order
    owner, history = owner[of_owners], history[of_owners]
    joined = goes_on(history, lengths_of(history)) & (owner == jnp.roll(owner, -1)) & (place != size - 1)
    run = jnp.cumsum(~joined) - ~joined  # of each example
    draws = jax.random.uniform(key, place.shape)
    turn = inverse(ordered(draws))[run]  # whole numbers: two runs of one draw must not mix
    return of_owners[ordered(jnp.where(place < size, turn, len(place)))]
