from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs, Problem
from incremental.errors import UserError
from incremental.strategies.mas import mas
from incremental.testing import check_strategy

N, D, V = 4, 3, 5
NONE: Any = None
SEEN: Any = np.array([0, 1, 1, 0, 1], bool)
RNG = np.random.default_rng(0)
X: Any = RNG.normal(size=(N, D)).astype(np.float32)
START: Any = {"W": RNG.normal(size=(D, V)).astype(np.float32)}
ENDS: Any = [{"W": RNG.normal(size=(D, V)).astype(np.float32)} for _ in range(3)]


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None  # no dropout
    return Outputs(inputs["x"], inputs["x"] @ params["W"])


LINEAR = Problem(NONE, apply, NONE, NONE, {}, None, NONE)


def learner(params: Any) -> Learner:
    # All are candidates from the start (data.unseen_items=known).
    every: Any = np.arange(V) > 0
    return Learner(params, (), Catalogue(every, SEEN, NONE), NONE)


def data(size: int) -> Data:
    real = np.arange(N) < size
    x: Any = np.where(real[:, None], X, np.nan)
    number: Any = np.int32(size)
    return Data(Batch({"x": x}, NONE, NONE, NONE, NONE), number, NONE, NONE, NONE)


def sensitivity(params: Any, row: int) -> Any:
    """|∂ Σ_seen s_j² / ∂ W_dj| = |2 s_j x_d| for one example."""
    scores = np.where(SEEN, np.float64(X[row]) @ params["W"], 0.0)
    return np.abs(2 * X[row][:, None] * scores[None, :])


class Jitted:
    def __init__(self, samples: int) -> None:
        self.init = jax.jit(lambda learner: mas(LINEAR, samples=samples).init(learner))
        self.end = jax.jit(
            lambda state, learner, data, key: mas(LINEAR, samples=samples).end(state, learner, data, key)
        )
        self.loss = jax.jit(
            jax.value_and_grad(
                lambda params, state, weight: mas(LINEAR, weight=weight, samples=samples).loss(
                    state, params, NONE, NONE
                )
            )
        )


@pytest.fixture(scope="module")
def jitted() -> Jitted:
    return Jitted(11)


def test_importance_of_one_example_is_the_size_of_its_gradient(jitted: Jitted) -> None:
    state, _ = jitted.end(jitted.init(learner(START)), learner(ENDS[0]), data(1), jax.random.key(0))
    np.testing.assert_allclose(state.importance["W"], sensitivity(ENDS[0], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(state.importance["W"])[:, ~SEEN], 0.0)


def test_importance_is_the_mean_of_sizes_not_the_size_of_the_mean() -> None:
    samples = 4096
    many = Jitted(samples)
    state, _ = many.end(many.init(learner(START)), learner(ENDS[0]), data(N), jax.random.key(0))
    each = np.array([sensitivity(ENDS[0], row) for row in range(N)])
    assert (np.abs(state.importance["W"] - each.mean(0)) <= 4 * each.std(0) / np.sqrt(samples) + 1e-5).all()


def test_of_examples_together_it_is_the_size_of_the_mean() -> None:
    many = 4096
    strategy = mas(LINEAR, samples=many, together=many)
    end = jax.jit(strategy.end)
    state, _ = end(strategy.init(learner(START)), learner(ENDS[0]), data(N), jax.random.key(0))
    signed = np.array(
        [2 * X[row][:, None] * np.where(SEEN, np.float64(X[row]) @ ENDS[0]["W"], 0.0) for row in range(N)]
    )
    spread = 4 * signed.std(0) / np.sqrt(many)
    assert (np.abs(state.importance["W"] - np.abs(signed.mean(0))) <= spread + 1e-5).all()


def test_importances_add_up_and_the_anchor_moves(jitted: Jitted) -> None:
    state, total = jitted.init(learner(START)), np.zeros((D, V))
    value, _ = jitted.loss(ENDS[0], state, np.float32(2.0))
    assert float(value) == 0.0
    for end in ENDS:
        state, after = jitted.end(state, learner(end), data(1), jax.random.key(0))
        total += sensitivity(end, 0)
        np.testing.assert_allclose(state.importance["W"], total, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(state.anchor.params["W"], end["W"])
        np.testing.assert_array_equal(after.params["W"], end["W"])


def test_loss_is_half_the_weighted_square(jitted: Jitted) -> None:
    state, _ = jitted.end(jitted.init(learner(START)), learner(ENDS[0]), data(1), jax.random.key(0))
    value, gradient = jitted.loss(ENDS[1], state, np.float32(3.0))
    importance, way = sensitivity(ENDS[0], 0), ENDS[1]["W"] - ENDS[0]["W"]
    assert float(value) == pytest.approx(0.5 * 3.0 * (importance * way**2).sum(), rel=1e-4)
    np.testing.assert_allclose(gradient["W"], 3.0 * importance * way, rtol=1e-4, atol=1e-5)
    assert jnp.isfinite(value)


def test_no_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"mas: samples=0: expected a whole number >= 1"):
        mas(LINEAR, samples=0)
    with pytest.raises(UserError, match=r"mas: together=0: expected a whole number >= 1"):
        mas(LINEAR, together=0)


def test_the_laws_of_strategies() -> None:
    check_strategy(mas, kind="penalty", off={"weight": 0.0}, arguments={"samples": 16, "weight": 1.0})
