"""Reservoir sampling: every row offered so far is equally likely to be in the memory (Vitter 1985, algorithm R)."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.types import Batch, Memory
from incremental.memory.buffer import capacity_of, write


def slots(memory: Memory, rows: Batch, key: Array) -> Array:
    """[B] int32: the n-th valid row ever goes to slot n while there is room, then to one of 0..n; C = none."""
    capacity = capacity_of(memory)
    n = memory.inserted + jnp.cumsum(rows.valid) - 1  # 0-based number of each valid row
    slot = jnp.where(n < capacity, n, jax.random.randint(key, n.shape, 0, jnp.maximum(n, 0) + 1))
    return jnp.where(rows.valid & (slot < capacity), slot, capacity)


def insert(memory: Memory, rows: Batch, key: Array) -> Memory:
    """Offers the valid rows [B] in order."""
    return write(memory, rows, slots(memory, rows, key))
