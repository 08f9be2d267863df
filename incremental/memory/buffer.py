"""A memory of past rows: how rows are written to slots and drawn; which slots they get is another file's matter."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.types import STORED, Batch, Memory, stored


def empty(example: Batch, capacity: int) -> Memory:
    """A memory of `capacity` rows shaped like `example` (of ShapeDtypeStructs)."""
    rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), stored(example))
    return Memory(rows, jnp.int32(0))


def capacity_of(memory: Memory) -> int:
    """C."""
    return memory.rows.labels.shape[0]


def put(old: Any, new: Any, slot: Array) -> Any:
    """`old` (leading axis C) with `new` (leading axis B) at `slot` [B] int32; slot C drops the row.

    Of several rows for one slot the last stays, as row by row: the others are dropped, for a scatter has no order.
    """
    later = jnp.arange(len(slot))[:, None] < jnp.arange(len(slot))[None, :]
    beaten = (later & (slot[:, None] == slot[None, :])).any(1)
    size = jax.tree.leaves(old)[0].shape[0]
    slot = jnp.where(beaten, size, slot)
    return jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), old, new)


def write(memory: Memory, rows: Batch, slot: Array) -> Memory:
    """The memory with the valid ones of `rows` [B] offered, those with a slot below C kept."""
    return Memory(put(memory.rows, stored(rows), slot), memory.inserted + rows.valid.sum(dtype=jnp.int32))


def drawn(memory: Memory, index: Array) -> Batch:
    """The rows at `index` [N] int32."""
    return jax.tree.map(lambda leaf: leaf[index], memory.rows)


def sample(memory: Memory, number: int, key: Array) -> Batch:
    """[number] rows drawn uniformly with replacement from the first slots in use; all invalid while there are none."""
    filled = jnp.minimum(memory.inserted, capacity_of(memory))
    rows = drawn(memory, jax.random.randint(key, (number,), 0, jnp.maximum(filled, 1)))
    return rows._replace(valid=rows.valid & (filled > 0))


def sample_by(memory: Memory, log_weight: Array, number: int, key: Array) -> Batch:
    """[number] rows drawn with replacement, a valid slot's probability proportional to exp(`log_weight`) [C]."""
    valid, some = memory.rows.valid, memory.rows.valid.any()
    greatest = jnp.max(jnp.where(valid, log_weight, -jnp.inf), initial=-jnp.inf)
    chances = jnp.where(valid, jnp.exp(log_weight - jnp.where(some, greatest, 0.0)), 0.0)
    # The inverse of the distribution function: `random.categorical` would draw [number, C] numbers.
    total = jnp.cumsum(chances)
    index = jnp.searchsorted(total, jax.random.uniform(key, (number,)) * total[-1], side="right")
    rows = drawn(memory, jnp.minimum(index, capacity_of(memory) - 1))
    return rows._replace(valid=rows.valid & some)


def among(allowed: Array, number: int, key: Array) -> tuple[Array, Array]:
    """Slots [number] int32 drawn uniformly with replacement from the `allowed` [C] bool, and if there are any."""
    count = jnp.cumsum(allowed)  # of allowed slots up to each
    nth = jax.random.randint(key, (number,), 0, jnp.maximum(count[-1], 1))
    slot = jnp.searchsorted(count, nth, side="right").astype(jnp.int32)
    return jnp.minimum(slot, len(allowed) - 1), count[-1] > 0


def without_replacement(allowed: Array, log_weight: Array, number: Array, key: Array) -> Array:
    """[C] bool: `number` [] int32 of the `allowed` [C] bool slots, or all where there are fewer.

    They are drawn one after the other, each with a probability proportional to exp(`log_weight`) [C] among those that
    are left: the `number` largest of log_weight + Gumbel noise (Yellott 1977).
    """
    noisy = log_weight + jax.random.gumbel(key, log_weight.shape)
    place = jnp.argsort(jnp.argsort(jnp.where(allowed, -noisy, jnp.inf)))
    return allowed & (place < number)


def beside(new: Batch, old: Batch) -> Batch:
    """The rows of `new` with those of `old` after them, everything else as in `new`."""
    joined = jax.tree.map(lambda new, old: jnp.concatenate([new, old]), stored(new), stored(old))
    return new._replace(**{name: getattr(joined, name) for name in STORED})
