"""Vectors of length 1, whose dot products are cosines."""

import jax
import jax.numpy as jnp
from jax import Array


def unit(vectors: Array) -> Array:
    """[..., D]: each at length 1; a zero vector stays, with a gradient of 0."""
    square = (vectors**2).sum(-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)) * (square > 0)
