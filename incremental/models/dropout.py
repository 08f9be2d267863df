"""Dropout whose rate may be traced, so that a sweep over rates is one program (Linen's rate is static)."""

import jax
import jax.numpy as jnp
from jax import Array


def dropout(values: Array, rate: float | Array, key: Array | None) -> Array:
    """Inverted dropout (Srivastava et al. 2014): each element is kept with probability 1 - rate and scaled by
    1 / (1 - rate); `key=None` returns the values unchanged.

    The rate is resolved to 1/65,536: sixteen random bits an element are half the cost of a float's.
    """
    if key is None or (isinstance(rate, float) and rate == 0.0):
        return values
    bits = jax.random.bits(key, values.shape, "uint16").astype(jnp.float32)
    keep = bits >= jnp.asarray(rate, jnp.float32) * 65536.0
    return jnp.where(keep, values / (1.0 - rate), 0.0)
