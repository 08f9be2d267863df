from collections import defaultdict
from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.pairs import absorbed, empty
from incremental.core.spec import Sizes
from incremental.core.types import Batch, Data
from incremental.errors import UserError
from incremental.models.association_rules import association_rules
from tests.models.sessions import Event, Made, drawn

SIZES = Sizes(item=12, user=16)
NONE: Any = None


def counts(events: list[Event]) -> dict[int, dict[int, float]]:
    """n(a, b), partners in the order of their first appearance."""
    past: defaultdict[int, list[int]] = defaultdict(list)
    found: defaultdict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
    for user, label in events:
        for item in past[user]:
            found[item][label] += 1
            found[label][item] += 1
        past[user].append(label)
    return {left: dict(partners) for left, partners in found.items()}


def expected(events: list[Event], last: int, rules: int) -> np.ndarray:
    partners = counts(events).get(last, {})
    row = np.zeros(SIZES.slots)
    for item, count in sorted(partners.items(), key=lambda pair: -pair[1])[:rules]:
        row[item] = count
    return row


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(association_rules(rules=3, room=12), SIZES, length=24)


def test_one_session_by_hand(made: Made) -> None:
    """1 2 1 3: the pairs 12 11 21 13 23 13, in both directions."""
    state = made.trained([[(5, 1), (5, 2), (5, 1), (5, 3)]])
    scores = made.scores(state, [[1], [2], [3], [9, 2]])
    assert scores[0, 1:4].tolist() == [2, 2, 2]
    assert scores[1, 1:4].tolist() == [2, 0, 1]
    assert scores[2, 1:4].tolist() == [2, 1, 0]
    assert scores[3].tolist() == scores[1].tolist()  # the last item alone counts
    assert (scores[:, 4:] == -np.inf).all()  # never seen


def test_updates_give_the_counts_of_all_events_at_once_and_ties_are_kept_in_order_of_appearance(made: Made) -> None:
    cut = 0
    for seed in range(4):
        increments = drawn(np.random.default_rng(seed), users=12, items=10, events=24)
        events = [event for part in increments for event in part]
        state = made.trained(increments)
        scores = made.scores(state, [[item] for item in range(1, 10)])
        for item, row in enumerate(scores, 1):
            seen = row > -np.inf
            np.testing.assert_array_equal(row[seen], expected(events, item, 3)[seen])
            border = sorted(counts(events).get(item, {}).values(), reverse=True)
            cut += len(border) > 3 and border[2] == border[3]
    assert cut > 10  # ties at the border


def test_with_too_little_room_the_heaviest_pairs_stay() -> None:
    """1 2 three times, then pairs that occur once: 7 distinct ones in room for 6."""
    small = Made(association_rules(rules=3, room=1), Sizes(item=6, user=16))
    sessions = [[1, 2], [1, 2], [1, 2], [3, 4], [4, 5], [5, 3]]
    state = small.trained([[(user, item) for item in session] for user, session in enumerate(sessions, 1)])
    scores = small.scores(state, [[item] for item in range(1, 6)])
    assert scores[0, 2] == scores[1, 1] == 3
    assert scores[2, 4] == scores[3, 3] == 1
    assert scores[3, 5] == scores[4, 4] == 1
    assert (scores[[2, 4], [5, 3]] == 0).all()
    assert int(state.learner.params["dropped"]) == 2  # 3 5 and 5 3


def test_pairs_that_an_earlier_block_of_an_update_dropped_are_reported() -> None:
    """Blocks of six: 3 4, 4 5, 5 3 fill the room, for 1 2 there is none, and the last block has 3 4 alone."""
    small = Made(association_rules(rules=3, room=1), Sizes(item=6, user=16))
    sessions = [[3, 4], [4, 5], [5, 3], [1, 2], *[[3, 4]] * 8]
    state = small.trained([[(user, item) for user, session in enumerate(sessions, 1) for item in session]])
    assert int(state.learner.params["dropped"]) == 2  # 1 2 and 2 1
    assert small.scores(state, [[3]])[0, 4] == 9


def test_packed_lanes_are_runs_alone(made: Made) -> None:
    made.assert_packed_lanes_are_runs_alone()


def test_more_pairs_than_can_be_numbered_are_refused() -> None:
    many: Any = jax.ShapeDtypeStruct((1 << 24,), np.int32)
    rows = Batch({"history": jax.ShapeDtypeStruct((1 << 24, 128), np.int32)}, many, many, many, many)
    one: Any = jax.ShapeDtypeStruct((), np.int32)
    data = Data(rows, one, one, many, {})
    with pytest.raises(UserError, match=r"model: 16,777,216 events with histories of 128 .*data\.history"):
        jax.eval_shape(lambda data: absorbed(empty(12), data, 128, NONE), data)
