from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Anchor, Catalogue, Learner, Problem, Step
from incremental.strategies.si import si
from incremental.testing import check_strategy

NONE: Any = None
PROBLEM = Problem(NONE, NONE, NONE, NONE, {}, None, NONE)
CURVATURE: Any = np.array([1.0, 4.0, 0.25, 0.0], np.float32)
OPTIMUM: Any = np.array([1.0, -2.0, 3.0, 1.0], np.float32)
START: Any = np.array([5.0, 5.0, 5.0, 5.0], np.float32)
DAMPING = 0.01


def learner(theta: Any) -> Learner:
    return Learner({"theta": theta}, (), Catalogue(NONE, NONE, NONE), NONE)


def step(params: Any, grads: Any, penalty: Any, updates: Any) -> Step:
    return Step(NONE, NONE, NONE, grads, penalty, updates, params, NONE)


def data_loss(params: Any) -> Any:
    return 0.5 * (CURVATURE * (params["theta"] - OPTIMUM) ** 2).sum()


def own_loss(params: Any) -> Any:
    """A penalty of some strategy, as steep as the data loss."""
    return 2.0 * (params["theta"] ** 2).sum()


@jax.jit
def trained(state: Any, params: Any) -> Any:
    """600 steps of plain gradient descent at a small rate on the data loss and a penalty."""

    def one(carry: Any, _: Any) -> Any:
        state, params = carry
        own = jax.grad(own_loss)(params)
        grads = jax.tree.map(jnp.add, jax.grad(data_loss)(params), own)
        updates = jax.tree.map(lambda grad: -1e-3 * grad, grads)
        state = si(PROBLEM).record(state, step(params, grads, own, updates), NONE)
        return (state, jax.tree.map(jnp.add, params, updates)), None

    return jax.lax.scan(one, (state, params), None, 600)[0]


end = jax.jit(lambda state, learner: si(PROBLEM, damping=DAMPING).end(state, learner, NONE, NONE)[0])
init = jax.jit(lambda learner: si(PROBLEM).init(learner))
loss = jax.jit(
    jax.value_and_grad(lambda params, state, weight: si(PROBLEM, weight=weight).loss(state, params, NONE, NONE))
)


def test_the_path_integral_is_the_drop_of_the_data_loss() -> None:
    params = {"theta": START}
    state, after = trained(init(learner(START)), params)
    drop = float(data_loss(params) - data_loss(after))
    assert drop > 10.0
    assert float(state.path["theta"].sum()) == pytest.approx(drop, rel=0.01)
    each = 0.5 * CURVATURE * ((START - OPTIMUM) ** 2 - (np.asarray(after["theta"]) - OPTIMUM) ** 2)
    np.testing.assert_allclose(state.path["theta"], each, rtol=0.03, atol=1e-4)


def test_importance_is_the_path_over_the_squared_way() -> None:
    path: Any = np.array([3.0, -2.0, 0.5, 0.0], np.float32)
    state = init(learner(START))._replace(path={"theta": path})
    ends = [START + np.array([1.0, 2.0, 0.0, 0.0], np.float32), START + np.float32(4.0)]
    one = end(state, learner(ends[0]))
    expected = np.array([3.0 / (1.0 + DAMPING), 0.0, 0.5 / DAMPING, 0.0])  # a rise of the loss counts as nothing
    np.testing.assert_allclose(one.importance["theta"], expected, rtol=1e-5)
    np.testing.assert_array_equal(one.anchor.params["theta"], ends[0])
    np.testing.assert_array_equal(one.path["theta"], 0.0)
    assert isinstance(one.anchor, Anchor)
    two = end(one._replace(path={"theta": path}), learner(ends[1]))
    more = np.maximum(path, 0.0) / ((ends[1] - ends[0]) ** 2 + DAMPING)
    np.testing.assert_allclose(two.importance["theta"], expected + more, rtol=1e-5)


def test_loss_is_the_weighted_square_without_a_half() -> None:
    value, _ = loss({"theta": OPTIMUM}, init(learner(START)), np.float32(3.0))
    assert float(value) == 0.0
    importance: Any = np.array([1.0, 2.0, 3.0, 0.0], np.float32)
    state = init(learner(START))._replace(importance={"theta": importance})
    value, gradient = loss({"theta": OPTIMUM}, state, np.float32(3.0))
    way = OPTIMUM - START
    assert float(value) == pytest.approx(3.0 * (importance * way**2).sum(), rel=1e-5)
    np.testing.assert_allclose(gradient["theta"], 6.0 * importance * way, rtol=1e-5)


def test_the_laws_of_strategies() -> None:
    check_strategy(si, kind="penalty", off={"weight": 0.0})
