from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from incremental.core.spec import Sizes
from incremental.errors import UserError
from incremental.models.sequential_rules import sequential_rules
from tests.models.sessions import Event, Made, drawn

SIZES = Sizes(item=12, user=16)
STEPS, RULES = 3, 3


def expected(events: list[Event], last: int) -> np.ndarray:
    """The weights one by one, in float64; no two sums are equal but for rounding unless they are equal."""
    past: defaultdict[int, list[int]] = defaultdict(list)
    weights: defaultdict[int, float] = defaultdict(float)
    for user, label in events:
        for d, item in enumerate(past[user][: -STEPS - 1 : -1], 1):
            if item == last:
                weights[label] += 1 / d**2
        past[user].append(label)
    row = np.zeros(SIZES.slots)
    for item, weight in sorted(weights.items(), key=lambda pair: -round(pair[1], 9))[:RULES]:
        row[item] = weight
    return row


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(sequential_rules(steps=STEPS, rules=RULES, room=12), SIZES)


def test_one_session_by_hand(made: Made) -> None:
    """1 2 1 3 3: forward only, a fourth of the weight two events on, a ninth three on."""
    state = made.trained([[(5, 1), (5, 2), (5, 1), (5, 3), (5, 3)]])
    scores = made.scores(state, [[1], [2], [3]])
    np.testing.assert_allclose(scores[0, 1:4], [1 / 4, 1, 1 + 1 / 4 + 1 / 9], rtol=1e-6)
    np.testing.assert_allclose(scores[1, 1:4], [1, 0, 1 / 4 + 1 / 9], rtol=1e-6)
    np.testing.assert_allclose(scores[2, 1:4], [0, 0, 1], rtol=1e-6)


def test_updates_give_the_weights_of_all_events_at_once(made: Made) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        increments = drawn(rng, users=9, items=8, events=30)
        events = [event for part in increments for event in part]
        scores = made.scores(made.trained(increments), [[item] for item in range(1, 8)])
        for item, row in enumerate(scores, 1):
            np.testing.assert_allclose(row[1:8], expected(events, item)[1:8], rtol=1e-5)


def test_an_unknown_weighting_is_refused(documented: Any) -> None:
    with pytest.raises(UserError, match="expected quadratic or div") as error:
        sequential_rules(weighting="linear")  # type: ignore[arg-type]
    documented("a weighting of sequential rules that there is not", error.value)


def test_packed_lanes_are_runs_alone(made: Made) -> None:
    made.assert_packed_lanes_are_runs_alone()
