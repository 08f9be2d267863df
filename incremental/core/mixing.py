"""Many random numbers for little: Threefry makes the key, and a number is a hash of the key and its place.

JAX's own draws are Threefry place by place, which takes a CPU longer. The hash serves where a step has
thousands of draws: negatives and dropout. It does not keep an adversary from guessing them.
"""

import jax
import jax.numpy as jnp
from jax import Array


def mixed(word: Array) -> Array:
    """uint32 -> uint32, one to one: every bit depends on all. It is "lowbias32", which C. Wellons' search for such
    functions found."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def words(key: Array, number: int) -> Array:
    """[number] uint32: number i is a function of the key and i only."""
    found = jnp.arange(number, dtype=jnp.uint32)
    for word in jax.random.key_data(key):
        found = mixed(found + word)
    return found


def uniform(key: Array, number: int) -> Array:
    """[number] float32 in [0, 1), multiples of 2^-24, of `words`."""
    return (words(key, number) >> 8).astype(jnp.float32) * 2.0**-24
