import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import Items
from incremental.core.types import Batch, Catalogue, Learner, Outputs
from incremental.heads.gbce import gbce

B, D, V, K = 3, 4, 40, 4
LABELS: Any = np.array([2, 5, 6], np.int32)
RNG = np.random.default_rng(2)
HIDDEN, TABLE, BIAS = (RNG.normal(size=shape).astype(np.float32) for shape in ((B, D), (V, D), V))
SCORES: Any = np.float64(HIDDEN) @ TABLE.T + BIAS
NONE: Any = None


def log_sigmoid(x: Any) -> Any:
    return -np.log1p(np.exp(-x))


@jax.jit
def drawn(seen: Any, key: Any) -> Batch:
    """By the head's own strategy."""
    strategy = gbce(negatives=K).strategy
    assert strategy is not None
    learner = Learner({}, (), Catalogue(seen, seen.astype(np.float32), {}), NONE)
    state, _ = strategy.begin(strategy.init(learner), learner, NONE, key)
    return strategy.batch(state, Batch({}, LABELS, NONE, NONE, NONE, candidates=seen), key)


def batch_of(items: int, negatives: Any) -> Batch:
    """With `items` seen: the head's own strategy says what a draw's log q is."""
    seen: Any = (np.arange(V) > 0) & (np.arange(V) <= items)
    return drawn(seen, jax.random.key(0))._replace(negatives=np.asarray(negatives, np.int32))


@functools.cache
def compiled(calibration: float) -> Any:
    outputs = Outputs(jnp.asarray(HIDDEN), jnp.asarray(HIDDEN @ TABLE.T + BIAS))
    head = gbce(negatives=K, calibration=calibration)
    return jax.jit(lambda batch: head.loss(Items(jnp.asarray(TABLE), jnp.asarray(BIAS)), outputs, batch))


def loss(batch: Batch, calibration: float = 0.75) -> Any:
    return np.asarray(compiled(calibration)(batch))


@pytest.mark.parametrize("items", [10, 39])  # alpha follows the catalogue
@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_loss_is_the_formula(items: int, calibration: float) -> None:
    negatives = [3, 5, 1, 1]  # 5 is the second row's label
    alpha = K / (items - 1)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    expected = []
    for row, label in enumerate(LABELS):
        others = [SCORES[row, j] for j in negatives if j != label]
        total = beta * log_sigmoid(SCORES[row, label]) + sum(np.log(1 - 1 / (1 + np.exp(-s))) for s in others)
        expected.append(-total / (len(others) + 1))
    np.testing.assert_allclose(loss(batch_of(items, negatives), calibration), expected, rtol=1e-4)


def test_more_draws_than_items_are_plain_cross_entropy() -> None:
    negatives = [3, 3, 1, 1]
    np.testing.assert_allclose(loss(batch_of(3, negatives), 0.75), loss(batch_of(3, negatives), 0.0), rtol=1e-6)


@pytest.mark.parametrize("number", [3, 5, 6, 7])  # of log(k), exp makes a bit more or less than k
def test_with_one_item_there_is_nothing_to_calibrate(number: int) -> None:
    """No other item, so that there is no negative: -log σ(s_y), whatever `calibration` is."""
    seen: Any = np.arange(V) == LABELS[0]
    log_q = jnp.full(number, jnp.log(float(number)))
    batch = drawn(seen, jax.random.key(0))._replace(negatives=jnp.full(number, LABELS[0]), log_q=log_q)
    outputs = Outputs(jnp.asarray(HIDDEN), jnp.asarray(HIDDEN @ TABLE.T + BIAS))
    rows = gbce(negatives=number).loss(Items(jnp.asarray(TABLE), jnp.asarray(BIAS)), outputs, batch)
    assert float(rows[0]) == pytest.approx(-log_sigmoid(SCORES[0, LABELS[0]]), rel=1e-4)


def test_exact_form_is_binary_cross_entropy_over_all_other_candidates() -> None:
    exact = batch_of(10, [])._replace(negatives=None, log_q=None)
    rows = loss(exact)
    for row, label in enumerate(LABELS):
        others = [SCORES[row, j] for j in range(1, 11) if j != label]
        total = log_sigmoid(SCORES[row, label]) + log_sigmoid(-np.array(others)).sum()
        assert float(rows[row]) == pytest.approx(-total / 10, rel=1e-5)
