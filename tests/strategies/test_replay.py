from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.types import Batch, Memory, Problem, Step
from incremental.errors import UserError
from incremental.strategies.replay import replay
from incremental.testing import check_strategy

B, ROWS, CAPACITY, WEIGHT = 4, 3, 6, 0.25
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch(
    {"history": jax.ShapeDtypeStruct((2,), np.int32)},
    *SCALARS,
)
NONE: Any = None
PROBLEM = Problem(NONE, NONE, NONE, EXAMPLE, {}, NONE, NONE)


def rows(labels: list[int], increment: int = 0) -> Batch:
    """Rows with a weight of their own; label 0 is padding."""
    ids = np.array(labels, np.int32)
    fields: list[Any] = [ids, ids / np.float32(2), ids > 0, np.full(len(ids), increment, np.int32)]
    return Batch({"history": np.stack([ids, 10 * ids], 1)}, *fields)


class Jitted:
    """The strategy's functions, compiled."""

    def __init__(self) -> None:
        self.init = jax.jit(lambda: replay(PROBLEM, capacity=CAPACITY, rows=ROWS).init(NONE))

        @jax.jit
        def batch(state: Any, batch: Any, key: Any, weight: Any) -> Any:
            return replay(PROBLEM, capacity=CAPACITY, rows=ROWS, weight=weight).batch(state, batch, key)

        @jax.jit
        def record(state: Any, new: Any, trained_on: Any, first_pass: Any, key: Any) -> Any:
            step = Step(trained_on, new, NONE, NONE, NONE, NONE, NONE, first_pass)
            return replay(PROBLEM, capacity=CAPACITY, rows=ROWS).record(state, step, key)

        self.raw_batch, self.raw_record = batch, record

    def batch(self, state: Any, batch: Batch, seed: int = 0, weight: float = WEIGHT) -> Batch:
        joined: Batch = self.raw_batch(state, batch, jax.random.key(seed), np.float32(weight))
        return joined

    def record(self, state: Any, new: Batch, seed: int = 0, *, first_pass: bool = True) -> Memory:
        trained_on = self.batch(state, new, seed)
        memory: Memory = self.raw_record(state, new, trained_on, np.bool_(first_pass), jax.random.key(seed))
        return memory


@pytest.fixture(scope="module")
def strategy() -> Jitted:
    return Jitted()


@pytest.fixture(scope="module")
def filled(strategy: Jitted) -> Memory:
    return strategy.record(strategy.init(), rows([1, 2, 3, 0]))


def test_replayed_rows_come_after_the_new_ones_which_stay_as_they_are(strategy: Jitted, filled: Memory) -> None:
    new = rows([7, 8, 9, 0], increment=1)
    joined = strategy.batch(filled, new)
    for field in ("labels", "weight", "valid", "increment"):
        assert len(getattr(joined, field)) == B + ROWS
        np.testing.assert_array_equal(getattr(joined, field)[:B], getattr(new, field))
    np.testing.assert_array_equal(joined.inputs["history"][:B], new.inputs["history"])


def test_replayed_rows_are_past_examples_at_the_strategys_weight(strategy: Jitted, filled: Memory) -> None:
    joined = jax.tree.map(lambda leaf: np.asarray(leaf)[B:], strategy.batch(filled, rows([7, 8, 9, 0], increment=1)))
    assert set(joined.labels) <= {1, 2, 3}
    assert joined.valid.all()
    np.testing.assert_array_equal(joined.inputs["history"], np.stack([joined.labels, 10 * joined.labels], 1))
    np.testing.assert_allclose(joined.weight, WEIGHT * joined.labels / 2)
    assert (joined.increment == 0).all()


def test_all_filled_slots_are_replayed_and_draws_differ_from_step_to_step(strategy: Jitted, filled: Memory) -> None:
    draws = [tuple(np.asarray(strategy.batch(filled, rows([7] * B), seed).labels)[B:]) for seed in range(12)]
    assert len(set(draws)) > 3
    assert {label for draw in draws for label in draw} == {1, 2, 3}


def test_an_empty_memory_adds_only_padding(strategy: Jitted) -> None:
    joined = strategy.batch(strategy.init(), rows([7, 8, 9, 0]))
    assert not np.asarray(joined.valid)[B:].any()


def test_the_first_pass_inserts_the_new_rows_only(strategy: Jitted, filled: Memory) -> None:
    memory = strategy.record(filled, rows([4, 0, 5, 0]), seed=1)
    assert memory.rows.labels.tolist() == [1, 2, 3, 4, 5, 0]
    assert int(memory.inserted) == 5
    # At their own weight: the strategy's is applied anew at each replay.
    np.testing.assert_allclose(memory.rows.weight, np.asarray(memory.rows.labels) / 2)


def test_later_passes_insert_nothing(strategy: Jitted, filled: Memory) -> None:
    memory = strategy.record(filled, rows([4, 5, 6, 7]), first_pass=False)
    jax.tree.map(np.testing.assert_array_equal, memory, filled)


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"rows": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"replay: (capacity|rows)=0: expected a whole number >= 1"):
        replay(PROBLEM, **wrong)


def test_the_laws_of_strategies() -> None:
    check_strategy(replay, kind="memory", off={"weight": 0.0}, arguments={"capacity": 24, "rows": 8})
