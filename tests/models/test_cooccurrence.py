from collections import Counter
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Data
from incremental.errors import UserError
from incremental.models.cooccurrence import cooccurrence

SIZES = Sizes(item=9, user=3)
L, ROWS, WINDOW = 4, 12, 3
DECAY = 0.7
Counts = dict[tuple[int, int], float]


def data(rows: list[tuple[list[int], int]], increment: int) -> Data:
    """Examples (history, label), with rubbish in the padding rows."""
    history = np.full((ROWS, L), 5, np.int32)
    labels = np.full(ROWS, 6, np.int32)
    for i, (past, label) in enumerate(rows):
        history[i] = ([0] * L + past)[-L:]
        labels[i] = label
    items = np.arange(SIZES.slots, dtype=np.int32)
    fields: list[Any] = [labels, None, None, None]
    events: list[Any] = [np.int32(len(rows)), np.int32(increment), items, {"user": items}]
    return Data(Batch({"history": history}, *fields), *events)


def followers(increments: list[list[tuple[list[int], int]]], decay: float = DECAY, window: int = WINDOW) -> Counts:
    """What followed what, counted one by one."""
    counts: Counts = {}
    for rows in increments:
        counts = {pair: decay * weight for pair, weight in counts.items()}
        for past, label in rows:
            for p, item in enumerate(reversed(past[-window:]), 1):
                counts[item, label] = counts.get((item, label), 0.0) + 1.0 / p
    return counts


def some(rng: np.random.Generator) -> list[tuple[list[int], int]]:
    size = int(rng.integers(4, ROWS + 1))
    return [
        (rng.integers(1, SIZES.slots, rng.integers(1, L + 1)).tolist(), int(rng.integers(1, SIZES.slots)))
        for _ in range(size)
    ]


class Made:
    """The model with room for `neighbours`; increments are trained on one after the other."""

    def __init__(self, neighbours: int, window: int = WINDOW) -> None:
        program = cooccurrence(neighbours=neighbours, window=window, decay=DECAY).program(next_item(8), SIZES, ())
        self.init = jax.jit(program.init)
        self.scores = jax.jit(program.scores)
        self.update = jax.jit(lambda state, data: program.run_epoch(program.begin(state, data), data)[0])

    def trained(self, increments: list[list[tuple[list[int], int]]]) -> Any:
        state = self.init(jax.random.key(0))
        for t, rows in enumerate(increments):
            state = self.update(state, data(rows, t))
        return state

    @staticmethod
    def counts(state: Any) -> Counts:
        ids, weights = np.asarray(state.learner.params["ids"]), np.asarray(state.learner.params["weights"])
        pairs = [(i, int(j), float(w)) for i, row in enumerate(ids) for j, w in zip(row, weights[i], strict=True)]
        held = Counter((i, j) for i, j, _ in pairs if j)
        assert not held or max(held.values()) == 1  # no follower twice
        return {(i, j): w for i, j, w in pairs if j}


@pytest.fixture(scope="module")
def roomy() -> Made:
    return Made(SIZES.slots)


@pytest.fixture(scope="module")
def increments() -> list[list[tuple[list[int], int]]]:
    rng = np.random.default_rng(0)
    return [some(rng) for _ in range(3)]


def test_counts_are_exact_while_all_followers_fit(roomy: Made, increments: Any) -> None:
    state = roomy.trained(increments)
    assert Made.counts(state) == pytest.approx(followers(increments), rel=1e-5)


def test_a_window_longer_than_the_history_counts_no_item_again() -> None:
    rows = [([1, 2, 3, 4], 5), ([6], 7)]
    state = Made(SIZES.slots, window=L + 3).trained([rows])
    assert Made.counts(state) == pytest.approx(followers([rows], window=L + 3), rel=1e-5)


def test_score_weighs_each_recent_items_followers_by_its_place(roomy: Made, increments: Any) -> None:
    state, counts = roomy.trained(increments), followers(increments)
    histories = [[0, 0, 0, 3], [1, 2, 3, 4], [0, 7, 7, 2]]
    scores = roomy.scores(state, {"history": np.array(histories, np.int32)})
    for history, row in zip(histories, np.asarray(scores), strict=True):
        expected = np.zeros(SIZES.slots)
        for p, item in enumerate([item for item in reversed(history) if item][:WINDOW], 1):
            total = sum(weight for (first, _), weight in counts.items() if first == item)
            for (first, second), weight in counts.items():
                if first == item:
                    expected[second] += weight / total / p
        np.testing.assert_allclose(row[1:], expected[1:], rtol=1e-5, atol=1e-6)
        assert row[0] == -np.inf


@cache
def tight() -> Made:
    return Made(2)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_an_overflowing_count_is_at_most_too_high_by_the_lightest(seed: int) -> None:
    rows = [some(np.random.default_rng(seed))]
    state = tight().trained(rows)
    true, held = followers(rows), Made.counts(state)
    weights = np.asarray(state.learner.params["weights"])
    for (item, label), weight in held.items():
        least = weights[item].min()
        assert true.get((item, label), 0.0) - 1e-5 <= weight <= true.get((item, label), 0.0) + least + 1e-5
    for (item, label), weight in true.items():
        if (item, label) not in held:
            assert weight <= weights[item].min() + 1e-5
    for item in range(1, SIZES.slots):  # nothing is lost: what a dropped follower weighed, its successor carries
        total = sum(weight for (first, _), weight in true.items() if first == item)
        assert weights[item].sum() == pytest.approx(total, abs=1e-5)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="neighbours=0: expected a whole number >= 1"):
        cooccurrence(neighbours=0)
