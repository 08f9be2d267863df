from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Catalogue, Data, Learner, Memory, Outputs, Problem
from incremental.errors import UserError
from incremental.memory.exemplars import Rehearsal
from incremental.memory.herding import herd
from incremental.strategies.exemplar_replay import exemplar_replay
from incremental.testing import check_strategy

C, ROWS, V = 6, 600, 5
NONE: Any = None
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch({"x": jax.ShapeDtypeStruct((2,), np.float32)}, *SCALARS)
# Label 1 has 9 rows, label 2 has 3: 4.5 and 1.5 of 6 slots, so that one of the two gets the last slot.
LABELS: Any = np.array([1] * 9 + [2] * 3 + [3] * 4, np.int32)  # the last four are padding
ANGLE = np.linspace(0, 1.5, len(LABELS), dtype=np.float32)
X: Any = np.stack([np.cos(ANGLE), np.sin(ANGLE)], 1) * np.arange(1, 17, dtype=np.float32)[:, None]


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    del key
    hidden = inputs["x"] * params
    return Outputs(hidden, hidden @ jnp.ones((2, V)))


# The loss is greatest for the longest vectors: those with the last places.
PROBLEM = Problem(NONE, apply, lambda _params, outputs, _batch: (outputs.hidden**2).sum(1), EXAMPLE, {}, NONE, NONE)
ONE: Any = np.float32(1)
LISTED: Any = np.arange(V + 1) > 0  # candidates; the last one has no event yet (data.unseen_items=known)
SEEN: Any = LISTED & (np.arange(V + 1) < V)
LEARNER = Learner(ONE, (), Catalogue(LISTED, SEEN, NONE), NONE)


def data() -> Data:
    """12 rows and 4 of padding."""
    n = len(LABELS)
    fields: list[Any] = [LABELS, np.arange(n, dtype=np.float32), np.ones(n, bool), np.zeros(n, np.int32)]
    sizes: Any = np.int32(12), np.int32(0), NONE, NONE
    return Data(Batch({"x": X}, *fields), *sizes)


def made(weight: Any = 1.0, **how: Any) -> Any:
    return exemplar_replay(PROBLEM, capacity=C, rows=ROWS, weight=weight, **how)


def finished(**how: Any) -> Memory:
    strategy = made(**how)
    state, learner = jax.jit(strategy.end)(strategy.init(LEARNER), LEARNER, data(), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, learner, LEARNER)
    memory: Memory = jax.tree.map(np.asarray, state.memory)
    return memory


FIELDS: list[Any] = [LABELS[8:10], np.ones(2, np.float32), np.ones(2, bool), np.ones(2, np.int32)]
NEW = Batch({"x": X[8:10]}, *FIELDS)._replace(own=2)


def kept(memory: Memory, items: int = 0, adapted: float = 0.0, size: int = 0) -> Rehearsal:
    numbers: list[Any] = [np.int32(items), np.float32(adapted), np.int32(size)]
    return Rehearsal(memory, *numbers)


batched = jax.jit(
    lambda memory, batch, weight: made(weight).batch(kept(memory), batch, jax.random.key(4)),
)


@pytest.fixture(scope="module")
def memory() -> Memory:
    return finished(selection="loss")


def test_quotas_are_proportional_and_the_selection_is_the_one_asked_for(memory: Memory) -> None:
    assert memory.rows.valid.all()
    one, two = (sorted(memory.rows.weight[memory.rows.labels == label].tolist()) for label in (1, 2))
    assert (len(one), len(two)) in ((4, 2), (5, 1))
    assert one == list(range(9))[-len(one) :]  # the longest of each label
    assert two == [9, 10, 11][-len(two) :]


def test_the_memory_is_in_random_order(memory: Memory) -> None:
    """So that those which come in turn are not all of one time, or of one session."""
    places = memory.rows.weight.tolist()
    assert sorted(places) != places != sorted(places, reverse=True)


def test_balanced_quotas_reach_the_selection() -> None:
    labels = np.asarray(finished(selection="random", quotas="balanced").rows.labels)
    assert np.bincount(labels).tolist() == [0, 3, 3]


def test_by_default_exemplars_are_herded_in_proportion() -> None:
    memory = finished()
    one = memory.rows.weight[memory.rows.labels == 1]
    assert len(one) in (4, 5)
    directions = X[:9] / np.linalg.norm(X[:9], axis=1, keepdims=True)
    chosen = jax.jit(herd)(directions, np.zeros(9, np.int32), np.array([len(one)], np.int32))
    assert sorted(one) == np.flatnonzero(chosen).tolist() != sorted(range(9))[-len(one) :]


def test_a_batch_is_followed_by_uniform_exemplars_at_the_strategys_weight(memory: Memory) -> None:
    joined = jax.tree.map(np.asarray, batched(memory, NEW, np.float32(0.25)))
    np.testing.assert_array_equal(joined.labels[:2], NEW.labels)
    np.testing.assert_array_equal(joined.weight[:2], 1.0)
    assert joined.valid.all()
    drawn, counts = np.unique(joined.weight[2:], return_counts=True)
    np.testing.assert_allclose(drawn, 0.25 * np.sort(memory.rows.weight))
    assert stats.chisquare(counts).pvalue > 1e-4


def test_before_the_first_end_only_padding_is_added() -> None:
    joined = batched(made().init(LEARNER).memory, NEW, np.float32(1))
    assert not np.asarray(joined.valid)[2:].any()


def test_aders_weight_is_that_of_the_replayed_rows_mean(memory: Memory) -> None:
    """λ = 0.8 · 0.25 of the mean over 600 drawn rows stands beside the mean over two new ones of weight 1."""
    strategy = made(0.8, adaptive=True)
    joined = jax.jit(lambda own: strategy.batch(own, NEW, jax.random.key(4)))(kept(memory, adapted=0.25))
    old = np.asarray(joined.weight)[2:]
    assert old.sum() / np.asarray(joined.weight)[:2].sum() == pytest.approx(0.8 * 0.25, rel=1e-5)
    np.testing.assert_allclose(np.unique(old) / old.min(), np.sort(memory.rows.weight) / memory.rows.weight.min())


def test_rows_that_others_have_appended_change_neither_weight_nor_turn(memory: Memory) -> None:
    """A batch of two own rows behind which a strategy before this one has put two more."""
    fields: list[Any] = [np.resize(field, 4) for field in FIELDS]
    longer = Batch({"x": X[6:10]}, *fields)._replace(step=jnp.int32(0), own=2)
    strategy = made(0.8, adaptive=True, spread=True)
    batch = jax.jit(lambda own, new: strategy.batch(own, new, jax.random.key(4)))
    state = kept(memory, adapted=0.25, size=5)
    alone, beside = batch(state, NEW._replace(step=jnp.int32(0))), batch(state, longer)
    np.testing.assert_array_equal(beside.valid[4:], alone.valid[2:])
    np.testing.assert_array_equal(beside.weight[4:], alone.weight[2:])
    here = np.asarray(alone.weight)[2:][np.asarray(alone.valid)[2:]]  # some of the 600
    assert here.sum() == pytest.approx(0.8 * 0.25 * 2, rel=1e-5)


def test_the_adaptive_weight_follows_items_and_examples() -> None:
    """4 items were seen at the last end, 4 are now; 6 exemplars stand against 12 new rows; before, there was none."""
    strategy = made(adaptive=True)
    begin = jax.jit(lambda state: strategy.begin(state, LEARNER, data(), jax.random.key(0))[0])
    state = strategy.init(LEARNER)
    assert float(begin(state).adapted) == 0.0
    state, _ = jax.jit(strategy.end)(state, LEARNER, data(), jax.random.key(0))
    assert int(state.items) == 4
    assert float(begin(state._replace(items=jnp.int32(3))).adapted) == pytest.approx(np.sqrt(3 / 4 * 6 / 12))
    assert int(begin(state).size) == 12


def test_spread_exemplars_come_once_an_epoch(memory: Memory) -> None:
    """6 exemplars over an epoch of 5 rows in batches of 2, that is 3 batches, are 2 a batch; `rows` is the most."""
    for rows, each in ((5, 2), (1, 1)):
        strategy = exemplar_replay(PROBLEM, capacity=C, rows=rows, spread=True)
        batch = jax.jit(lambda own, n, strategy=strategy: strategy.batch(own, NEW._replace(step=n), jax.random.key(4)))
        state, met = kept(memory, size=5), []
        for step in range(3):
            joined = batch(state, jnp.int32(step))
            valid = np.asarray(joined.valid)[2:]
            assert valid.tolist() == [True] * each + [False] * (rows - each)
            met += np.asarray(joined.weight)[2:][valid].tolist()
        assert len(set(met)) == len(met) == 3 * each
    assert made().record is Strategy().record  # so that it may begin with another run's base part


def test_after_the_last_exemplar_the_first_one_comes_again(memory: Memory) -> None:
    """5 exemplars over an epoch of 2 batches are 2 a batch: the third batch has the last one and the first."""
    five = memory._replace(rows=memory.rows._replace(valid=jnp.arange(C) < 5))
    strategy = exemplar_replay(PROBLEM, capacity=C, rows=3, spread=True)
    batch = jax.jit(lambda own, n: strategy.batch(own, NEW._replace(step=n), jax.random.key(4)))
    met = []
    for step in range(3):
        joined = batch(kept(five, size=4), jnp.int32(step))
        assert np.asarray(joined.valid)[2:].tolist() == [True, True, False]
        met += np.asarray(joined.weight)[2:4].tolist()
    assert met == [*memory.rows.weight[:5].tolist(), float(memory.rows.weight[0])]


def test_validation_rows_become_exemplars_too() -> None:
    """All of 3 rows and 2 of validation; what is behind them is padding."""
    rows = data().rows
    two: Any = np.arange(len(LABELS)) < 2
    three: Any = np.int32(3)
    both = data()._replace(size=three, validation=rows._replace(valid=two, weight=rows.weight + 100))
    strategy = made()
    state, _ = jax.jit(strategy.end)(strategy.init(LEARNER), LEARNER, both, jax.random.key(0))
    assert sorted(np.asarray(state.memory.rows.weight)[np.asarray(state.memory.rows.valid)]) == [0, 1, 2, 100, 101]
    assert int(state.memory.inserted) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"capacity": 0}, r"exemplar_replay: capacity=0: expected a whole number >= 1"),
        ({"rows": 0}, r"exemplar_replay: rows=0: expected a whole number >= 1"),
        ({"selection": "x"}, r"strategies\.exemplar_replay: selection='x': expected one of herding"),
        ({"groups": "x"}, r"strategies\.exemplar_replay: groups='x': expected one of label, increment"),
        ({"quotas": "x"}, r"strategies\.exemplar_replay: quotas='x': expected one of proportional"),
    ],
)
def test_impossible_settings_are_refused(wrong: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        exemplar_replay(PROBLEM, **wrong)


def test_the_laws_of_strategies() -> None:
    arguments = {"capacity": 24, "rows": 8}
    check_strategy(exemplar_replay, kind="memory", off={"weight": 0.0}, arguments=arguments, keeps="quota")
