from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Anchor, Batch, Catalogue, Data, Learner, Outputs, Problem
from incremental.strategies.ewc import ewc
from incremental.testing import check_strategy

D = 4
# Three increments: curvatures (the last parameter has none) and the optima of ½ Σ curvature (θ - optimum)².
CURVATURE: Any = np.array([[1.0, 4.0, 0.25, 0.0], [9.0, 1.0, 0.0, 0.0], [2.25, 1.0, 4.0, 0.0]], np.float32)
OPTIMUM: Any = np.array([[1.0, -2.0, 3.0, 1.0], [-1.0, 0.5, 2.0, 3.0], [0.5, 4.0, -3.0, 2.0]], np.float32)
START: Any = np.array([5.0, 5.0, 5.0, 5.0], np.float32)
ELSEWHERE = {"theta": np.array([0.3, -0.7, 1.1, 9.0], np.float32)}
NONE: Any = None


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    del key
    return Outputs(inputs["g"], inputs["g"] @ params["theta"][:, None])


# An example's loss is g · θ, so the Fisher is g² whatever θ is.
LINEAR = Problem(NONE, apply, lambda _params, outputs, _batch: outputs.scores[:, 0], NONE, {}, None, NONE)


def learner(theta: Any) -> Learner:
    return Learner({"theta": theta}, (), Catalogue(NONE, NONE, NONE), NONE)


def data(t: int) -> Data:
    """Examples whose Fisher is increment t's curvature."""
    g = np.tile(np.sqrt(CURVATURE[t]), (3, 1))
    size: Any = np.int32(len(g))
    return Data(Batch({"g": g}, NONE, NONE, NONE, NONE), size, NONE, NONE, NONE)


class Jitted:
    """The strategy's functions, compiled once for all increments."""

    def __init__(self) -> None:
        def made(weight: Any) -> Any:
            return ewc(LINEAR, weight=weight, samples=8)

        self.init = jax.jit(lambda learner: made(1.0).init(learner))
        self.loss = jax.jit(
            jax.value_and_grad(lambda params, state, weight: made(weight).loss(state, params, NONE, NONE))
        )
        self.end = jax.jit(lambda state, learner, data, key: made(1.0).end(state, learner, data, key))

        @jax.jit
        def optimum(state: Any, weight: Any, curvature: Any, optimum: Any) -> Any:
            """Of the increment's own quadratic loss plus the penalty: one Newton step, exact on a quadratic."""

            def total(theta: Any) -> Any:
                own = 0.5 * (curvature * (theta - optimum) ** 2).sum()
                return own + made(weight).loss(state, {"theta": theta}, NONE, NONE)

            slope, bend = jax.jvp(jax.grad(total), (jnp.zeros(D),), (jnp.ones(D),))  # a diagonal Hessian
            return jnp.where(bend > 0, -slope / jnp.where(bend > 0, bend, 1.0), optimum)

        self.optimum = optimum

    def trained(self, weight: float = 1.0) -> tuple[list[Any], list[Any]]:
        """The parameters at the end of each increment, and the states after it (the first before any)."""
        states, thetas = [self.init(learner(START))], []
        for t in range(3):
            thetas.append(np.asarray(self.optimum(states[-1], np.float32(weight), CURVATURE[t], OPTIMUM[t])))
            states.append(self.end(states[-1], learner(thetas[-1]), data(t), jax.random.key(t))[0])
        return thetas, states


@pytest.fixture(scope="module")
def jitted() -> Jitted:
    return Jitted()


def pulls(thetas: Any, weight: float, importance: Any, at: Any) -> Any:
    """Σ_t weight F_t (θ - θ_t), written out."""
    return weight * sum(f * (at - theta) for f, theta in zip(importance, thetas, strict=True))


def test_before_the_first_end_there_is_no_penalty(jitted: Jitted) -> None:
    value, gradient = jitted.loss(ELSEWHERE, jitted.init(learner(START)), np.float32(3.0))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient["theta"], 0.0)


def test_penalty_is_positive_at_the_second_increment_and_zero_at_its_anchor(jitted: Jitted) -> None:
    thetas, states = jitted.trained()
    value, _ = jitted.loss(ELSEWHERE, states[1], np.float32(1.0))
    assert float(value) > 0.0
    value, gradient = jitted.loss({"theta": thetas[0]}, states[1], np.float32(1.0))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient["theta"], 0.0)


def test_gradient_is_that_of_an_anchor_for_each_past_increment(jitted: Jitted) -> None:
    thetas, states = jitted.trained(weight=0.5)
    for t in (1, 2, 3):
        _, gradient = jitted.loss(ELSEWHERE, states[t], np.float32(0.5))
        expected = pulls(thetas[:t], 0.5, CURVATURE[:t], ELSEWHERE["theta"])
        np.testing.assert_allclose(gradient["theta"], expected, rtol=1e-4, atol=1e-5)


def test_the_sum_of_penalties_is_least_at_the_fisher_weighted_mean(jitted: Jitted) -> None:
    thetas, states = jitted.trained()
    curved = CURVATURE.sum(0) > 0
    expected = (CURVATURE * np.array(thetas)).sum(0)[curved] / CURVATURE.sum(0)[curved]
    anchor = np.asarray(states[3].anchor.params["theta"])
    np.testing.assert_allclose(anchor[curved], expected, rtol=1e-5)
    _, gradient = jitted.loss({"theta": anchor}, states[3], np.float32(1.0))
    np.testing.assert_allclose(gradient["theta"], 0.0, atol=1e-6)
    assert np.isfinite(anchor).all()
    assert isinstance(states[3].anchor, Anchor)


def test_anchor_moves_at_the_third_increment(jitted: Jitted) -> None:
    _, states = jitted.trained()
    anchors = [np.asarray(state.anchor.params["theta"])[:3] for state in states]
    assert np.abs(anchors[2] - anchors[1])[:2].min() > 0.05
    assert np.abs(anchors[3] - anchors[2]).min() > 0.02


def test_on_quadratic_losses_separate_anchors_do_not_end_at_the_joint_optimum(jitted: Jitted) -> None:
    thetas, _ = jitted.trained()
    own = CURVATURE[2] * OPTIMUM[2] + CURVATURE[0] * thetas[0] + CURVATURE[1] * thetas[1]
    np.testing.assert_allclose(thetas[2][:3], (own / CURVATURE.sum(0).clip(1e-9))[:3], rtol=1e-4)
    joint = (CURVATURE * OPTIMUM).sum(0)[:3] / CURVATURE.sum(0)[:3]
    np.testing.assert_allclose(thetas[1][0], (CURVATURE * OPTIMUM)[:2, 0].sum() / 10.0, rtol=1e-5)
    assert np.abs(thetas[2][:2] - joint[:2]).min() > 0.05


def test_the_learner_is_left_as_it_was(jitted: Jitted) -> None:
    before = learner(OPTIMUM[0])
    _, after = jitted.end(jitted.init(learner(START)), before, data(0), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_labels_are_those_asked_for() -> None:
    # An example's loss is the score of its label, and scores are θ itself: the Fisher is 1 at the label.
    def same_scores(params: Any, inputs: Any) -> Outputs:
        return Outputs(inputs["g"], jnp.tile(params["theta"], (len(inputs["g"]), 1)))

    problem = LINEAR._replace(
        apply=same_scores, loss=lambda _params, outputs, batch: outputs.scores[jnp.arange(1), batch.labels]
    )
    theta = jnp.array([0.0, 0.0, 50.0, 99.0])
    candidates = jnp.array([True, True, True, False])
    state = learner(theta)._replace(catalogue=Catalogue(candidates, NONE, NONE))
    rows = Batch({"g": jnp.zeros((3, D))}, jnp.zeros(3, jnp.int32), NONE, NONE, NONE)
    three = Data(rows, jnp.int32(3), NONE, NONE, NONE)
    for choice, expected in (("observed", 0), ("predicted", 2), ("sampled", 2)):
        part = ewc(problem, samples=8, labels=choice)  # type: ignore[arg-type]
        after, _ = jax.jit(lambda key: part.end(part.init(state), state, three, key))(jax.random.key(0))  # noqa: B023
        np.testing.assert_allclose(after.importance["theta"], np.eye(4)[expected])


def test_the_laws_of_strategies() -> None:
    check_strategy(ewc, kind="penalty", off={"weight": 0.0}, arguments={"weight": 30.0, "samples": 16})
