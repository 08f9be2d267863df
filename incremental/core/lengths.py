"""A batch of histories costs its own lengths, not the padded L, with the same mathematics.

Histories are left-padded and positions count from the right, so cutting padding off the left changes nothing. The
batch is sorted by length and split into sixteenths, 1 : 3 : 4 : 8 from the longest, of which the first keeps L and
the others are cut to L/4, L/7 and L/11. A batch that does not fit these cuts is encoded whole, at L.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.sharding import split

LEAST_ROWS, LEAST_LENGTH = 64, 32  # below these, sorting and compiling cost more than they save


def by_length(encode: Callable[[Array, Array | None], Array], history: Array, key: Array | None) -> Array:
    """`encode(history [b, l], key) -> hidden [b, D]` over [B, L] histories, group by group.

    `encode` must give a row the same result whatever padding is cut off its left (dropout draws apart).
    """
    rows, length = history.shape
    if rows < LEAST_ROWS or length < LEAST_LENGTH:
        return encode(history, key)
    # Position of the first item from the left; L for an empty history.
    lengths = length - jnp.where(history > 0, jnp.arange(length), length).min(1)
    order = jnp.argsort(-lengths)
    bounds = (0, rows // 16, rows // 4, rows // 2, rows)
    cuts = (length, -(-length // 4), -(-length // 7), -(-length // 11))

    def grouped(history: Array, key: Array | None) -> Array:
        ordered = history[order]
        hidden = [
            encode(split(ordered[first:last, length - cut :]), None if key is None else jax.random.fold_in(key, i))
            for i, (first, last, cut) in enumerate(zip(bounds, bounds[1:], cuts, strict=False))
        ]
        return jnp.concatenate(hidden)[jnp.argsort(order)]

    fits = jnp.stack([lengths[order[first]] <= cut for first, cut in zip(bounds, cuts, strict=False)])
    return jax.lax.cond(fits.all(), grouped, encode, history, key)
