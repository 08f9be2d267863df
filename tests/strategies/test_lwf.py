from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Batch, Catalogue, Learner, Outputs, Problem, Teacher
from incremental.strategies.lwf import lwf
from incremental.testing import check_strategy

NONE: Any = None
B, V, D = 3, 5, 2
RNG = np.random.default_rng(0)
X: Any = RNG.normal(size=(B, D)).astype(np.float32)
OLD: Any = {"item": RNG.normal(size=(V, D)).astype(np.float32)}
NEW: Any = {"item": RNG.normal(size=(V, D)).astype(np.float32)}
SEEN: Any = np.array([0, 1, 1, 0, 1], bool)
USERS: Any = np.zeros(1, bool)


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None
    return Outputs(inputs["x"], inputs["x"] @ params["item"].T)


PROBLEM = Problem(NONE, apply, NONE, NONE, {"item": "item"}, None, NONE)
LEARNER = Learner(OLD, (), Catalogue(SEEN, SEEN, {"user": USERS}), NONE)
ROWS = Batch({"x": jnp.array(X)}, NONE, NONE, jnp.ones(B, bool), NONE)


def made(weight: Any = 1.0, temperature: Any = 2.0) -> Any:
    return lwf(PROBLEM, weight=weight, temperature=temperature)


@jax.jit
@jax.value_and_grad
def loss(params: Any, state: Any, weight: Any, temperature: Any) -> Any:
    part = made(weight, temperature)
    rows = part.batch(state, ROWS, NONE)
    return part.loss(state, params, rows, apply(params, rows.inputs))


START = jax.jit(made().init)(LEARNER)
TAUGHT = jax.jit(lambda state: made().end(state, LEARNER, NONE, NONE)[0])(START)


def softmax(params: Any, temperature: float) -> Any:
    p = np.exp(np.float64(X) @ params["item"].T / temperature) * SEEN
    return p / p.sum(1, keepdims=True)


def test_there_is_no_loss_before_the_first_increments_end() -> None:
    value, gradient = loss(NEW, START, np.float32(1.0), np.float32(2.0))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient["item"], 0.0)  # not NaN: no item is known


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_loss_and_gradient_are_the_tempered_cross_entropys(temperature: float) -> None:
    assert isinstance(TAUGHT.teacher, Teacher)
    value, gradient = loss(NEW, TAUGHT, np.float32(3.0), np.float32(temperature))
    p, q = softmax(OLD, temperature), softmax(NEW, temperature)
    entropy = -(p[:, SEEN] * np.log(q[:, SEEN])).sum(1).mean()
    assert float(value) == pytest.approx(3.0 * temperature**2 * entropy, rel=1e-5)
    expected = 3.0 * temperature * (q - p).T @ X / B
    np.testing.assert_allclose(gradient["item"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(gradient["item"])[~SEEN], 0.0)


def test_a_student_like_its_teacher_is_left_alone() -> None:
    _, gradient = loss(OLD, TAUGHT, np.float32(1.0), np.float32(2.0))
    np.testing.assert_allclose(gradient["item"], 0.0, atol=1e-6)
    _, gradient = loss(NEW, TAUGHT, np.float32(1.0), np.float32(2.0))
    assert np.abs(gradient["item"]).max() > 0.01


def test_the_laws_of_strategies() -> None:
    check_strategy(lwf, kind="distillation", off={"weight": 0.0})
