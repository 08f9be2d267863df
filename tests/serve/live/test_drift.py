"""Detectors of drift: those of `river`, number by number, and alarms where a law changes only."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from river import drift as river

from incremental.serve.live.drift import Detector, Make, adwin, page_hinkley


def stream(seed: int) -> np.ndarray:
    """Of laws that change at 700 (a fall), at 1,300 (a rise), and slowly after 2,000."""
    draws = np.random.default_rng(seed)
    mean = np.concatenate([np.full(700, 0.6), np.full(600, 0.2), np.full(700, 0.7), np.linspace(0.7, 0.1, 1000)])
    return (draws.random(len(mean)) < mean).astype(float) * draws.choice([1.0, 0.5, 0.63], len(mean))


def alarms(make: Make, values: np.ndarray) -> Iterator[int]:
    """Where they are; after each a new detector begins."""
    detector = make()
    for place, x in enumerate(values):
        if detector.update(float(x)):
            yield place
            detector = make()


def theirs(detector: Any, values: np.ndarray) -> Iterator[int]:
    for place, x in enumerate(values):
        detector.update(float(x))
        if detector.drift_detected:
            yield place


PAIRS: dict[str, tuple[Make, Callable[[], Any]]] = {
    "page_hinkley": (
        page_hinkley(delta=0.01, threshold=8.0, alpha=0.999, least=20),
        functools.partial(river.PageHinkley, 20, 0.01, 8.0, 0.999, "down"),
    ),
    "adwin": (adwin(delta=0.01, clock=16), functools.partial(river.ADWIN, delta=0.01, clock=16)),
    "adwin of few buckets": (
        adwin(delta=0.3, clock=1, buckets=2, least=3, grace=20),
        functools.partial(river.ADWIN, delta=0.3, clock=1, max_buckets=2, min_window_length=3, grace_period=20),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_alarms_are_those_of_river(name: str) -> None:
    make, other = PAIRS[name]
    found = {seed: [*alarms(make, stream(seed))] for seed in range(5)}
    assert found == {seed: [*theirs(other(), stream(seed))] for seed in range(5)}
    assert all(found.values())


def test_page_hinkley_by_hand() -> None:
    """x = 1, 1, 0 with δ = 0 and α = 1/2: m̄ = 1, 1, 2/3; S = 0, 0, -2/3; M = 0."""
    detector = page_hinkley(delta=0.0, threshold=0.6, alpha=0.5, least=3)()
    assert [detector.update(x) for x in (1.0, 1.0, 0.0)] == [False, False, True]
    assert detector.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("make", [page_hinkley(), adwin()])
def test_nothing_is_said_of_a_law_that_stays(make: Make) -> None:
    quiet = np.random.default_rng(0).choice([0.0, 0.4, 1.0], 4000, p=[0.7, 0.2, 0.1])
    assert [*alarms(make, quiet)] == []
    detector: Detector = make()
    for x in quiet[:320]:
        detector.update(float(x))
    assert detector.value < detector.limit


@pytest.mark.parametrize("make", [page_hinkley(), adwin()])
def test_a_fall_is_found_and_its_value_is_above_the_limit(make: Make) -> None:
    detector = make()
    assert not any(detector.update(0.5 + 0.1 * (i % 2)) for i in range(500))
    assert any(detector.update(0.1) for _ in range(200))
    assert detector.value > detector.limit
