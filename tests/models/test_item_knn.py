from typing import Any

import numpy as np
import pytest

from incremental.core.spec import Sizes
from incremental.models.item_knn import item_knn
from tests.models.sessions import Event, Made, drawn, had

SIZES = Sizes(item=12, user=40)
NEIGHBOURS, SHRINK = 3, 1.5


def likeness(increments: list[list[Event]]) -> Any:
    """sim [V, V] of all events at once, cut to the neighbours."""
    x = had(increments, SIZES)
    shared, found = x.T @ x, np.zeros((SIZES.slots, SIZES.slots))
    for i in range(SIZES.slots):
        row = shared[i] / (np.sqrt(shared[i, i] * np.diag(shared)) + SHRINK)
        row[i] = 0
        best = np.argsort(-np.round(row, 6), kind="stable")[:NEIGHBOURS]
        found[i, best] = row[best]
    return found


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(item_knn(neighbours=NEIGHBOURS, shrink=SHRINK), SIZES, length=4, room=128)


def test_three_users_by_hand(made: Made) -> None:
    """Item 1 had by users 1, 2, 3, item 2 by 1 and 2, item 3 by 3 (twice): n_12 = 2, n_13 = 1, n_23 = 0."""
    state = made.trained([[(1, 1), (2, 1), (3, 1), (1, 2)], [(3, 3), (2, 2), (3, 3)]])
    scores = made.scores(state, [[1], [2, 2], [3, 2]])[:, 1:4]
    one_two, one_three = 2 / (6**0.5 + SHRINK), 1 / (3**0.5 + SHRINK)
    np.testing.assert_allclose(scores[0], [0, one_two, one_three], rtol=1e-6)
    np.testing.assert_allclose(scores[1], [one_two, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores[2], [one_two + one_three, 0, 0], rtol=1e-6)


def test_updates_give_the_neighbours_of_all_events_at_once(made: Made) -> None:
    increments = drawn(np.random.default_rng(1), users=30, items=12, events=60)
    scores = made.scores(made.trained(increments), [[item] for item in range(1, 12)])
    np.testing.assert_allclose(scores[:, 1:], likeness(increments)[1:, 1:], atol=1e-5)


def test_packed_lanes_are_runs_alone(made: Made) -> None:
    made.assert_packed_lanes_are_runs_alone()
