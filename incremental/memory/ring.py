"""A ring: the memory holds the most recent rows."""

import jax.numpy as jnp
from jax import Array

from incremental.core.types import Batch, Memory
from incremental.memory.buffer import capacity_of, write


def slots(memory: Memory, rows: Batch) -> Array:
    """[B] int32: the n-th valid row ever goes to slot n mod C, in place of the oldest; C = none (padding)."""
    capacity = capacity_of(memory)
    n = memory.inserted + jnp.cumsum(rows.valid) - 1  # 0-based number of each valid row
    return jnp.where(rows.valid, n % capacity, capacity)


def insert(memory: Memory, rows: Batch) -> Memory:
    """Offers the valid rows [B] in order."""
    return write(memory, rows, slots(memory, rows))
