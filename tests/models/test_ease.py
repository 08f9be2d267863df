from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.spec import Sizes, next_item
from incremental.errors import UserError
from incremental.models.ease import ease
from tests.models.sessions import Event, Made, drawn, had, updates

SIZES = Sizes(item=12, user=40)
PENALTY = 2.0
LENGTH = 16  # L


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
    """Users come back, with items that they had and new ones; one comes once, with more events than a history holds."""
    increments = drawn(np.random.default_rng(0), users=30, items=12, events=90)
    increments[1] += [(30, 1 + n % 9) for n in range(LENGTH + 10)]
    assert np.bincount([user for part in increments[:2] for user, _ in part])[:30].max() <= LENGTH
    state = made.trained(increments)
    weights = fitted(increments)
    np.testing.assert_allclose(state.learner.params["weights"][1:, 1:], weights[1:, 1:], atol=2e-6)
    scores = made.scores(state, [[3, 7, 3]])
    np.testing.assert_allclose(scores[0, 1:], (weights[3] + weights[7])[1:], atol=4e-6)


def test_new_events_of_a_users_first_time_are_new_though_they_are_no_examples(made: Made) -> None:
    """A cut divides the user's first day: items 1 | 2, 3, of which 1 and 2 are of one time, so that 2 has no past."""
    increments = [[(1, 1), (2, 1), (2, 3)], [(1, 2), (1, 3)]]
    before, data = updates(increments, length=LENGTH, room=128)
    rows = jax.tree.map(lambda leaf: np.roll(leaf, -1, 0), data.rows)
    state = made.update(made.init(jax.random.key(0)), before)
    state = made.update(state, data._replace(rows=rows, size=jnp.int32(1)))
    np.testing.assert_allclose(state.learner.params["weights"][1:, 1:], fitted(increments)[1:, 1:], atol=2e-6)


def test_a_catalogue_too_large_is_refused(documented: Any) -> None:
    with pytest.raises(UserError, match=r"20000 items make a matrix of 400000000 cells.* 3.2 GB") as error:
        ease().program(next_item(8), Sizes(item=20_000, user=8), ())
    documented("a catalogue too large for a matrix of all pairs of items", error.value)


def test_packed_lanes_are_runs_alone(made: Made) -> None:
    made.assert_packed_lanes_are_runs_alone()
