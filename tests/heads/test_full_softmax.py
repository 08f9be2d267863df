from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.problem import Items
from incremental.core.types import Batch, Outputs
from incremental.heads.full_softmax import full_softmax

B, D, V = 4, 3, 7
SEEN: Any = np.array([0, 1, 1, 0, 1, 1, 0], bool)
LABELS: Any = np.array([1, 2, 5, 4], np.int32)


def batch(candidates: Any) -> Batch:
    rows: Any = (LABELS, np.ones(B, np.float32), np.ones(B, bool), np.zeros(B, np.int32))
    return Batch({}, *rows)._replace(candidates=candidates)


@jax.jit
def loss_and_gradient(table: Any, scores: Any, batch: Batch) -> Any:
    """The rows' losses, and the gradient of their sum with respect to the scores."""

    def total(scores: Any) -> Any:
        rows = full_softmax().loss(Items(table, table[:, 0]), Outputs(table[:B], scores), batch)
        return rows.sum(), rows

    return jax.grad(total, has_aux=True)(scores)[::-1]


def softmax(scores: Any, candidates: Any) -> Any:
    powers = np.exp(np.float64(scores)) * candidates
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def scores() -> Any:
    return np.random.default_rng(0).normal(size=(B, V)).astype(np.float32)


TABLE: Any = np.zeros((V, D), np.float32)


@pytest.mark.parametrize("candidates", [SEEN, np.ones(V, bool)])
def test_loss_is_minus_the_log_of_the_softmax_over_the_candidates(scores: Any, candidates: Any) -> None:
    loss, _ = loss_and_gradient(TABLE, scores, batch(candidates))
    expected = -np.log(softmax(scores, candidates)[np.arange(B), LABELS])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_without_candidates_every_item_is_one(scores: Any) -> None:
    loss, _ = loss_and_gradient(TABLE, scores, batch(None))
    np.testing.assert_allclose(loss, -np.log(softmax(scores, 1.0)[np.arange(B), LABELS]), rtol=1e-5)


def test_gradient_is_softmax_minus_one_hot(scores: Any) -> None:
    _, gradient = loss_and_gradient(TABLE, scores, batch(SEEN))
    np.testing.assert_allclose(gradient, softmax(scores, SEEN) - np.eye(V)[LABELS], atol=1e-6)


def test_unused_capacity_never_enters_the_denominator(scores: Any) -> None:
    unused = np.where(SEEN, scores, 1e6).astype(np.float32)  # would dominate, were it counted
    loss, gradient = loss_and_gradient(TABLE, unused, batch(SEEN))
    before, _ = loss_and_gradient(TABLE, scores, batch(SEEN))
    np.testing.assert_array_equal(loss, before)
    np.testing.assert_array_equal(np.asarray(gradient)[:, ~SEEN], 0.0)


def test_large_scores_stay_finite(scores: Any) -> None:
    loss, gradient = loss_and_gradient(TABLE, 1e4 * scores, batch(SEEN))
    among = np.where(SEEN, 1e4 * np.float64(scores), -np.inf)
    np.testing.assert_allclose(loss, among.max(1) - among[np.arange(B), LABELS], rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_head_draws_nothing() -> None:
    assert full_softmax().strategy is None
