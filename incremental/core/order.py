"""Orders: by one sort of 64-bit numbers, and random ones."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.mixing import mixed

LEAST = 4096  # fewer are shuffled by a sort
ROUNDS = 8


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
    """[capacity] int32: a random permutation of 0..size-1, then the padding rows. The capacity changes nothing else."""

    def by_sort() -> Array:
        return ordered(jnp.where(jnp.arange(capacity) < size, jax.random.uniform(key, (capacity,)), 2.0))

    if capacity < LEAST:
        return by_sort()
    return jax.lax.cond(size < LEAST, by_sort, lambda: permuted(key, size, capacity))


def permuted(key: Array, size: Array, capacity: int) -> Array:
    """`shuffled`, in less time than a sort takes on a CPU; of a small `size` it would reach few of the permutations.

    The numbers stand in a table of about √size columns. A Feistel network (Luby & Rackoff 1988) moves them: in turn a
    number's row by a hash of its column, and its column by one of its row. Each round has a key. A number that goes
    behind the last one moves again until it does not (Black & Rogaway 2002).
    """
    limit = jnp.uint32(size)
    shift = (32 - jax.lax.clz(limit - 1)) // 2  # 2^shift columns
    columns = jnp.uint32(1) << shift
    rows = (limit + columns - 1) >> shift
    number = jnp.arange(capacity + (1 << (capacity - 1).bit_length() // 2), dtype=jnp.uint32)  # all of the table
    row, column = number >> shift, number & (columns - 1)
    for i, own in enumerate(jax.random.bits(key, (ROUNDS,))):
        if i % 2:
            column ^= mixed(row + own) & (columns - 1)
        else:
            row += ((mixed(column + own) >> 16) * rows) >> 16
            row = jnp.minimum(row, row - rows)  # modulo `rows`, for a number below 0 is a large one
    moved = (row << shift) | column

    own = number[:capacity]
    found = jax.lax.while_loop(
        lambda found: ((found >= limit) & (own < limit)).any(),
        lambda found: jnp.where(found < limit, found, moved[found]),
        moved[:capacity],
    )
    return jnp.where(own < limit, found, own).astype(jnp.int32)
