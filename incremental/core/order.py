"""Orders by one sort of 64-bit numbers."""

import jax
import jax.numpy as jnp
from jax import Array


def ordered(keys: Array) -> Array:
    """[N] int32: the places of `keys` [N] from the least to the greatest, equal ones as they stand: a stable argsort.

    The keys are float32 of at least 0 or whole numbers of at least 0, whose bits rise as they do. A key and its place
    are one number: XLA on a CPU takes seven times as long to sort pairs.
    """
    bits = jax.lax.bitcast_convert_type(keys, jnp.uint32)
    with jax.enable_x64(True):
        pairs = (bits.astype(jnp.uint64) << jnp.uint64(32)) | jax.lax.iota(jnp.uint64, len(keys))
        return jax.lax.sort(pairs, is_stable=False).astype(jnp.int32)  # the lower half


def inverse(order: Array) -> Array:
    """[N] int32: where each place stands in the `order` [N] of all."""
    place = jnp.arange(len(order), dtype=jnp.int32)
    return jnp.zeros_like(place).at[order].set(place, unique_indices=True)


def shuffled(key: Array, size: Array, capacity: int) -> Array:
    """[capacity] int32: a uniform permutation of 0..size-1, then the padding rows."""
    return ordered(jnp.where(jnp.arange(capacity) < size, jax.random.uniform(key, (capacity,)), 2.0))
