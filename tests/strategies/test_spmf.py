import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs, Problem, Step
from incremental.errors import UserError
from incremental.heads.bpr import bpr
from incremental.heads.hierarchical_softmax import hierarchical_softmax
from incremental.strategies.spmf import Ranked, spmf
from incremental.testing import check_strategy
from tests.applies import trace

NONE: Any = None
B, ROWS, C, V = 4, 3, 5, 8
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch({"user": jax.ShapeDtypeStruct((), np.int32)}, *SCALARS)
SCORE: Any = np.array([9.0, 0.5, 3.0, -1.0, 2.0, 8.0, 8.0, 8.0], np.float32)  # of each item
RANK = {1: 3, 2: 1, 3: 4, 4: 2}  # of the items 1 to 4, the highest score first


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None
    return Outputs(NONE, jnp.broadcast_to(params["item"], (len(inputs["user"]), V)))


def exact(params: Any, outputs: Outputs, batch: Batch) -> Any:
    """A loss whose order is another."""
    assert batch.candidates is not None
    value = jnp.asarray(params["item"])[batch.labels] + 0.0 * outputs.scores[:, 0]
    return jnp.where(batch.candidates[batch.labels], value, jnp.inf)


PROBLEM = Problem(NONE, apply, exact, EXAMPLE, {"item": "item"}, None, NONE)
SEEN = jnp.ones(V, bool).at[1].set(False)  # forgotten, and in the memory still
LEARNER = Learner({"item": SCORE}, (), Catalogue(SEEN, NONE, {}), NONE)


def rows(labels: Any) -> Batch:
    """Label 0 is padding."""
    ids = np.array(labels, np.int32)
    fields: list[Any] = [ids, np.ones(len(ids), np.float32), ids > 0, np.zeros(len(ids), np.int32)]
    return Batch({"user": ids}, *fields)


def made(share: Any = 0.5, weight: Any = 1.0, by: Any = "score") -> Any:
    return spmf(PROBLEM, capacity=C, rows=ROWS, share=share, weight=weight, by=by)


def begun(state: Ranked, size: Any, share: Any, key: Any, by: str = "score") -> Ranked:
    data: Any = Data(NONE, size, NONE, NONE, NONE)
    return made(share, by=by).begin(state, LEARNER, data, key)[0]


@jax.jit
def recorded(state: Ranked, new: Batch, first_pass: Any) -> Ranked:
    step = Step(new, new, NONE, NONE, NONE, NONE, NONE, first_pass)
    return made().record(state, step, jax.random.key(0))


@jax.jit
def batched(state: Ranked, new: Batch, seed: Any, weight: Any) -> Batch:
    return made(weight=weight).batch(state, new._replace(own=B), jax.random.key(seed))


START = jax.jit(lambda: made().init(LEARNER))()
FILLED = recorded(START, rows([3, 1, 0, 2]), np.bool_(True))
FILLED = recorded(FILLED, rows([4, 0, 0, 0]), np.bool_(True))  # one slot stays empty
LABELS = np.asarray(FILLED.memory.rows.labels)[:4]
MANY = jax.jit(
    jax.vmap(lambda size, key: begun(FILLED, size, 0.5, key).drawn, (None, 0)),
)
KEYS = jax.random.split(jax.random.key(1), 20_000)


def weights() -> Any:
    """exp(r / n) of each slot in use."""
    return np.exp(np.array([RANK[label] for label in LABELS.tolist()]) / 4)


def test_the_first_member_is_drawn_by_its_rank() -> None:
    drawn = np.asarray(MANY(np.int32(3), KEYS))  # ⌊½ · 3⌋ = 1
    assert (drawn.sum(1) == 1).all()
    assert not drawn[:, 4].any()
    chances = weights() / weights().sum()
    assert stats.chisquare(drawn.sum(0)[:4], len(KEYS) * chances).pvalue > 1e-4
    assert chances.max() / chances.min() == pytest.approx(np.exp(3 / 4))


def test_members_are_drawn_without_replacement() -> None:
    """The probability of each pair, by both orders in which it may come."""
    drawn = np.asarray(MANY(np.int32(5), KEYS))
    w = weights()
    pairs = list(itertools.combinations(range(4), 2))
    chances = [sum(w[a] / w.sum() * w[b] / (w.sum() - w[a]) for a, b in ((i, j), (j, i))) for i, j in pairs]
    counts = [(drawn[:, i] & drawn[:, j]).sum() for i, j in pairs]
    assert sum(counts) == len(KEYS)
    assert stats.chisquare(counts, len(KEYS) * np.array(chances)).pvalue > 1e-4


def test_all_members_come_where_more_are_asked_for_and_none_at_share_0() -> None:
    sizes, shares = jnp.array([100, 100]), jnp.array([0.5, 0.0])
    both = jax.jit(jax.vmap(lambda size, share: begun(FILLED, size, share, KEYS[0])))(sizes, shares)
    assert np.asarray(both.drawn).tolist() == [[True] * 4 + [False], [False] * 5]
    assert not np.asarray(jax.jit(lambda: begun(START, jnp.int32(100), 0.5, KEYS[0]).drawn)()).any()


def test_members_may_be_ranked_by_their_loss() -> None:
    """Which here is the score itself: the order is reversed."""
    by_loss = jax.jit(jax.vmap(lambda key: begun(FILLED, jnp.int32(3), 0.5, key, "loss").drawn))(KEYS)
    w = np.exp((5 - np.array([RANK[label] for label in LABELS.tolist()])) / 4)
    assert stats.chisquare(np.asarray(by_loss).sum(0)[:4], len(KEYS) * w / w.sum()).pvalue > 1e-4


def test_a_batch_comes_with_drawn_members_each_once_an_epoch_on_average() -> None:
    chosen = jnp.array([True, False, True, True, False])
    new = rows([7, 6, 5, 0])
    # Of two batches one has two of the three members, of one batch all.
    for size, comes in ((8, 2), (4, 3), (100, 1)):
        state = FILLED._replace(drawn=chosen, size=jnp.int32(size))
        joined = [batched(state, new, seed, np.float32(0.25)) for seed in range(20)]
        assert {int(each.valid[B:].sum()) for each in joined} == {comes}
        met = {int(label) for each in joined for label in np.asarray(each.labels[B:])[np.asarray(each.valid[B:])]}
        assert met == set(LABELS[np.asarray(chosen[:4])].tolist())
        np.testing.assert_array_equal(joined[0].labels[:B], new.labels)
        np.testing.assert_array_equal(joined[0].weight, [1.0] * B + [0.25] * ROWS)


def test_rows_that_others_have_appended_change_nothing_of_how_many_come() -> None:
    """Two of three members in each of two batches of 4, also where a strategy before this one has doubled the batch."""
    state = FILLED._replace(drawn=jnp.array([True, False, True, True, False]), size=jnp.int32(8))
    joined = batched(state, rows([7, 6, 5, 4, 3, 2, 1, 1]), 0, np.float32(1))
    assert int(joined.valid[2 * B :].sum()) == 2


def test_nothing_drawn_is_plain_fine_tuning() -> None:
    new = rows([7, 6, 5, 0])
    for state in (START, FILLED):
        joined = batched(state, new, 0, np.float32(1))
        jax.tree.map(
            lambda leaf, own: np.testing.assert_array_equal(leaf[:B], own), joined._replace(memory=None, own=None), new
        )
        assert not np.asarray(joined.valid)[B:].any()


def test_a_member_whose_place_is_taken_does_not_come_any_more() -> None:
    state = FILLED._replace(drawn=jnp.array([True] * 4 + [False]))
    jax.tree.map(np.testing.assert_array_equal, recorded(state, rows([7, 7, 7, 7]), np.bool_(False)), state)
    after = recorded(recorded(state, rows([7, 7, 7, 7]), np.bool_(True)), rows([7, 7, 7, 7]), np.bool_(True))
    labels = np.asarray(after.memory.rows.labels)
    assert 0 < (labels != 7).sum() < 4
    np.testing.assert_array_equal(after.drawn, labels != 7)


def test_of_a_window_the_rows_that_are_new_fill_the_reservoir() -> None:
    new = rows([7, 6, 5, 0])._replace(increment=np.array([0, 1, 1, 1], np.int32))  # type: ignore[arg-type]
    step = Step(new, new, NONE, NONE, NONE, NONE, NONE, jnp.array(True), jnp.int32(0))
    after = jax.jit(lambda state: made().record(state, step, jax.random.key(0)))(START)
    assert np.asarray(after.memory.rows.labels).tolist() == [6, 5, 0, 0, 0]
    assert np.asarray(after.memory.rows.valid).tolist() == [True, True, False, False, False]
    assert int(after.memory.inserted) == 2


def test_a_rank_by_something_else_is_refused(documented: Any) -> None:
    wrong: Any = "age"
    with pytest.raises(UserError, match=r"by='age': expected one of score, loss") as error:
        spmf(PROBLEM, by=wrong)
    documented("SPMF's members ranked by what it does not know", error.value)


def test_a_head_that_scores_with_a_state_of_its_own_is_refused(documented: Any) -> None:
    with pytest.raises(UserError, match=r"strategies.spmf: the head makes its scores with a state of its own") as error:
        trace(lambda own: spmf(own, capacity=8, rows=2), "mf", hierarchical_softmax)
    documented("SPMF beside a head that scores with a state of its own", error.value)


def test_it_applies_to_compact_rows() -> None:
    trace(lambda own: spmf(own, capacity=8, rows=2, by="loss"), "mf", lambda: bpr(negatives=2), rows="compact")


def test_the_laws_of_strategies() -> None:
    check_strategy(spmf, kind="memory", off={"share": 0.0}, arguments={"capacity": 24, "rows": 8}, draws="other")
