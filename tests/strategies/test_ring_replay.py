from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.core.types import Batch, Memory, Problem, Step
from incremental.errors import UserError
from incremental.strategies.ring_replay import ring_replay
from incremental.testing import check_strategy

ROWS, CAPACITY = 600, 5
NONE: Any = None
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
PROBLEM = Problem(NONE, NONE, NONE, Batch({"user": jax.ShapeDtypeStruct((), np.int32)}, *SCALARS), {}, NONE, NONE)


def rows(labels: list[int]) -> Batch:
    """Rows with a weight of their own; label 0 is padding."""
    ids = np.array(labels, np.int32)
    fields: list[Any] = [ids, ids / np.float32(2), ids > 0, np.zeros(len(ids), np.int32)]
    return Batch({"user": 10 * ids}, *fields)


def made(weight: Any = 1.0) -> Any:
    return ring_replay(PROBLEM, capacity=CAPACITY, rows=ROWS, weight=weight)


@jax.jit
def batched(state: Any, batch: Any, seed: Any, weight: Any) -> Any:
    return made(weight).batch(state, batch, jax.random.key(seed))


@jax.jit
def recorded(state: Any, new: Any, first_pass: Any) -> Any:
    joined = made().batch(state, new, jax.random.key(0))  # the step's batch holds replayed rows too
    return made().record(state, Step(joined, new, NONE, NONE, NONE, NONE, NONE, first_pass), jax.random.key(1))


@pytest.fixture(scope="module")
def filled() -> Memory:
    state = made().init(NONE)
    for labels in ([1, 2, 3, 0], [0, 4, 0, 5], [6, 7, 0, 0]):
        state = recorded(state, rows(labels), np.bool_(True))
    memory: Memory = state
    return memory


def test_the_first_pass_keeps_the_last_of_the_new_rows(filled: Memory) -> None:
    assert sorted(np.asarray(filled.rows.labels)) == [3, 4, 5, 6, 7]
    np.testing.assert_allclose(filled.rows.weight, np.asarray(filled.rows.labels) / 2)  # at their own weight
    assert int(filled.inserted) == 7


def test_later_passes_insert_nothing(filled: Memory) -> None:
    again = recorded(filled, rows([8, 9, 8, 9]), np.bool_(False))
    jax.tree.map(np.testing.assert_array_equal, again, filled)


def test_replayed_rows_are_uniform_over_the_ring_at_the_strategys_weight(filled: Memory) -> None:
    new = rows([8, 9, 0, 0])
    joined = jax.tree.map(np.asarray, batched(filled, new, 3, np.float32(0.25)))
    np.testing.assert_array_equal(joined.labels[:4], new.labels)
    np.testing.assert_array_equal(joined.weight[:4], new.weight)
    labels = joined.labels[4:]
    counts = np.bincount(labels, minlength=10)
    assert counts[3:8].sum() == ROWS
    assert stats.chisquare(counts[3:8]).pvalue > 1e-4
    assert joined.valid[4:].all()
    np.testing.assert_allclose(joined.weight[4:], 0.25 * labels / 2)
    np.testing.assert_array_equal(joined.inputs["user"][4:], 10 * labels)


def test_an_empty_ring_adds_only_padding() -> None:
    joined = batched(made().init(NONE), rows([7, 8, 9, 0]), 0, np.float32(1))
    assert not np.asarray(joined.valid)[4:].any()


@pytest.mark.parametrize("wrong", ["capacity", "rows"])
def test_impossible_sizes_are_refused(wrong: str) -> None:
    sizes: Any = {wrong: 0}
    with pytest.raises(UserError, match=rf"ring_replay: {wrong}=0: expected a whole number >= 1"):
        ring_replay(PROBLEM, **sizes)


def test_the_laws_of_strategies() -> None:
    check_strategy(
        ring_replay, kind="memory", off={"weight": 0.0}, arguments={"capacity": 24, "rows": 8}, keeps="other"
    )
