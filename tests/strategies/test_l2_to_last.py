from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.types import Anchor, Catalogue, Learner, Problem
from incremental.strategies.l2_to_last import l2_to_last
from incremental.testing import check_strategy

NONE: Any = None
PROBLEM = Problem(NONE, NONE, NONE, NONE, {}, None, NONE)
THETAS: Any = [{"a": np.full(3, t, np.float32), "b": np.full((2, 2), -t, np.float32)} for t in range(4)]


def learner(params: Any) -> Learner:
    return Learner(params, (), Catalogue(NONE, NONE, NONE), NONE)


init = jax.jit(lambda learner: l2_to_last(PROBLEM).init(learner))
end = jax.jit(lambda state, learner: l2_to_last(PROBLEM).end(state, learner, NONE, NONE)[0])
loss = jax.jit(
    jax.value_and_grad(lambda params, state, weight: l2_to_last(PROBLEM, weight=weight).loss(state, params, NONE, NONE))
)


def test_it_is_off_until_the_first_increment_is_finished() -> None:
    value, gradient = loss(THETAS[3], init(learner(THETAS[0])), np.float32(5.0))
    assert float(value) == 0.0
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0.0), gradient)


def test_every_weight_is_pulled_to_the_last_increments_end() -> None:
    state = init(learner(THETAS[0]))
    for t in (1, 2):
        state = end(state, learner(THETAS[t]))
        assert isinstance(state.anchor, Anchor)
        value, gradient = loss(THETAS[3], state, np.float32(5.0))
        assert float(value) == pytest.approx(0.5 * 5.0 * 7 * (3 - t) ** 2)
        np.testing.assert_allclose(gradient["a"], 5.0 * (3 - t))
        np.testing.assert_allclose(gradient["b"], -5.0 * (3 - t))
        value, _ = loss(THETAS[t], state, np.float32(5.0))
        assert float(value) == 0.0


def test_the_laws_of_strategies() -> None:
    check_strategy(l2_to_last, kind="penalty", off={"weight": 0.0})
