"""Reservoir sampling: every row inserted so far is equally likely to be in the memory (Vitter 1985, algorithm R)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.types import Batch


class Memory(NamedTuple):
    """C rows of past examples. Strategies' memories are found by this type."""

    rows: Batch  # leading axis C; `valid` says which slots are filled
    inserted: Array  # [] int32: rows offered so far


def empty(example: Batch, capacity: int) -> Memory:
    """A memory of `capacity` rows shaped like `example` (of ShapeDtypeStructs)."""
    rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), example)
    return Memory(rows, jnp.int32(0))


def insert(memory: Memory, rows: Batch, key: Array) -> Memory:
    """Offers the valid rows [B] in order: the n-th ever goes to slot n while there is room, then to a uniform slot of
    0..n, and is dropped if that lies outside the memory."""
    capacity = memory.rows.labels.shape[0]
    if capacity == 0:
        return memory
    n = memory.inserted + jnp.cumsum(rows.valid) - 1  # 0-based number of each valid row
    slot = jnp.where(n < capacity, n, jax.random.randint(key, n.shape, 0, jnp.maximum(n, 0) + 1))
    slot = jnp.where(rows.valid & (slot < capacity), slot, capacity)
    # Of several rows for one slot the last stays, as row by row: the others are dropped, for a scatter has no order.
    later = jnp.arange(len(slot))[:, None] < jnp.arange(len(slot))[None, :]
    beaten = (later & (slot[:, None] == slot[None, :])).any(1)
    slot = jnp.where(beaten, capacity, slot)
    kept = jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), memory.rows, rows)
    return Memory(kept, memory.inserted + rows.valid.sum(dtype=jnp.int32))


def sample(memory: Memory, number: int, key: Array) -> Batch:
    """[number] rows drawn uniformly with replacement; all invalid while the memory is empty."""
    capacity = memory.rows.labels.shape[0]
    filled = jnp.minimum(memory.inserted, capacity)
    index = jax.random.randint(key, (number,), 0, jnp.maximum(filled, 1))
    rows = jax.tree.map(lambda leaf: leaf[index], memory.rows)
    return rows._replace(valid=rows.valid & (filled > 0))
