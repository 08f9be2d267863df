from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.order import inverse, ordered


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
