from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.dropout import multipliers

RATES: Any = np.array([0.0, 0.1, 0.3, 0.5, 0.9], np.float32)
SHAPES = [(40, 250), (3, 50, 200)]


@pytest.fixture(scope="module")
def kept() -> Any:
    """For each rate, and each of two shapes, the multipliers of one key; the rate is traced."""
    drawn = jax.jit(jax.vmap(lambda rate, key: multipliers(key, rate, SHAPES), (0, None)))
    return [np.asarray(part) for part in drawn(RATES, jax.random.key(0))]


def test_multipliers_have_the_shapes_asked_for(kept: Any) -> None:
    assert [part.shape for part in kept] == [(len(RATES), *shape) for shape in SHAPES]


@pytest.mark.parametrize("case", range(len(RATES)))
def test_the_right_share_is_zero_and_the_rest_keeps_the_mean_at_one(kept: Any, case: int) -> None:
    rate = float(RATES[case])
    values = np.concatenate([part[case].ravel() for part in kept])
    zeros = (values == 0.0).sum()
    assert abs(zeros - rate * len(values)) <= 4 * np.sqrt(rate * (1 - rate) * len(values))
    np.testing.assert_allclose(values[values > 0], 1.0 / (1.0 - rate), rtol=1e-5)
    assert abs(values.mean() - 1.0) <= 4 * np.sqrt(rate / (1 - rate) / len(values))


def test_sites_and_elements_draw_apart(kept: Any) -> None:
    first, second = kept[0][3].ravel(), kept[1][3].ravel()
    assert abs(np.corrcoef(first, second[: len(first)])[0, 1]) < 0.05
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05


def test_without_a_key_or_at_a_fixed_rate_of_zero_nothing_is_dropped() -> None:
    assert multipliers(None, 0.5, SHAPES) == [1.0, 1.0]
    assert multipliers(jax.random.key(0), 0.0, SHAPES) == [1.0, 1.0]
