"""Many random numbers for little: Threefry makes the key, and a number is a hash of the key and its place.

JAX's own draws are Threefry place by place, which on a CPU took a tenth of a step of matrix factorisation.
"""

import jax
import jax.numpy as jnp
from jax import Array


def mixed(words: Array) -> Array:
    """uint32 -> uint32, one to one: every bit depends on all. It is "lowbias32", which C. Wellons' search for such
    functions found."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)


def uniform(key: Array, number: int) -> Array:
    """[number] float32 in [0, 1), multiples of 2^-24: number i is a function of the key and i only."""
    first, second = jax.random.key_data(key)
    words = mixed(mixed(jnp.arange(number, dtype=jnp.uint32) + first) + second)
    return (words >> 8).astype(jnp.float32) * 2.0**-24
