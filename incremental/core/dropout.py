"""Dropout whose rate may be traced, so that a sweep over rates is one program (Linen's rate is static)."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from incremental.core.mixing import words


def multipliers(key: Array | None, rate: float | Array, shapes: Sequence[tuple[int, ...]]) -> list[Array | float]:
    """Inverted dropout (Srivastava et al. 2014): for each shape an array of 1 / (1 - rate), or 0 with probability
    `rate`; `key=None` gives 1.0 for each.

    All come from one draw (`core.mixing`), so that a site costs no compilation of its own. The rate is resolved to
    1/65,536: sixteen random bits an element, two from each word that is drawn.
    """
    if key is None or (isinstance(rate, float) and rate == 0.0):
        return [1.0] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    drawn = words(key, (sum(sizes) + 1) // 2)
    bits = jnp.concatenate([drawn & 0xFFFF, drawn >> 16]).astype(jnp.float32)
    kept = jnp.where(bits >= rate * 65536.0, 1.0 / (1.0 - rate), 0.0)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [kept[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)]
