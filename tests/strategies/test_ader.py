from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Batch, Catalogue, Data, Learner, Memory, Outputs, Problem, Teacher
from incremental.errors import UserError
from incremental.memory.exemplars import Rehearsal, selector
from incremental.strategies.ader import Distilled, ader
from incremental.testing import check_strategy

B, ROWS, C, D, V = 3, 4, 5, 3, 7
NONE: Any = None
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch({"x": jax.ShapeDtypeStruct((D,), np.float32)}, *SCALARS)
RNG = np.random.default_rng(1)
KNOWN: Any = np.array([0, 1, 1, 0, 1, 1, 0], bool)  # 4 items at the end of the last increment
SEEN: Any = np.array([0, 1, 1, 1, 1, 1, 0], bool)  # 5 now
WEIGHT, SIZE = 0.8, 6


def params(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(D, D)).astype(np.float32), "table": rng.normal(size=(V, D)).astype(np.float32)}


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    del key
    hidden = inputs["x"] @ params["w"]
    return Outputs(hidden, hidden @ params["table"].T)


PROBLEM = Problem(NONE, apply, NONE, EXAMPLE, {}, NONE, NONE)
TEACHER, STUDENT = params(0), params(1)


def rows(n: int, valid: int, seed: int = 0) -> Batch:
    x: Any = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    labels: Any = np.flatnonzero(KNOWN)[np.arange(n) % 4].astype(np.int32)
    fields: list[Any] = [labels, np.full(n, 0.5, np.float32), np.arange(n) < valid, np.zeros(n, np.int32)]
    return Batch({"x": x}, *fields)


def learner(own: Any, seen: Any = SEEN) -> Learner:
    # All are candidates from the start (data.unseen_items=known).
    every: Any = np.arange(V) > 0
    return Learner(own, (), Catalogue(every, seen, NONE), NONE)


def data(increment: int = 1) -> Data:
    """6 rows and 2 of padding."""
    new = rows(8, 8, seed=increment)
    sizes: Any = np.int32(SIZE), np.int32(increment), NONE, NONE
    return Data(new._replace(increment=new.increment + increment), *sizes)


def made(weight: Any = WEIGHT) -> Any:
    return ader(PROBLEM, capacity=C, rows=ROWS, weight=weight)


def state(ready: float = 1.0, filled: int = 3, known: Any = KNOWN, adapted: float = 0.5) -> Distilled:
    one: Any = np.float32(ready), np.float32(adapted), np.int32(filled)
    numbers: list[Any] = [np.int32(known.sum()), one[1], np.int32(SIZE)]
    return Distilled(Rehearsal(Memory(rows(C, filled, seed=5), one[2]), *numbers), Teacher(TEACHER, one[0]), known)


@jax.jit
def batched(state: Any, new: Any) -> Any:
    return made().batch(state, new, jax.random.key(2))


@jax.jit
def lost(own: Any, state: Any, batch: Any, weight: Any) -> Any:
    """The term, its gradient, and that of the teacher."""

    def term(own: Any, teacher: Any) -> Any:
        known = state._replace(teacher=state.teacher._replace(params=teacher))
        return made(weight).loss(known, own, batch, apply(own, batch.inputs))

    return jax.value_and_grad(term, (0, 1))(own, state.teacher.params)


begin = jax.jit(lambda state, learner, data: made().begin(state, learner, data, jax.random.key(0))[0])
end = jax.jit(lambda state, learner, data: made().end(state, learner, data, jax.random.key(0)))
NEW = rows(B, B, seed=8)._replace(own=B)


def softmax(scores: Any) -> Any:
    each = np.exp(scores - scores.max(1, keepdims=True))
    return each / each.sum(1, keepdims=True)


def test_drawn_exemplars_are_valid_and_carry_no_cross_entropy() -> None:
    joined = batched(state(), NEW)
    np.testing.assert_array_equal(np.asarray(joined.weight), [0.5] * B + [0.0] * ROWS)
    assert np.asarray(joined.valid).all()
    kept = np.asarray(state().rehearsal.memory.rows.inputs["x"])[:3]
    assert all((row == kept).all(1).any() for row in np.asarray(joined.inputs["x"])[B:])


def test_the_term_is_the_cross_entropy_between_the_softmaxes_over_known_items() -> None:
    joined = batched(state(), NEW)
    drawn = {"x": np.asarray(joined.inputs["x"])[B:]}
    assert len(np.unique(drawn["x"], axis=0)) > 1
    taught, said = (softmax(np.asarray(apply(own, drawn).scores)[:, KNOWN]) for own in (TEACHER, STUDENT))
    expected = -(taught * np.log(said)).sum(1).mean()
    for weight in (0.8, 2.0):
        value, _ = lost(STUDENT, state(adapted=0.5), joined, np.float32(weight))
        assert float(value) == pytest.approx(weight * 0.5 * expected, rel=1e-5)


def test_padding_among_the_drawn_rows_does_not_count() -> None:
    joined = batched(state(), NEW)
    half = joined._replace(valid=jnp.arange(B + ROWS) < B + 2)
    drawn = {"x": np.asarray(joined.inputs["x"])[B : B + 2]}
    taught, said = (softmax(np.asarray(apply(own, drawn).scores)[:, KNOWN]) for own in (TEACHER, STUDENT))
    value, _ = lost(STUDENT, state(adapted=1.0), half, np.float32(1))
    assert float(value) == pytest.approx(-(taught * np.log(said)).sum(1).mean(), rel=1e-5)


def test_the_gradient_is_zero_where_the_student_is_the_teacher_and_not_elsewhere() -> None:
    joined = batched(state(), NEW)
    _, (own, _) = lost(TEACHER, state(), joined, np.float32(1))
    for leaf in jax.tree.leaves(own):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-6)
    _, (own, _) = lost(STUDENT, state(), joined, np.float32(1))
    assert all(float(jnp.abs(leaf).max()) > 0.01 for leaf in jax.tree.leaves(own))


def test_the_teacher_receives_no_gradient() -> None:
    _, (_, taught) = lost(STUDENT, state(), batched(state(), NEW), np.float32(1))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(taught))


def test_items_the_teacher_did_not_know_are_left_alone() -> None:
    _, (own, _) = lost(STUDENT, state(), batched(state(), NEW), np.float32(1))
    assert not np.asarray(own["table"])[~KNOWN].any()


def lost_over(drawn: Any, log_q: Any, own: Any = STUDENT) -> Any:
    """The term over drawn items, and its gradient."""
    strategy = ader(PROBLEM, capacity=C, rows=ROWS, weight=1.0, over="drawn")
    joined = batched(state(), NEW)._replace(negatives=np.asarray(drawn), log_q=np.asarray(log_q, np.float32))
    known = state(adapted=1.0)
    return jax.jit(jax.value_and_grad(lambda own: strategy.loss(known, own, joined, apply(own, joined.inputs))))(own)


def test_over_every_known_item_once_the_term_is_the_exact_one() -> None:
    exact, (gradient, _) = lost(STUDENT, state(adapted=1.0), batched(state(), NEW), np.float32(1))
    value, own = lost_over(np.flatnonzero(SEEN), np.zeros(SEEN.sum()))  # one of them the teacher did not know
    assert float(value) == pytest.approx(float(exact), rel=1e-5)
    for leaf, expected in zip(jax.tree.leaves(own), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)


def test_over_drawn_items_scores_are_corrected_for_the_draws() -> None:
    drawn, log_q = np.array([1, 4, 4, 5, 3]), np.log([0.5, 1.0, 1.0, 2.0, 0.1])
    exemplars = {"x": np.asarray(batched(state(), NEW).inputs["x"])[B:]}
    counts = KNOWN[drawn]
    taught, said = (
        softmax((np.asarray(apply(own, exemplars).scores)[:, drawn] - log_q)[:, counts]) for own in (TEACHER, STUDENT)
    )
    value, _ = lost_over(drawn, log_q)
    assert float(value) == pytest.approx(-(taught * np.log(said)).sum(1).mean(), rel=1e-5)
    _, own = lost_over(drawn, log_q, TEACHER)
    for leaf in jax.tree.leaves(own):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-6)


def test_a_draw_that_does_not_count_is_left_out() -> None:
    """In-batch softmax says log Q = inf of a label that stands in the batch before."""
    drawn, log_q = np.array([1, 4, 5]), np.log([0.5, 1.0, 2.0])
    value, own = lost_over(drawn, log_q)
    again, gradient = lost_over(np.append(drawn, 4), np.append(log_q, np.inf))
    assert float(again) == pytest.approx(float(value), rel=1e-6)
    for leaf, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-6)


def test_a_head_that_draws_no_negatives_is_refused() -> None:
    joined = batched(state(), NEW)
    with pytest.raises(UserError, match=r"over=drawn: the head draws no negatives for a whole batch; choose head="):
        ader(PROBLEM, capacity=C, rows=ROWS, over="drawn").loss(state(), STUDENT, joined, apply(STUDENT, joined.inputs))


def test_before_an_increment_is_finished_the_term_is_zero() -> None:
    start = jax.jit(lambda: made().init(learner(STUDENT)))()
    assert not np.asarray(start.known).any()
    for now in (start, state(ready=0.0)):
        value, (own, _) = lost(STUDENT, begin(now, learner(STUDENT), data()), batched(now, NEW), np.float32(1))
        assert float(value) == 0.0
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(own))


def test_the_weight_adapts_to_items_and_examples() -> None:
    """4 of 5 items were known; 3 exemplars stand against 6 new rows."""
    adapted = begin(state(filled=3), learner(STUDENT), data()).rehearsal.adapted
    assert float(adapted) == pytest.approx(np.sqrt(4 / 5 * 3 / SIZE), rel=1e-6)
    assert adapted.dtype == np.float32


def test_without_adaptation_the_weight_is_the_same_in_every_increment() -> None:
    joined = batched(state(), NEW)
    fixed = ader(PROBLEM, capacity=C, rows=ROWS, weight=2.0, adaptive=False)
    term = jax.jit(lambda own: fixed.loss(own, STUDENT, joined, apply(STUDENT, joined.inputs)))
    expected = lost(STUDENT, state(adapted=1.0), joined, np.float32(2))[0]
    for adapted in (0.1, 0.7):
        assert float(term(state(adapted=adapted))) == pytest.approx(float(expected), rel=1e-6)


def test_spread_exemplars_come_in_turn() -> None:
    """3 exemplars over 6 rows in batches of 3 are one a batch: two of them in an epoch."""
    strategy = ader(PROBLEM, capacity=C, rows=ROWS, spread=True)
    own, met = state(), []
    batch = jax.jit(lambda own, new, step: strategy.batch(own, new._replace(step=step), jax.random.key(2)))
    for step in range(2):
        joined = batch(own, NEW, jnp.int32(step))
        assert np.asarray(joined.valid).tolist() == [True] * B + [True, False, False, False]
        met.append(np.asarray(joined.inputs["x"])[B])
    np.testing.assert_array_equal(np.stack(met), np.asarray(own.rehearsal.memory.rows.inputs["x"])[:2])


def test_an_increments_end_makes_the_teacher_and_keeps_exemplars() -> None:
    old = state()
    after, same = end(old, learner(STUDENT), data())
    jax.tree.map(np.testing.assert_array_equal, after.teacher, Teacher(STUDENT, jnp.float32(1)))
    np.testing.assert_array_equal(after.known, SEEN)
    jax.tree.map(np.testing.assert_array_equal, same, learner(STUDENT))
    kept = after.rehearsal.memory.rows
    assert np.asarray(kept.valid).all()
    offered = np.concatenate([old.rehearsal.memory.rows.inputs["x"][:3], data().rows.inputs["x"][:SIZE]])
    assert all((row == offered).all(1).any() for row in np.asarray(kept.inputs["x"]))
    assert isinstance(after.rehearsal.memory, Memory)
    assert int(after.rehearsal.memory.inserted) == 3 + SIZE
    herd = jax.jit(selector(PROBLEM, "ader", "herding", "multinomial"))
    herded = herd(old.rehearsal.memory, learner(STUDENT), data(), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, after.rehearsal.memory, herded)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"capacity": 0}, r"ader: capacity=0: expected a whole number >= 1"),
        ({"rows": 0}, r"ader: rows=0: expected a whole number >= 1"),
        ({"over": "all"}, r"strategies\.ader\.over='all': expected one of known, drawn"),
        ({"quotas": "x"}, r"strategies\.ader: quotas='x': expected one of proportional, balanced, multinomial"),
    ],
)
def test_impossible_settings_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ader(PROBLEM, **wrong)


def test_the_laws_of_strategies() -> None:
    arguments = {"capacity": 24, "rows": 8}
    check_strategy(ader, kind=("memory", "distillation"), off={"weight": 0.0}, arguments=arguments, keeps="other")
