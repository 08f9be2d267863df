from typing import Any

import jax
import numpy as np
import pytest

from incremental.memory import herding

N, D, G = 60, 3, 6
RNG = np.random.default_rng(0)
VECTORS: Any = RNG.normal(size=(N, D)).astype(np.float32)
GROUPS: Any = np.append(RNG.integers(0, G - 1, N - 1), 1).astype(np.int32)  # group 5 has no row
SIZES = np.bincount(GROUPS, minlength=G)
QUOTA: Any = np.array([0, 1, 4, SIZES[3], SIZES[4] + 5, 2], np.int32)  # none, some, all, more than there are, no rows
herd = jax.jit(herding.herd)
highest = jax.jit(herding.highest)


def greedy(vectors: Any, number: int) -> list[int]:
    """Equation 4 of iCaRL, one group, one row at a time."""
    mean = vectors.astype(float).mean(0)
    chosen: list[int] = []
    for k in range(1, min(number, len(vectors)) + 1):
        gaps = {
            x: np.linalg.norm(mean - (vectors[chosen].sum(0) + vectors[x]) / k)
            for x in range(len(vectors))
            if x not in chosen
        }
        chosen.append(min(gaps, key=lambda x: gaps[x]))
    return chosen


def test_each_group_takes_what_it_would_alone() -> None:
    chosen = np.asarray(herd(VECTORS, GROUPS, QUOTA))
    for group in range(G):
        place = np.flatnonzero(group == GROUPS)
        expected = place[greedy(VECTORS[place], int(QUOTA[group]))] if len(place) else place
        assert np.flatnonzero(chosen & (group == GROUPS)).tolist() == sorted(expected)


def test_quotas_are_filled_and_never_exceeded() -> None:
    chosen = np.asarray(herd(VECTORS, GROUPS, QUOTA))
    np.testing.assert_array_equal(np.bincount(GROUPS[chosen], minlength=G), np.minimum(QUOTA, SIZES))


@pytest.mark.parametrize(("quota", "expected"), [(0, []), (1, [2]), (2, [1, 2]), (3, [1, 2, 3]), (4, [0, 1, 2, 3])])
def test_by_hand(quota: int, expected: list[int]) -> None:
    """0, 1, 2, 10 with mean 3.25: first 2, then (2 + 1) / 2, then (2 + 1 + 10) / 3."""
    vectors = np.array([[0.0], [1.0], [2.0], [10.0]], np.float32)
    chosen = herd(vectors, np.zeros(4, np.int32), np.array([quota], np.int32))
    assert np.flatnonzero(chosen).tolist() == expected


def test_of_equal_rows_each_is_taken_once() -> None:
    chosen = herd(np.ones((5, 2), np.float32), np.zeros(5, np.int32), np.array([3], np.int32))
    assert np.asarray(chosen).tolist() == [True, True, True, False, False]


def test_of_two_rows_the_first_one_is_taken_whatever_rounding_says() -> None:
    """Both are as far from their mean."""
    vectors: Any = np.random.default_rng(1).normal(size=(400, D)).astype(np.float32)
    chosen = herd(vectors, np.arange(400, dtype=np.int32) // 2, np.ones(200, np.int32))
    assert np.flatnonzero(chosen).tolist() == list(range(0, 400, 2))


def test_highest_takes_the_greatest_of_each_group() -> None:
    values: Any = VECTORS[:, 0]
    chosen = np.asarray(highest(values, GROUPS, QUOTA))
    for group in range(G):
        place = np.flatnonzero(group == GROUPS)
        expected = place[np.argsort(-values[place])][: QUOTA[group]]
        assert np.flatnonzero(chosen & (group == GROUPS)).tolist() == sorted(expected)
