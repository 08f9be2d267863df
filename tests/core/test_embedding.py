from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.core.embedding import uniform_rows

LIMIT = 0.3


def table(rows: int, key: int = 0) -> Any:
    return np.asarray(jax.jit(uniform_rows(LIMIT), static_argnums=1)(jax.random.key(key), (rows, 5)))


@pytest.fixture(scope="module")
def largest() -> Any:
    return table(1000)


@pytest.mark.parametrize("rows", [1, 9, 999])
def test_a_rows_start_does_not_depend_on_the_tables_capacity(largest: Any, rows: int) -> None:
    np.testing.assert_array_equal(table(rows), largest[:rows])


def test_rows_start_uniform_within_the_limit(largest: Any) -> None:
    assert stats.kstest(largest.ravel(), stats.uniform(-LIMIT, 2 * LIMIT).cdf).pvalue > 1e-3


def test_rows_differ_with_the_key_and_from_each_other(largest: Any) -> None:
    assert (table(9, key=1) != largest[:9]).all()
    assert len(np.unique(largest[:, 0])) > 990
