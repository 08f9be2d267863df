"""A batch of histories costs its own lengths, not the padded L, with the same mathematics.

Histories are left-padded and positions count from the right, so cutting padding off the left changes nothing. The
batch is sorted by length and split: the longest sixteenth keeps L, the next three sixteenths are cut to L/3, the
rest to L/6 - each group only if all its rows fit, else it keeps L.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

SMALLEST_SPLIT = 64  # rows; below this the sorting costs more than it saves


def by_length(encode: Callable[[Array, Array | None], Array], history: Array, key: Array | None) -> Array:
    """`encode(history [b, l], key) -> hidden [b, D]` over [B, L] histories, group by group.

    `encode` must give a row the same result whatever padding is cut off its left (dropout draws apart).
    """
    rows, length = history.shape
    if rows < SMALLEST_SPLIT or length < 12:
        return encode(history, key)
    # Position of the first item from the left; L for an empty history.
    lengths = length - jnp.where(history > 0, jnp.arange(length), length).min(1)
    order = jnp.argsort(-lengths)
    ordered, lengths = history[order], lengths[order]
    bounds = (0, rows // 16, rows // 4, rows)
    hidden = []
    for i, cut in enumerate((length, -(-length // 3), -(-length // 6))):
        first, last = bounds[i], bounds[i + 1]
        group = ordered[first:last]
        group_key = None if key is None else jax.random.fold_in(key, i)
        if cut == length:
            hidden.append(encode(group, group_key))
            continue
        hidden.append(
            jax.lax.cond(
                lengths[first] <= cut,
                lambda group, key, cut=cut: encode(group[:, length - cut :], key),
                encode,
                group,
                group_key,
            )
        )
    return jnp.concatenate(hidden)[jnp.argsort(order)]
