"""The bits that the tests draw are those of Threefry-2x32, so those of JAX."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.threefry import TARGET, bits

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: tests draw as users do")
# Of Random123's list (Salmon et al. 2011): key, counter, result.
KNOWN = """
00000000 00000000  00000000 00000000  6b200159 99ba4efe
ffffffff ffffffff  ffffffff ffffffff  1cb996fc bb002be7
13198a2e 03707344  243f6a88 85a308d3  c4923a9c 483df7a0
"""


def test_known_answers_of_threefry() -> None:
    key, counter, expected = (
        np.array([int(word, 16) for word in KNOWN.split()], np.uint32).reshape(3, 3, 2).swapaxes(0, 1)
    )
    found = jax.jit(bits)(*key.T, *counter.T)
    np.testing.assert_array_equal(np.stack(found, 1), expected)


def test_a_key_for_each_lane_and_one_counter_for_all() -> None:
    """`jax.random` hands over shapes that broadcast; a draw in a program is one call."""
    drawn = jax.jit(jax.vmap(lambda seed: jax.random.bits(jax.random.key(seed), (2, 3))))
    seeds = jnp.arange(4, dtype=jnp.uint32)
    assert TARGET in drawn.lower(seeds).as_text()
    each = [jax.random.key_data(jax.random.key(int(seed))) for seed in seeds]
    words = np.arange(6, dtype=np.uint32).reshape(2, 3)
    for found, key in zip(drawn(seeds), each, strict=True):
        one, two = bits(*key, 0 * words, words)
        np.testing.assert_array_equal(found, one ^ two)
