from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Batch, Catalogue, Learner, Outputs, Problem, Teacher
from incremental.strategies.feature_distillation import feature_distillation
from incremental.testing import check_strategy

NONE: Any = None
B, D = 3, 2
RNG = np.random.default_rng(0)
X: Any = RNG.normal(size=(B, D)).astype(np.float32)
OLD: Any = {"w": RNG.normal(size=(D, D)).astype(np.float32)}
NEW: Any = {"w": RNG.normal(size=(D, D)).astype(np.float32)}


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None
    return Outputs(inputs["x"] @ params["w"], inputs["x"])


PROBLEM = Problem(NONE, apply, NONE, NONE, {}, None, NONE)
NOBODY: Any = np.zeros(1, bool)
LEARNER = Learner(OLD, (), Catalogue(NOBODY, NOBODY, {"user": NOBODY}), NONE)
ROWS = Batch({"x": jnp.array(X)}, NONE, NONE, jnp.array([True, True, False]), NONE)


@jax.jit
@jax.value_and_grad
def loss(params: Any, state: Any, weight: Any) -> Any:
    part = feature_distillation(PROBLEM, weight=weight)
    rows = part.batch(state, ROWS, NONE)
    return part.loss(state, params, rows, apply(params, rows.inputs))


START = jax.jit(feature_distillation(PROBLEM).init)(LEARNER)
TAUGHT = jax.jit(lambda state: feature_distillation(PROBLEM).end(state, LEARNER, NONE, NONE)[0])(START)


def test_loss_and_gradient_are_the_mean_squared_way_of_the_hidden_vectors() -> None:
    assert isinstance(TAUGHT.teacher, Teacher)
    value, gradient = loss(NEW, TAUGHT, np.float32(3.0))
    way = X[:2] @ (NEW["w"] - OLD["w"])  # the last row is padding
    assert float(value) == pytest.approx(3.0 * (way**2).sum(1).mean(), rel=1e-5)
    np.testing.assert_allclose(gradient["w"], 3.0 * 2.0 * X[:2].T @ way / 2, rtol=1e-4, atol=1e-5)


def test_there_is_none_before_the_first_increments_end_nor_for_a_student_like_its_teacher() -> None:
    for params, state in ((NEW, START), (OLD, TAUGHT)):
        value, gradient = loss(params, state, np.float32(3.0))
        assert float(value) == 0.0
        np.testing.assert_array_equal(gradient["w"], 0.0)


def test_the_laws_of_strategies() -> None:
    check_strategy(feature_distillation, kind="distillation", off={"weight": 0.0}, arguments={"weight": 1.0})
