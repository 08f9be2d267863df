from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Catalogue, Learner, Problem, Step
from incremental.errors import UserError
from incremental.strategies.spectral_norm import Pair, spectral_norm
from incremental.testing import check_strategy
from tests import lab

NONE: Any = None


def single(values: Any) -> Any:
    return np.asarray(values, np.float32)


SHAPES = {"one": (6, 4), "two": (4, 5)}
KEY = jax.random.key(0)


def draw(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    kernels = {name: {"kernel": rng.normal(size=shape).astype(np.float32)} for name, shape in SHAPES.items()}
    return {**kernels, "item": np.full((9, 4), 7.0, np.float32), "bias": np.full(3, 9.0, np.float32)}


PROBLEM = Problem(lambda _: jax.tree.map(jnp.asarray, draw(0)), NONE, NONE, NONE, {"item": "item"}, NONE, NONE)
STRATEGY = spectral_norm(PROBLEM)


def learner(params: Any) -> Learner:
    return Learner(params, (), Catalogue(NONE, NONE, NONE), NONE)


INIT = jax.jit(lambda params: STRATEGY.init(learner(params)))
BEGIN = jax.jit(lambda state, params: STRATEGY.begin(state, learner(params), NONE, KEY)[0])


@jax.jit
def penalty(params: Any, state: Any, weight: Any) -> Any:
    made = spectral_norm(PROBLEM, weight=weight, exponent=3)
    return jax.value_and_grad(made.loss, 1)(state, params, NONE, NONE)


@jax.jit
def recorded(state: Any, params: Any, updates: Any) -> Any:
    return STRATEGY.record(state, Step(NONE, NONE, NONE, NONE, NONE, updates, params, NONE), KEY)


def norm(kernel: Any) -> float:
    return float(np.linalg.svd(kernel)[1][0])


def test_the_penalty_is_the_formula() -> None:
    params = draw(1)
    value, gradient = penalty(params, INIT(params), np.float32(0.5))
    expected = 0.5 * sum((norm(params[name]["kernel"]) ** 3 - 1) ** 2 for name in SHAPES)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for name in SHAPES:
        left, values, right = np.linalg.svd(params[name]["kernel"])
        slope = 0.5 * 2 * (values[0] ** 3 - 1) * 3 * values[0] ** 2
        np.testing.assert_allclose(
            gradient[name]["kernel"], slope * np.outer(left[:, 0], right[0]), rtol=1e-3, atol=1e-2
        )
    np.testing.assert_array_equal(gradient["item"], 0.0)
    np.testing.assert_array_equal(gradient["bias"], 0.0)


def test_power_iteration_reaches_the_decomposition() -> None:
    params, still = draw(1), jax.tree.map(np.zeros_like, draw(1))
    rng = np.random.default_rng(2)
    state = {
        f"{name}/kernel": Pair(*(single(v / np.linalg.norm(v)) for v in (rng.normal(size=n) for n in shape)))
        for name, shape in SHAPES.items()
    }
    for _ in range(200):
        state = recorded(state, params, still)
    for name in SHAPES:
        left, values, right = np.linalg.svd(params[name]["kernel"])
        pair: Any = state[f"{name}/kernel"]
        np.testing.assert_allclose(pair.left @ params[name]["kernel"] @ pair.right, values[0], rtol=1e-5)
        np.testing.assert_allclose(abs(np.asarray(pair.left) @ left[:, 0]), 1.0, atol=1e-4)
        np.testing.assert_allclose(abs(np.asarray(pair.right) @ right[0]), 1.0, atol=1e-4)


def test_the_vectors_follow_the_weights_after_each_step() -> None:
    params, target = draw(1), draw(3)
    updates = jax.tree.map(lambda a, b: (b - a) / 50, params, target)
    state = INIT(params)
    for _ in range(50):
        state = recorded(state, params, updates)
        params = jax.tree.map(np.add, params, updates)
    for name in SHAPES:
        pair = state[f"{name}/kernel"]
        estimate = float(pair.left @ params[name]["kernel"] @ pair.right)
        np.testing.assert_allclose(estimate, norm(params[name]["kernel"]), rtol=0.02)


def test_one_step_of_power_iteration_on_the_new_weights() -> None:
    params, updates = draw(1), draw(3)
    state = INIT(params)
    new = recorded(state, params, updates)["one/kernel"]
    kernel = params["one"]["kernel"] + updates["one"]["kernel"]
    right = np.asarray(state["one/kernel"].left) @ kernel
    right /= np.linalg.norm(right)
    np.testing.assert_allclose(new.right, right, atol=1e-5)
    np.testing.assert_allclose(new.left, kernel @ right / np.linalg.norm(kernel @ right), atol=1e-5)


def test_an_increment_starts_with_exact_vectors() -> None:
    """After a fresh start too."""
    params = draw(4)
    state = BEGIN(INIT(draw(1)), params)
    pair = state["one/kernel"]
    np.testing.assert_allclose(
        pair.left @ params["one"]["kernel"] @ pair.right, norm(params["one"]["kernel"]), rtol=1e-5
    )


def test_a_kernel_of_zeros_keeps_its_vectors() -> None:
    params, zeros = draw(1), jax.tree.map(np.zeros_like, draw(1))
    state = INIT(params)
    jax.tree.map(np.testing.assert_array_equal, recorded(state, zeros, zeros), state)


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="spectral_norm: exponent=0: expected a whole number >= 1"):
        spectral_norm(PROBLEM, exponent=0)
    tables = Problem(lambda _: {"item": jnp.zeros((3, 4))}, NONE, NONE, NONE, {"item": "item"}, NONE, NONE)
    with pytest.raises(UserError, match=r"spectral_norm: the model has no dense kernel .* choose"):
        spectral_norm(tables)


def test_the_laws_of_strategies() -> None:
    check_strategy(spectral_norm, off={"weight": 0.0}, arguments={"weight": 0.1}, model=lab.dense())
