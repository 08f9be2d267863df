import functools
from typing import Any, cast

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incremental.core.embedding import uniform_rows
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Data, State
from incremental.models.popularity import popularity
from incremental.run.alone import Alone, Kept
from incremental.run.capacity import capacity, grow, into_corner
from incremental.run.feed import Feed
from incremental.run.stopping import Best
from tests import lab


@given(st.integers(1, 10**8), st.integers(1, 64))
def test_capacity_holds_n_and_wastes_at_most_an_eighth(n: int, least: int) -> None:
    found = capacity(n, least)
    assert found >= max(n, least)
    assert found - max(n, least) <= max(n, least) / 8


@given(st.integers(1, 10**8), st.integers(0, 10**6))
def test_capacity_is_monotone(n: int, more: int) -> None:
    assert capacity(n) <= capacity(n + more)


@given(st.integers(1, 10**8))
def test_a_capacity_is_its_own(n: int) -> None:
    assert capacity(capacity(n)) == capacity(n)


def test_growing_meets_eight_capacities_for_each_doubling() -> None:
    assert len({capacity(n) for n in range(1025, 2049)}) == 8
    assert len({capacity(n) for n in range(1, 100_000)}) < 8 * 15
    assert [capacity(n) for n in (3, 8, 9, 16, 17, 1000, 18_569, 32_769)] == [8, 8, 9, 16, 18, 1024, 20_480, 36_864]


@pytest.mark.parametrize("shape", [(2, 3), (4, 3), (2, 5), (1, 1)])
def test_the_old_lies_in_the_leading_corner_of_the_new(shape: tuple[int, int]) -> None:
    old, new = np.arange(np.prod(shape), dtype=np.float32).reshape(shape), np.full((4, 5), -1.0, np.float32)
    found = np.array(jax.jit(into_corner)(new, old))
    np.testing.assert_array_equal(found[: shape[0], : shape[1]], old)
    found[: shape[0], : shape[1]] = -1.0
    np.testing.assert_array_equal(found, new)


def test_grown_equals_allocated_beforehand() -> None:
    small, large = Sizes(item=5, user=3), Sizes(item=8, user=6)

    def updated(program: Program, state: State, t: int) -> State:
        items = np.array([[1, 2, 2, 4], [3, 6, 7, 7]][t], np.int32)
        fields: list[Any] = [None, np.int32(1), np.int32(t), items, {"user": np.minimum(items, 1 + t)}]
        data = Data(*fields)

        @jax.jit
        def update(state: State) -> State:
            state, _ = program.run_epoch(program.begin(state, data), data)
            return program.end(state, data)

        return update(state)

    model = popularity(decay=0.5)
    before, after = model.program(next_item(8), small, ()), model.program(next_item(8), large, ())
    key = jax.random.key(0)
    grown = updated(after, grow(updated(before, jax.jit(before.init)(key), 0), after), 1)
    beforehand = updated(after, updated(after, jax.jit(after.init)(key), 0), 1)
    for a, b in zip(jax.tree.leaves(grown), jax.tree.leaves(beforehand), strict=True):
        assert a.dtype == b.dtype
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
    assert int(grown.learner.catalogue.seen.sum()) == 6


def random(sizes: Sizes) -> Program:
    """Popularity with parameters of its own."""
    program = popularity().program(next_item(8), sizes, ())

    def init(key: jax.Array) -> State:
        state = program.init(key)
        return state._replace(learner=state.learner._replace(params=uniform_rows(1.0)(key, (sizes["item"], 2))))

    return program._replace(init=init)


SMALL, LARGE = Sizes(item=5, user=3), Sizes(item=8, user=3)


def test_new_rows_start_as_the_runs_own_key_draws_them() -> None:
    state = jax.jit(random(SMALL).init)(jax.random.key(3))
    trained = state._replace(learner=state.learner._replace(params=-state.learner.params))
    grown = np.asarray(grow(trained, random(LARGE)).learner.params)
    np.testing.assert_array_equal(grown[:5], -state.learner.params)
    np.testing.assert_array_equal(grown[5:], jax.jit(random(LARGE).init)(jax.random.key(3)).learner.params[5:])


def test_what_was_kept_within_an_update_goes_on_in_larger_tables() -> None:
    """As where all of the stream's ids have room (`devices.tables=whole`), and the stream has grown since."""
    way = Alone(functools.cache(random), 3)
    small, large = way.at(SMALL), way.at(LARGE)
    state, beforehand = small.init(), large.init()
    kept = Kept(state, Best(state.learner, state.strategy), small.sums(state))
    found = way.put_together({0: kept}, LARGE)
    wanted = Kept(beforehand, Best(beforehand.learner, beforehand.strategy), large.sums(beforehand))
    lab.assert_same(found, wanted)
    assert way.put_together({0: wanted}, LARGE) is wanted


class Past:
    """A stream whose one user has had so many items."""

    def __init__(self, items: int) -> None:
        self.items = items

    def seen_by(self, _: Any, *, heldout: bool) -> Any:
        assert heldout
        return np.zeros(self.items, np.int32), np.zeros(1, np.int32), np.full(1, self.items, np.int32)


def test_what_rankings_leave_out_has_few_lengths() -> None:
    """Or each short increment with another longest past would compile a ranking of its own."""
    windows = {n: len(Feed(cast(Any, Past(n))).seen(cast(Any, range(1)), heldout=True).window) for n in range(1, 200)}
    assert all(windows[n] >= n for n in windows)
    assert {*windows.values()} == {64, 128, 256}
