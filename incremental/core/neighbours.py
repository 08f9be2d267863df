"""The neighbours of users and items in the graph of events, in lists of a fixed length."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.order import ordered
from incremental.core.sides import Sides
from incremental.core.types import Data, Learner


class Neighbours(NamedTuple):
    """Of the ids of one kind.

    Attributes:
        latest: [capacity, n] int32: an id's last n neighbours, the latest first, 0 = none; one met twice stands twice
        degree: [capacity] float32: the id's events, those that are in no list any more too
    """

    latest: Array
    degree: Array


def nobody(learner: Learner, n: int) -> Sides:
    """`Sides` of `Neighbours` without any; `n` is the length of a list."""
    sizes = Sides(len(learner.catalogue.arrived["user"]), len(learner.catalogue.seen))
    return Sides(*(Neighbours(jnp.zeros((size, n), jnp.int32), jnp.zeros(size)) for size in sizes))


def with_events(old: Sides, data: Data, before: Array | int = -1) -> Sides:
    """`Sides` of `Neighbours` with the users and labels of the examples of `data` of increments later than `before`."""
    rows = data.rows
    return Sides(with_items(old.users, data, before), _joined(old.items, rows.labels, rows.owner, _real(data, before)))


def with_items(users: Neighbours, data: Data, before: Array | int = -1) -> Neighbours:
    """The users' part of `with_events`."""
    return _joined(users, data.rows.owner, data.rows.labels, _real(data, before))


def _real(data: Data, before: Array | int) -> Array:
    rows = data.rows
    return rows.valid & (jnp.arange(len(rows.labels)) < data.size) & (rows.increment > before)


def _joined(old: Neighbours, ids: Array, others: Array, real: Array) -> Neighbours:
    capacity, n = old.latest.shape
    ids, others = jnp.flip(jnp.where(real, ids, capacity)), jnp.flip(others)
    order = ordered(ids)
    ids, others = ids[order], others[order]
    place = jnp.arange(len(ids)) - jnp.searchsorted(ids, ids)  # among its id's events, the latest being 0
    new = jnp.zeros_like(old.latest).at[ids, place].set(others, mode="drop")
    number = jnp.zeros_like(old.degree).at[ids].add(1.0, mode="drop")
    slot, first = jnp.arange(n), jnp.minimum(number, n).astype(jnp.int32)[:, None]
    kept = jnp.take_along_axis(old.latest, jnp.maximum(slot - first, 0), axis=1)
    return Neighbours(jnp.where(slot < first, new, kept), old.degree + number)


def filled(lists: Array) -> Array:
    """[N · n] int32: where in `lists` [N, n] there is a neighbour, one list behind the other; then where there is
    none."""
    return ordered((lists.reshape(-1) == 0).astype(jnp.int32))


@jax.custom_vjp
def affinity(own: Array, others: Array, lists: Array, places: Array) -> Array:
    """[N]: the dot product of each vector in `own` [N, D] with the mean of its neighbours', rows of `others`, 0 without
    one; `places` are those of `filled`. It costs as many rows as there are neighbours, however long the lists are."""

    def add(total: Array, row: Array, other: Array, share: Array) -> Array:
        return total.at[row].add(share * (own[row] * others[other]).sum(1))

    return _over_neighbours(add, jnp.zeros(len(own)), lists, places)


def _kept(own: Array, others: Array, lists: Array, places: Array) -> Any:
    return affinity(own, others, lists, places), (own, others, lists, places)


def _pulled(kept: Any, cotangent: Array) -> Any:
    own, others, lists, places = kept

    def add(sums: tuple[Array, Array], row: Array, other: Array, share: Array) -> tuple[Array, Array]:
        pull = (share * cotangent[row])[:, None]
        return sums[0].at[row].add(pull * others[other]), sums[1].at[other].add(pull * own[row])

    none = jnp.zeros_like(own), jnp.zeros_like(others)
    return *_over_neighbours(add, none, lists, places), None, None


affinity.defvjp(_kept, _pulled)


def _over_neighbours(add: Callable[..., Any], sums: Any, lists: Array, places: Array) -> Any:
    """`add(sums, row [N], other [N], share [N])` over all neighbours, N at a time: whose each is, who it is, and one
    over the number of the row's neighbours, 0 where there is none."""
    size, n = lists.shape
    number = (lists > 0).sum(1)
    total = number.sum()

    def some(i: Array, sums: Any) -> Any:
        place = jax.lax.dynamic_slice_in_dim(places, i * size, size)
        row = place // n
        real = i * size + jnp.arange(size) < total
        return add(sums, row, lists.reshape(-1)[place], jnp.where(real, 1.0 / jnp.maximum(number[row], 1), 0.0))

    return jax.lax.fori_loop(0, -(-total // size), some, sums)
