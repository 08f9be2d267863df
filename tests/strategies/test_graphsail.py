from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.graph import on_edges
from incremental.core.problem import problem
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Teacher
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.heads.hierarchical_softmax import hierarchical_softmax
from incremental.models.lightgcn import lightgcn
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.sasrec import sasrec
from incremental.strategies.graphsail import Divergence, graphsail
from incremental.testing import check_strategy
from tests.strategies.two_sides import NONE, PROBLEM, data, learner

W, V, D, K = 6, 7, 3, 2
RNG = np.random.default_rng(0)
OLD, NEW = ({"user": RNG.normal(size=(W, D)), "item": RNG.normal(size=(V, D))} for _ in range(2))
KNOWN: Any = {"user": np.array([0, 1, 1, 1, 1, 0], bool), "item": np.array([0, 1, 1, 1, 1, 1, 0], bool)}
OFF = {"self_weight": 0.0, "local_weight": 0.0, "global_weight": 0.0}


BASE = data(0, [(1, 1), (1, 2), (2, 2), (3, 3), (3, 3), (4, 4), (4, 5), (4, 1), (2, 1)])
NEXT = data(1, [(1, 3), (1, 6), (5, 6), (2, 5), (5, 1), (1, 4), (3, 1), (3, 2), (1, 1)])
BEFORE: Any = {
    "user": {1: [1, 2], 2: [2, 1], 3: [3, 3], 4: [4, 5, 1]},
    "item": {1: [1, 4, 2], 2: [1, 2], 3: [3, 3], 4: [4], 5: [4]},
}
NUMBER = {"user": [0, 4, 1, 2, 0, 2], "item": [0, 3, 1, 1, 1, 1, 2]}  # events of the increment


def made(divergence: Divergence = "new_old", **weights: Any) -> Any:
    return graphsail(PROBLEM, clusters=K, temperature=0.7, divergence=divergence, neighbours=4, **weights)


@jax.jit
def begun(old: Any, new: Any, present: Any = NEXT) -> Any:
    part = made()
    state, _ = part.end(part.init(learner(old, KNOWN)), learner(old, KNOWN), BASE, NONE)
    return part.begin(state, learner(new, KNOWN), present, jax.random.key(1))[0]


@jax.jit
def losses(params: Any, state: Any) -> Any:
    """Value and gradient of Self, Local, Global by KL(new ‖ old) and by KL(old ‖ new) at weight 2, and of none."""

    def of(divergence: Divergence, weights: Any) -> Any:
        part = made(divergence, **dict(zip(OFF, weights, strict=True)))
        return jax.value_and_grad(lambda params: part.loss(state, params, NONE, NONE))(params)

    new_old = jax.vmap(lambda weights: of("new_old", weights))(2.0 * jnp.eye(4, 3))
    old_new = jax.tree.map(lambda leaf: leaf[None], of("old_new", jnp.array([0.0, 0.0, 2.0])))
    return jax.tree.map(lambda one, two: jnp.concatenate([one[:3], two, one[3:]]), new_old, old_new)


STATE = begun(OLD, NEW)
MEMBERS = {"user": np.asarray(STATE.members.users), "item": np.asarray(STATE.members.items)}


def softmax(logits: Any) -> Any:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def centres(params: Any, kind: str) -> Any:
    own = [KNOWN[kind] & (MEMBERS[kind] == k) for k in range(K)]
    assert all(mask.any() for mask in own)
    return np.stack([params[kind][mask].mean(0) for mask in own])


def expected(params: Any, anchors: Any) -> list[float]:
    """Self, Local, Global by KL(new ‖ old) and by KL(old ‖ new), times 2, as the formulas say."""
    own, local, new_old, old_new = 0.0, 0.0, 0.0, 0.0
    for kind, other in (("user", "item"), ("item", "user")):
        ids = np.flatnonzero(KNOWN[kind])
        eta = np.array([len(BEFORE[kind][i]) / (NUMBER[kind][i] + 1) for i in ids])
        way = np.sqrt(((OLD[kind] - params[kind])[ids] ** 2).sum(1) + 1e-8) - 1e-4
        own += (eta / np.sqrt((eta**2).sum()) * way).mean()
        local += np.mean(
            [(OLD[kind][i] @ OLD[other][near].mean(0) - params[kind][i] @ params[other][near].mean(0)) ** 2
             for i, near in BEFORE[kind].items()]
        )  # fmt: skip
        for side in ("user", "item"):
            old, new = (
                softmax(table[kind][ids] @ places[side].T / 0.7)
                for table, places in ((OLD, {side: centres(OLD, side)}), (params, anchors))
            )
            new_old += (new * np.log(new / old)).sum(1).mean() / 4
            old_new += (old * np.log(old / new)).sum(1).mean() / 4
    return [2.0 * each for each in (own, local, new_old, old_new)]


def test_the_three_distances_are_their_formulas_and_their_gradients_are_differences() -> None:
    anchors = {kind: centres(NEW, kind) for kind in ("user", "item")}  # no gradient goes through these
    values, gradients = losses(NEW, STATE)
    np.testing.assert_allclose(values[:4], expected(NEW, anchors), rtol=1e-4)
    for kind in ("user", "item"):
        for place in np.ndindex(NEW[kind].shape):
            both = []
            for step in (1e-5, -1e-5):
                moved = {**NEW, kind: NEW[kind].copy()}
                moved[kind][place] += step
                both.append(np.array(expected(moved, anchors)))
            slopes = np.asarray(gradients[kind])[:4, *place]
            np.testing.assert_allclose(slopes, (both[0] - both[1]) / 2e-5, rtol=2e-3, atol=2e-4)


def test_who_is_new_to_the_last_model_is_left_out() -> None:
    _, gradients = losses(NEW, STATE)
    for kind, known in KNOWN.items():
        np.testing.assert_array_equal(np.asarray(gradients[kind])[:, ~known], 0.0)


def test_all_are_0_without_a_gradient_where_student_and_teacher_agree() -> None:
    assert isinstance(STATE.taught.teacher, Teacher)
    for leaf in jax.tree.leaves(losses(OLD, STATE)):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-5)


def test_of_a_window_only_the_events_that_are_new_count() -> None:
    """Neither as the increment's own, nor a second time among those before."""
    rows = jax.tree.map(lambda *each: np.concatenate(each), BASE.rows, NEXT.rows)
    window = NEXT._replace(rows=rows, size=BASE.size + NEXT.size)
    state = begun(OLD, NEW, window)
    jax.tree.map(np.testing.assert_array_equal, state.inertia, STATE.inertia)
    end = jax.jit(lambda state, data: made().end(state, learner(NEW, KNOWN), data, NONE)[0])
    after = end(state, window)
    jax.tree.map(np.testing.assert_array_equal, after.history, end(STATE, NEXT).history)
    assert [int(each.until) for each in (state, after)] == [0, 1]


def test_who_is_new_to_the_last_model_makes_no_cluster() -> None:
    far = {kind: np.where(KNOWN[kind][:, None], table, 500.0) for kind, table in OLD.items()}
    for kind, members in zip(MEMBERS, begun(far, NEW).members, strict=True):
        np.testing.assert_array_equal(np.asarray(members)[KNOWN[kind]], MEMBERS[kind][KNOWN[kind]])


def test_weight_0_adds_nothing_at_all() -> None:
    for leaf in jax.tree.leaves(losses(NEW, STATE)):
        assert leaf[:4].any()
        np.testing.assert_array_equal(leaf[4], 0.0)


def test_over_a_graph_both_models_are_computed_over_the_present_one() -> None:
    model, params = lightgcn(width=D), {kind: {"embedding": jnp.float32(table)} for kind, table in OLD.items()}
    assert model.graph is not None
    edges = [jnp.stack([each.rows.owner, each.rows.labels], 1) for each in (BASE, NEXT)]
    core = problem(model, full_softmax(), next_item(4), Sizes(user=W, item=V))
    before, now = (on_edges(core, model.graph, each) for each in edges)

    @jax.jit
    def found(params: Any) -> Any:
        first, second = (graphsail(own, clusters=K, neighbours=4) for own in (before, now))
        state, _ = first.end(first.init(learner(params, KNOWN)), learner(params, KNOWN), BASE, NONE)
        state, _ = second.begin(state, learner(params, KNOWN), NEXT, jax.random.key(0))
        return state.old, now.settle(params)

    old, tables = found(params)
    np.testing.assert_allclose(old.users, tables["user"]["embedding"], rtol=1e-5)
    np.testing.assert_allclose(old.items, tables["item"]["embedding"], rtol=1e-5)


def test_a_model_or_a_head_without_outputs_of_both_sides_is_refused(documented: Callable[[str, object], None]) -> None:
    sizes = Sizes(item=8, user=8)
    with pytest.raises(UserError, match="reads history, but graphsail") as error:
        graphsail(problem(sasrec(width=4), full_softmax(), next_item(4), sizes)).init(learner(OLD, KNOWN))
    documented("A strategy that compares users' vectors, and a model of histories", error.value)
    with pytest.raises(UserError, match="parameters of its own") as error:
        graphsail(problem(matrix_factorization(width=4), hierarchical_softmax(), next_item(4), sizes)).init(
            learner(OLD, KNOWN)
        )
    documented("A strategy that compares item vectors, and a head with its own", error.value)


def test_the_laws_of_strategies() -> None:
    check_strategy(graphsail, kind="distillation", off=OFF, arguments={"clusters": 3, "neighbours": 4})
