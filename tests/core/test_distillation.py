from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.distillation import lesson, marked, taught, untaught
from incremental.core.types import Batch, Catalogue, Learner, Outputs, Problem

NONE: Any = None
W, V, D = 6, 4, 2
RNG = np.random.default_rng(0)
OLD, NEW = (
    {
        "user": RNG.normal(size=(W, D)).astype(np.float32),
        "item": RNG.normal(size=(V, D)).astype(np.float32),
    }
    for _ in range(2)
)
USERS: Any = np.array([0, 1, 1, 1, 0, 0], bool)
SEEN: Any = np.array([0, 1, 1, 0], bool)


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None  # no dropout
    hidden = jnp.asarray(params["user"])[inputs["user"]]
    return Outputs(hidden, hidden @ params["item"].T)


PROBLEM = Problem(NONE, apply, NONE, NONE, {"user": "user", "item": "item"}, None, NONE)


def learner(params: Any) -> Learner:
    return Learner(params, (), Catalogue(SEEN, SEEN, {"user": USERS}), NONE)


def batch(users: Any, valid: Any) -> Batch:
    given: Any = np.array(users, np.int32), np.array(valid, bool)
    return Batch({"user": given[0]}, NONE, NONE, given[1], NONE)


def appended(rows: Batch) -> Batch:
    """The batch with two replayed rows."""
    users = jnp.concatenate([rows.inputs["user"], jnp.array([3, 2], jnp.int32)])
    return rows._replace(inputs={"user": users}, valid=jnp.concatenate([rows.valid, jnp.ones(2, bool)]))


@jax.jit
def begun() -> Any:
    """The state after an update has ended with the old parameters."""
    return taught(untaught(learner(NEW)), learner(OLD), NONE, NONE)[0]


@jax.jit
def of(state: Any, rows: Batch, replayed: bool) -> Any:
    rows = marked(state, rows, NONE)
    more = appended(rows)
    # Only the shapes depend on it: the replayed rows' outputs must not matter.
    outputs = apply(NEW, more.inputs)
    outputs = jax.tree.map(lambda leaf: leaf.at[-2:].set(jnp.where(replayed, jnp.nan, leaf[-2:])), outputs)
    return lesson(PROBLEM, state, more, outputs)


def test_a_lesson_is_on_the_rows_that_were_here_and_by_the_old_model() -> None:
    state = begun()
    student, teacher, share = of(state, batch([1, 3, 2], [1, 1, 1]), True)
    np.testing.assert_allclose(student.hidden, NEW["user"][[1, 3, 2]])
    np.testing.assert_allclose(teacher.hidden, OLD["user"][[1, 3, 2]])
    np.testing.assert_allclose(teacher.scores, OLD["user"][[1, 3, 2]] @ OLD["item"].T, rtol=1e-5)
    np.testing.assert_allclose(share, 1 / 3)


def test_padding_and_users_the_teacher_did_not_know_have_no_share() -> None:
    state = begun()
    _, _, share = of(state, batch([1, 4, 3, 2], [1, 1, 1, 0]), False)
    np.testing.assert_allclose(share, [0.5, 0.0, 0.5, 0.0])
    _, _, share = of(state, batch([5, 4, 4, 5], [1, 1, 1, 1]), False)
    np.testing.assert_array_equal(share, 0.0)


def test_nothing_is_taught_before_the_first_end() -> None:
    state = jax.jit(lambda: untaught(learner(OLD)))()._replace(known=begun().known)
    _, _, share = of(state, batch([1, 3, 2], [1, 1, 1]), False)
    np.testing.assert_array_equal(share, 0.0)


def test_the_teacher_receives_no_gradient() -> None:
    state = begun()

    def read(params: Any) -> Any:
        rows = marked(state, batch([1, 3], [1, 1]), NONE)
        own = state._replace(teacher=state.teacher._replace(params=params))
        return lesson(PROBLEM, own, rows, apply(NEW, rows.inputs))[1].scores.sum()

    gradient = jax.jit(jax.grad(read))(OLD)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0.0), gradient)


@pytest.mark.parametrize("known", [0, 1])
def test_models_without_users_are_taught_on_all_rows(known: int) -> None:
    problem = PROBLEM._replace(apply=lambda params, inputs: apply(params, {"user": inputs["history"][:, -1]}))
    state = begun()
    state = state._replace(known=jax.tree.map(lambda ids: np.full(ids.shape, known, ids.dtype), state.known))

    @jax.jit
    def share(state: Any, history: Any) -> Any:
        rows = marked(state, Batch({"history": history}, NONE, NONE, jnp.ones(2, bool), NONE), NONE)
        return lesson(problem, state, rows, Outputs(jnp.zeros((2, D)), jnp.zeros((2, V))))[2]

    np.testing.assert_allclose(share(state, np.array([[0, 5], [1, 4]], np.int32)), 0.5)
