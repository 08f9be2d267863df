from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.core.order import LEAST, inverse, ordered, shuffled


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint32])
def test_an_order_is_a_stable_argsort(kind: Any) -> None:
    rng = np.random.default_rng(0)
    keys = np.concatenate([rng.integers(0, 40, 300), [0, 2**31 - 256, 2**20]]).astype(kind)
    if kind is np.float32:
        keys[:100] = rng.uniform(size=100)  # between whole numbers, which occur several times
        keys[-1] = 2**100
    order, back = jax.jit(lambda keys: (ordered(keys), inverse(ordered(keys))))(keys)
    assert order.dtype == back.dtype == np.int32
    np.testing.assert_array_equal(order, np.argsort(keys, kind="stable"))
    np.testing.assert_array_equal(back, np.argsort(order))


def test_so_it_is_under_vmap() -> None:
    keys = np.random.default_rng(1).integers(0, 9, (3, 50)).astype(np.int32)
    found = jax.jit(jax.vmap(ordered))(keys)
    np.testing.assert_array_equal(found, np.argsort(keys, axis=1, kind="stable"))


many = jax.jit(
    lambda seeds, size, capacity: jax.vmap(lambda seed: shuffled(jax.random.key(seed), size, capacity))(seeds),
    static_argnums=2,
)


def orders(number: int, size: int, capacity: int) -> Any:
    return np.asarray(many(np.arange(number), np.int32(size), capacity))


@pytest.mark.parametrize("size", [LEAST - 1, LEAST, LEAST + 1, 8191, 8193, 9000])
def test_a_shuffle_holds_each_number_once_whatever_the_capacity(size: int) -> None:
    found = orders(3, size, 9000)
    np.testing.assert_array_equal(np.sort(found[:, :size], 1), np.tile(np.arange(size), (3, 1)))
    np.testing.assert_array_equal(found[:, size:], np.tile(np.arange(size, 9000), (3, 1)))
    np.testing.assert_array_equal(orders(3, size, 9216)[:, :size], found[:, :size])
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("size", [LEAST - 1, LEAST, 5000, 8193])
def test_a_shuffle_is_as_random_as_it_should_be(size: int) -> None:
    """Where a row comes, where the one a given way behind it comes then, and the pairs that stay in order."""
    number, parts = 500, 10
    found = orders(number, size, 8320)[:, :size]
    turn = np.empty_like(found)
    np.put_along_axis(turn, found, np.arange(size, dtype=np.int32)[None], 1)
    even = np.bincount(np.arange(size) * parts // size, minlength=parts) / size
    for row in (0, 1, size // 2, size - 1):
        assert stats.chisquare(np.bincount(turn[:, row] * parts // size, minlength=parts), number * even).pvalue > 1e-5
    for way in (1, 2, 63, 64, 65, 128, size // 2):
        by_way = np.bincount((np.roll(turn, -way, 1) - turn + size).reshape(-1), minlength=2 * size)
        counts = np.bincount((np.arange(2 * size) - size) % size * parts // size, by_way, parts)
        # A row is never 0 places from another one.
        wanted = (even * size - (np.arange(parts) == 0)) / (size - 1)
        assert stats.chisquare(counts, number * size * wanted).pvalue > 1e-5
    fixed = (found == np.arange(size)).sum(1)
    assert stats.chisquare(np.bincount(np.minimum(fixed, 3), minlength=4), number * poisson(3)).pvalue > 1e-5
    rising = (found[:, 1:] > found[:, :-1]).sum(1)  # Eulerian: of mean (n - 1) / 2 and variance (n + 1) / 12
    z = (rising - (size - 1) / 2) / np.sqrt((size + 1) / 12)
    assert stats.kstest(z, "norm").pvalue > 1e-5


def poisson(last: int) -> Any:
    """The shares of 0, 1, … and of `last` and more, of mean 1."""
    shares = stats.poisson.pmf(np.arange(last + 1), 1.0)
    shares[-1] = 1.0 - shares[:-1].sum()
    return shares
