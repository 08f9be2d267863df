from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.core.types import Batch, Memory, Problem, Step
from incremental.errors import UserError
from incremental.memory import buffer
from incremental.strategies.decayed_replay import decayed_replay
from incremental.testing import check_strategy

ROWS = 2000
NONE: Any = None
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
PROBLEM = Problem(NONE, NONE, NONE, Batch({"user": jax.ShapeDtypeStruct((), np.int32)}, *SCALARS), {}, NONE, NONE)
ARRIVED: Any = np.array([0, 3, 1, 4, 3, 4, 9, 9], np.int32)  # the last two slots are empty
FILLED = 6


def rows(labels: Any, arrived: Any) -> Batch:
    """Rows with a weight of their own; label 0 is padding."""
    ids = np.array(labels, np.int32)
    fields: list[Any] = [ids, ids / np.float32(2), ids > 0, np.broadcast_to(np.int32(arrived), ids.shape)]
    return Batch({"user": 10 * ids}, *fields)


def made(decay: Any = 0.5, weight: Any = 1.0) -> Any:
    return decayed_replay(PROBLEM, capacity=len(ARRIVED), rows=ROWS, weight=weight, decay=decay)


@jax.jit
def batched(state: Any, batch: Any, decay: Any, weight: Any) -> Any:
    return made(decay, weight).batch(state, batch, jax.random.key(5))


@jax.jit
def recorded(state: Any, new: Any, first_pass: Any) -> Any:
    return made().record(state, Step(NONE, new, NONE, NONE, NONE, NONE, NONE, first_pass), jax.random.key(1))


def memory() -> Memory:
    """Slot i holds label i + 1."""
    labels: Any = np.arange(1, len(ARRIVED) + 1)
    kept = rows(labels, ARRIVED)
    count: Any = np.int32(FILLED)
    return Memory(kept._replace(valid=labels <= FILLED), count)


def replayed(decay: float, now: int = 5, weight: float = 1.0) -> Batch:
    joined = batched(memory(), rows([90, 91, 0], now), np.float32(decay), np.float32(weight))
    assert len(joined.labels) == 3 + ROWS
    old: Batch = jax.tree.map(lambda leaf: np.asarray(leaf)[3:], buffer.stored(joined))
    return old


@pytest.mark.parametrize("decay", [0.3, 0.7, 1.0])
def test_rows_are_drawn_in_proportion_to_the_decay_of_their_age(decay: float) -> None:
    chances = decay ** (5.0 - ARRIVED[:FILLED])
    counts = np.bincount(replayed(decay).labels, minlength=FILLED + 1)[1:]
    assert len(counts) == FILLED
    assert stats.chisquare(counts, ROWS * chances / chances.sum()).pvalue > 1e-3


def test_without_decay_all_rows_are_as_likely() -> None:
    counts = np.bincount(replayed(1.0).labels, minlength=FILLED + 1)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_decay_zero_leaves_the_last_increment_of_the_memory() -> None:
    counts = np.bincount(replayed(0.0).labels)
    assert counts[[4, 6]].sum() == ROWS
    assert stats.chisquare(counts[[4, 6]]).pvalue > 1e-3


def test_only_ages_relative_to_each_other_count() -> None:
    """100 increments later no chance has vanished."""
    np.testing.assert_array_equal(replayed(0.3, now=104).labels, replayed(0.3).labels)


def test_replayed_rows_keep_their_fields_at_the_strategys_weight() -> None:
    old = replayed(0.7, weight=0.25)
    np.testing.assert_allclose(old.weight, 0.25 * old.labels / 2)
    np.testing.assert_array_equal(old.inputs["user"], 10 * old.labels)
    np.testing.assert_array_equal(old.increment, ARRIVED[old.labels - 1])
    assert old.valid.all()


def test_an_empty_memory_adds_only_padding() -> None:
    joined = batched(made().init(NONE), rows([7, 8, 0], 5), np.float32(0.7), np.float32(1))
    assert not np.asarray(joined.valid)[3:].any()
    assert np.isfinite(joined.weight).all()


def test_new_rows_are_inserted_in_the_first_pass_only() -> None:
    state = recorded(made().init(NONE), rows([4, 0, 6], 2), np.bool_(True))
    assert np.asarray(state.rows.labels)[:3].tolist() == [4, 6, 0]
    assert int(state.inserted) == 2
    jax.tree.map(np.testing.assert_array_equal, recorded(state, rows([7, 8, 9], 2), np.bool_(False)), state)


@pytest.mark.parametrize("wrong", ["capacity", "rows"])
def test_impossible_sizes_are_refused(wrong: str) -> None:
    sizes: Any = {wrong: 0}
    with pytest.raises(UserError, match=rf"decayed_replay: {wrong}=0: expected a whole number >= 1"):
        decayed_replay(PROBLEM, **sizes)


def test_the_laws_of_strategies() -> None:
    check_strategy(
        decayed_replay, kind="memory", off={"weight": 0.0}, arguments={"capacity": 24, "rows": 8}, draws="other"
    )
