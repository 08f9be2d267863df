from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from incremental.core.spec import Sizes
from incremental.models.vsknn import vsknn
from tests.models.sessions import Event, Made, drawn

SIZES = Sizes(item=12, user=20)
NEIGHBOURS, SAMPLE, IDF = 3, 5, 5.0


def expected(events: list[Event], prefix: list[int], asking: int = 0) -> Any:
    """The formula, session by session."""
    sessions: defaultdict[int, set[int]] = defaultdict(set)
    last, count = {}, np.zeros(SIZES.slots)
    for place, (user, item) in enumerate(events):
        sessions[user].add(item)
        last[user], count[item] = place, count[item] + 1
    weight = {item: (p / len(prefix)) ** 2 for p, item in enumerate(prefix, 1)}
    near = {item: len(prefix) - p for p, item in enumerate(prefix)}
    recent = sorted((user for user in sessions if user != asking), key=lambda user: -last[user])
    candidates = [user for user in recent if sessions[user] & {*prefix}][:SAMPLE]
    likeness = {user: sum(weight[i] for i in sessions[user] & {*prefix}) / len({*prefix}) for user in candidates}
    scores = np.zeros(SIZES.slots)
    for user in sorted(candidates, key=lambda user: -round(likeness[user], 9))[:NEIGHBOURS]:
        distance = min(near[item] for item in sessions[user] & {*prefix})
        for item in sessions[user]:
            scores[item] += likeness[user] / distance * (1 + IDF * np.log(len(sessions) / count[item]))
    return scores


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(vsknn(neighbours=NEIGHBOURS, sample=SAMPLE, idf=IDF, items=12), SIZES)


def test_two_sessions_by_hand(made: Made) -> None:
    """Sessions {1, 2} and {2, 3, 4}; asked 1 2: 1 weighs 1/4, 2 weighs 1, of two items."""
    state = made.trained([[(1, 1), (2, 2), (2, 3), (1, 2), (2, 4)]])
    scores = made.scores(state, [[1, 2], [1, 5]])[:, 1:5]
    once, twice = 1 + 5 * np.log(2), 1.0  # of 2 sessions: items of one event and of two
    np.testing.assert_allclose(scores[0], [0.625 * once, (0.625 + 0.5) * twice, 0.5 * once, 0.5 * once], rtol=1e-6)
    np.testing.assert_allclose(scores[1], [0.25 / 2 / 2 * once, 0.25 / 2 / 2 * twice, 0, 0], rtol=1e-6)


def test_updates_give_the_scores_of_all_sessions_at_once(made: Made) -> None:
    """With ties among sessions, more candidates than the sample, and more of these than neighbours."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        increments = drawn(rng, users=20, items=10, events=30, increments=2)
        events = [event for part in increments for event in part]
        prefixes = [rng.integers(1, 10, rng.integers(1, 6)).tolist() for _ in range(8)]
        asking = [0, 1, 2, 3, 4, 5, 6, 7]
        scores = made.scores(made.trained(increments), prefixes, asking)
        for prefix, user, row in zip(prefixes, asking, scores, strict=True):
            np.testing.assert_allclose(row[1:10], expected(events, prefix, user)[1:10], rtol=1e-5, atol=1e-6)


def test_a_session_keeps_its_last_new_items() -> None:
    """1 2 3 2 4 with room for two: 3 took the place of 1, the repeat renewed nothing, and 4 took the place of 2."""
    small = Made(vsknn(idf=0.0, items=2), SIZES)
    state = small.trained([[(1, 1), (1, 2), (1, 3)], [(1, 2), (1, 4)]])
    scores = small.scores(state, [[3], [1], [2]])[:, 1:5]
    np.testing.assert_allclose(scores, [[0, 0, 1, 1], [0] * 4, [0] * 4])


def test_packed_lanes_are_runs_alone(made: Made) -> None:
    made.assert_packed_lanes_are_runs_alone()
