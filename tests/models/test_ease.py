from typing import Any

import numpy as np
import pytest

from incremental.core.spec import Sizes, next_item
from incremental.errors import UserError
from incremental.models.ease import ease
from incremental.run.capacity import grow
from tests.models.sessions import Event, Made, drawn, had, updates

SIZES = Sizes(item=12, user=40)
PENALTY = 2.0
LENGTH = 4  # L


def fitted(increments: list[list[Event]]) -> Any:
    """B of all events at once, in float64."""
    x = had(increments, SIZES)
    inverse = np.linalg.inv(x.T @ x + PENALTY * np.eye(SIZES.slots))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(ease(penalty=PENALTY), SIZES, length=LENGTH, room=128)


def test_two_items_by_hand(made: Made) -> None:
    """Two users had 1, one of them 2: XᵀX + 2 I = [[4, 1], [1, 3]], its inverse [[3, -1], [-1, 4]] / 11."""
    state = made.trained([[(1, 1), (2, 1), (2, 2)]])
    scores = made.scores(state, [[1], [2], [1, 2]])
    np.testing.assert_allclose(scores[:, 1:3], [[0, 1 / 4], [1 / 3, 0], [1 / 3, 1 / 4]], rtol=1e-6)


def test_updates_give_the_model_of_all_events_at_once(made: Made) -> None:
    """Users come back with items that they had and new ones, most of them with more events than a history holds."""
    increments = drawn(np.random.default_rng(0), users=30, items=12, events=90)
    state = made.trained(increments)
    weights = fitted(increments)
    np.testing.assert_allclose(state.learner.params["weights"][1:, 1:], weights[1:, 1:], atol=2e-6)
    scores = made.scores(state, [[3, 7, 3]])
    np.testing.assert_allclose(scores[0, 1:], (weights[3] + weights[7])[1:], atol=4e-6)


def test_a_history_that_ends_early_leaves_all_pairs_counted(made: Made) -> None:
    """Without those of items that are in no history any more XᵀX has an eigenvalue below -2 here, and B is NaN."""
    parts = [range(1, 4), range(4, 7), range(7, 10), range(10, 12)]
    increments = [[(user, item) for item in part for user in range(1, 20)] for part in parts]
    state = made.trained(increments)
    np.testing.assert_allclose(state.learner.params["weights"][1:, 1:], fitted(increments)[1:, 1:], atol=2e-6)


def test_grown_tables_have_the_rows_of_before() -> None:
    """From 12 to 20 items, of which neither is a multiple of 8, the bits of a byte."""
    first, second = drawn(np.random.default_rng(1), users=30, items=12, events=90, increments=2)
    second += [(user, 19) for user in range(25, 45)]
    small, large = (
        Made(ease(penalty=PENALTY), SIZES, length=LENGTH, room=128),
        Made(ease(penalty=PENALTY), Sizes(item=20, user=50), length=LENGTH, room=128),
    )
    state = grow(small.trained([first]), large.program)
    _, data = updates([first, second], length=LENGTH, room=128)
    whole = large.trained([first, second]).learner.params
    for name, leaf in large.update(state, data).learner.params.items():
        np.testing.assert_array_equal(leaf, whole[name])


def test_a_catalogue_too_large_is_refused(documented: Any) -> None:
    with pytest.raises(UserError, match=r"20000 items make a matrix of 400000000 cells.* 3.2 GB") as error:
        ease().program(next_item(8), Sizes(item=20_000, user=8), ())
    documented("a catalogue too large for a matrix of all pairs of items", error.value)


def test_packed_lanes_are_runs_alone(made: Made) -> None:
    made.assert_packed_lanes_are_runs_alone()
