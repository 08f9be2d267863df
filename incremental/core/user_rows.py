"""Rows of the user-item matrix from an update's new events, some users at a time."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from incremental.core.types import Data


class Arrived(NamedTuple):
    """New events, ordered by user."""

    users: Array  # [E] int32
    items: Array  # [E] int32
    number: Array  # [E] int32, of the event's user among the distinct ones; -1 = padding


def arrived(data: Data) -> Arrived:
    """The update's new events."""
    order = jnp.argsort(data.arrived["user"])
    users = data.arrived["user"][order]
    first = users != jnp.concatenate([jnp.zeros(1, users.dtype), users[:-1]])  # padding, 0, comes before all
    return Arrived(users, data.events[order], jnp.cumsum(first, dtype=jnp.int32) - 1)


def blocks(events: Arrived, size: int) -> Array:
    """[] int32: how many blocks of `size` users there are."""
    return (events.number.max() + size) // size


def block(events: Arrived, n: Array, size: int, items: int) -> tuple[Array, Array]:
    """Users [size] int32 (0 = none) of the n-th block and their new events' counts [size, V] float32."""
    place = events.number - n * size
    place = jnp.where((events.number >= 0) & (place >= 0) & (place < size), place, size)
    users = jnp.zeros(size, jnp.int32).at[place].set(events.users, mode="drop")
    return users, jnp.zeros((size, items)).at[place, events.items].add(1.0, mode="drop")
