from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from incremental.errors import UserError
from incremental.memory.herding import herd
from incremental.strategies.exemplar_replay import exemplar_replay
from incremental.testing import check_strategy
from incremental.types import Batch, Catalogue, Data, Learner, Memory, Outputs, Problem

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
SEEN: Any = np.arange(V) > 0
LEARNER = Learner(ONE, (), Catalogue(SEEN, NONE, NONE), NONE)


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
    memory: Memory = jax.tree.map(np.asarray, state)
    return memory


FIELDS: list[Any] = [LABELS[8:10], np.ones(2, np.float32), np.ones(2, bool), np.ones(2, np.int32)]
NEW = Batch({"x": X[8:10]}, *FIELDS)
batched = jax.jit(lambda state, batch, weight: made(weight).batch(state, batch, jax.random.key(4)))


@pytest.fixture(scope="module")
def memory() -> Memory:
    return finished(selection="loss")


def test_quotas_are_proportional_and_the_selection_is_the_one_asked_for(memory: Memory) -> None:
    assert memory.rows.valid.all()
    one, two = (sorted(memory.rows.weight[memory.rows.labels == label].tolist()) for label in (1, 2))
    assert (len(one), len(two)) in ((4, 2), (5, 1))
    assert one == list(range(9))[-len(one) :]  # the longest of each label
    assert two == [9, 10, 11][-len(two) :]


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
    joined = batched(made().init(LEARNER), NEW, np.float32(1))
    assert not np.asarray(joined.valid)[2:].any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"capacity": 0}, r"strategies\.exemplar_replay: capacity=0: expected at least 1"),
        ({"rows": 0}, r"strategies\.exemplar_replay: rows=0: expected at least 1"),
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
