"""The neighbours of users and items in the graph of events, in lists of a fixed length."""

from typing import NamedTuple

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
