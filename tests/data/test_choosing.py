from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from incremental.data.choosing import Sample, first_of_each, share_of_each
from tests import lab


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.floats(0, 0.99), st.integers(0, 5))
def test_share_of_each_increment(counts: list[int], share: float, seed: int) -> None:
    increment = np.repeat(np.arange(len(counts) + 1), [1, *counts]).astype(np.int32)
    chosen = share_of_each(increment, share, seed, 1)
    for t, count in enumerate([1, *counts]):
        assert chosen[increment == t].sum() == round(count * share)
    for last in range(1, len(counts) + 1):
        short = increment[increment < last]
        np.testing.assert_array_equal(share_of_each(short, share, seed, 1), chosen[: len(short)])


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.integers(0, 1000))
@example([100], 290)  # 0.29 * 100 is less than 29
def test_first_of_each_increment(counts: list[int], thousandths: int) -> None:
    increment = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    chosen = first_of_each(increment, thousandths / 1000)
    for t, count in enumerate(counts):
        size = count * thousandths // 1000
        np.testing.assert_array_equal(chosen[increment == t], np.arange(count) < size)


def test_draws_are_uniform_and_their_own_for_seed_and_name() -> None:
    increment = np.repeat(np.arange(2), 20).astype(np.int32)
    draws = np.array([share_of_each(increment, 0.25, seed, 1) for seed in range(2000)])
    # Each of 40 places is chosen 500 ± 19 times (one standard deviation).
    assert np.abs(draws.sum(0) - 500).max() < 5 * 19.4
    assert len({draw.tobytes() for draw in draws[:50]}) == 50
    assert (share_of_each(increment, 0.25, 0, 1) != share_of_each(increment, 0.25, 0, 2)).any()
    assert (draws[0][:20] != draws[0][20:]).any()


def test_a_sample_of_tests_is_uniform_the_same_for_all_and_of_a_part_what_the_whole_has_of_it() -> None:
    tests = np.arange(100, 120, dtype=np.int32)
    drawn = Sample(5, seed=1).of(tests, 3, 100, 120)
    assert len(drawn) == 5
    np.testing.assert_array_equal(drawn, np.unique(drawn))
    np.testing.assert_array_equal(Sample(5, seed=1).of(tests, 3, 100, 120), drawn)
    np.testing.assert_array_equal(Sample(50).of(tests, 3, 100, 120), tests)
    kept = tests[::2]  # what a protocol leaves over
    assert {*drawn} & {*kept} <= {*Sample(5, seed=1).of(kept, 3, 100, 120)}
    draws = [Sample(5, seed).of(tests, t, 100, 120) for seed in range(200) for t in range(5)]
    counts = np.bincount(np.concatenate(draws) - 100, minlength=20)  # 250 expected of each, deviation about 13.7
    assert abs(counts - 250).max() < 70


def test_sampled_tests_are_some_of_all_tests_with_the_same_history() -> None:
    stream = lab.stream(heldout=0.2)
    known = {"item": np.ones(len(stream.labels), bool)}
    for heldout in (False, True):
        ask: dict[str, Any] = {"heldout": heldout, "trained_until": 0, "known": known, "inputs": ["history"]}
        every, some = stream.test_examples(1, **ask), stream.test_examples(1, **ask, sample=Sample(7))
        assert (every.of, some.of, len(some)) == (None, len(every), 7)
        place = np.searchsorted(every.event, some.event)
        np.testing.assert_array_equal(every.event[place], some.event)
        np.testing.assert_array_equal(every.past[place], some.past)
