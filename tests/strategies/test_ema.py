from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Catalogue, Learner, Problem, Step
from incremental.run.capacity import into_corner
from incremental.strategies.ema import ema
from incremental.testing import check_strategy

NONE: Any = None
PROBLEM = Problem(NONE, NONE, NONE, NONE, {"item": "item"}, None, NONE)
RNG = np.random.default_rng(0)


def drawn(rows: int, number: int) -> Any:
    return [
        {"item": RNG.normal(size=(rows, 2)).astype(np.float32), "kernel": RNG.normal(size=3).astype(np.float32)}
        for _ in range(number)
    ]


START, *STEPS = drawn(4, 6)
FIRST: Any = np.array([0, 1, 1, 0], bool)


def learner(params: Any, seen: Any = FIRST) -> Learner:
    return Learner(params, (), Catalogue(seen, seen, {"user": jnp.zeros(1, bool)}), NONE)


@jax.jit
def recorded(state: Any, before: Any, after: Any, decay: Any) -> Any:
    updates = jax.tree.map(jnp.subtract, after, before)
    return ema(PROBLEM, decay=decay).record(state, Step(NONE, NONE, NONE, NONE, NONE, updates, before, NONE), NONE)


init = jax.jit(ema(PROBLEM).init)
begin = jax.jit(lambda state, learner: ema(PROBLEM).begin(state, learner, NONE, NONE)[0])


def averaged(decay: float, state: Any) -> Any:
    for before, after in zip([START, *STEPS], STEPS, strict=False):
        state = recorded(state, before, after, np.float32(decay))
    return state


def evaluated(state: Any, params: Any) -> Any:
    return ema(PROBLEM).view(state, params, NONE, False)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 1.0])
def test_evaluation_sees_the_weighted_mean_of_the_weights_after_each_step(decay: float) -> None:
    state = averaged(decay, begin(init(learner(START)), learner(START)))
    share = np.array([decay ** (len(STEPS) - 1 - k) for k in range(len(STEPS))])
    for name in START:
        expected = np.tensordot(share / share.sum(), np.array([step[name] for step in STEPS]), 1)
        np.testing.assert_allclose(evaluated(state, STEPS[-1])[name], expected, rtol=1e-4, atol=1e-6)


def test_training_sees_the_weights_themselves() -> None:
    state = averaged(0.5, init(learner(START)))
    assert ema(PROBLEM).view(state, STEPS[-1], NONE, True) is STEPS[-1]


def test_before_any_step_the_mean_is_the_start() -> None:
    jax.tree.map(np.testing.assert_array_equal, evaluated(init(learner(START)), STEPS[0]), START)


def test_a_grown_tables_new_rows_enter_as_they_are_and_the_old_mean_stays() -> None:
    state = averaged(0.9, begin(init(learner(START)), learner(START)))
    mean = jax.tree.map(np.asarray, evaluated(state, NONE))
    (larger,) = drawn(6, 1)
    seen: Any = np.array([0, 1, 1, 1, 1, 0], bool)  # 3 (allocated before) and 4 (grown) are new
    grown = jax.tree.map(into_corner, init(learner(larger, np.zeros(6, bool))), state)
    (rewritten,) = drawn(6, 1)  # by a strategy that warms rows
    state = begin(grown, learner(rewritten, seen))
    now = evaluated(state, NONE)
    np.testing.assert_array_equal(now["item"][:3], mean["item"][:3])
    np.testing.assert_array_equal(now["item"][3:5], rewritten["item"][3:5])
    np.testing.assert_array_equal(now["item"][5], larger["item"][5])
    np.testing.assert_array_equal(now["kernel"], mean["kernel"])
    # At the next increment's start they are no longer new.
    (again,) = drawn(6, 1)
    np.testing.assert_array_equal(evaluated(begin(state, learner(again, seen)), NONE)["item"], now["item"])


def test_the_laws_of_strategies() -> None:
    check_strategy(ema, arguments={"decay": 0.9})
