from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.core.types import Batch, Memory, Problem, Step
from incremental.errors import UserError
from incremental.strategies.balanced_replay import balanced_replay
from incremental.testing import check_strategy

ROWS = 3000
NONE: Any = None
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
PROBLEM = Problem(NONE, NONE, NONE, Batch({"user": jax.ShapeDtypeStruct((), np.int32)}, *SCALARS), {}, NONE, NONE)
LABELS: Any = np.array([7, 3, 7, 7, 9, 7, 3, 7, 9, 9], np.int32)  # slots 8 and 9 are empty
FILLED = 8


def rows(labels: Any) -> Batch:
    """Rows whose user is their place; label 0 is padding."""
    ids = np.array(labels, np.int32)
    users = np.arange(len(ids), dtype=np.int32)
    fields: list[Any] = [ids, ids / np.float32(2), ids > 0, np.zeros(len(ids), np.int32)]
    return Batch({"user": users}, *fields)


def made(weight: Any = 1.0) -> Any:
    return balanced_replay(PROBLEM, capacity=len(LABELS), rows=ROWS, weight=weight)


@jax.jit
def batched(state: Any, batch: Any, weight: Any) -> Any:
    return made(weight).batch(state, batch, jax.random.key(5))


@jax.jit
def recorded(state: Any, new: Any, first_pass: Any) -> Any:
    return made().record(state, Step(NONE, new, NONE, NONE, NONE, NONE, NONE, first_pass), jax.random.key(1))


@pytest.fixture(scope="module")
def replayed() -> Batch:
    count: Any = np.int32(FILLED)
    memory = Memory(rows(LABELS)._replace(valid=np.arange(len(LABELS)) < FILLED), count)  # type: ignore[arg-type]
    joined = batched(memory, rows([50, 51, 0]), np.float32(0.25))
    assert np.asarray(joined.labels)[:3].tolist() == [50, 51, 0]
    old: Batch = jax.tree.map(lambda leaf: np.asarray(leaf)[3:], joined._replace(candidates=None))
    return old


def test_each_label_of_the_memory_is_equally_likely(replayed: Batch) -> None:
    counts = np.bincount(replayed.labels, minlength=10)
    assert counts.sum() == counts[[3, 7, 9]].sum() == ROWS
    assert stats.chisquare(counts[[3, 7, 9]]).pvalue > 1e-3


@pytest.mark.parametrize("label", [3, 7, 9])
def test_within_a_label_each_row_is_equally_likely(replayed: Batch, label: int) -> None:
    slots = np.flatnonzero(LABELS[:FILLED] == label)
    counts = np.bincount(replayed.inputs["user"][replayed.labels == label], minlength=len(LABELS))
    assert counts.sum() == counts[slots].sum()
    assert len(slots) == 1 or stats.chisquare(counts[slots]).pvalue > 1e-3


def test_replayed_rows_have_the_strategys_weight(replayed: Batch) -> None:
    np.testing.assert_allclose(replayed.weight, 0.25 * replayed.labels / 2)
    assert np.asarray(replayed.valid).all()


def test_an_empty_memory_adds_only_padding() -> None:
    joined = batched(made().init(NONE), rows([7, 8, 0]), np.float32(1))
    assert not np.asarray(joined.valid)[3:].any()
    assert np.isfinite(joined.weight).all()


def test_new_rows_are_inserted_in_the_first_pass_only() -> None:
    state = recorded(made().init(NONE), rows([4, 0, 6]), np.bool_(True))
    assert np.asarray(state.rows.labels)[:3].tolist() == [4, 6, 0]
    assert int(state.inserted) == 2
    jax.tree.map(np.testing.assert_array_equal, recorded(state, rows([7, 8, 9]), np.bool_(False)), state)


@pytest.mark.parametrize("wrong", ["capacity", "rows"])
def test_impossible_sizes_are_refused(wrong: str) -> None:
    sizes: Any = {wrong: 0}
    with pytest.raises(UserError, match=rf"balanced_replay: {wrong}=0: expected a whole number >= 1"):
        balanced_replay(PROBLEM, **sizes)


def test_the_laws_of_strategies() -> None:
    check_strategy(
        balanced_replay, kind="memory", off={"weight": 0.0}, arguments={"capacity": 24, "rows": 8}, draws="other"
    )
