from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.errors import UserError
from incremental.heads.negatives import drawn
from incremental.types import Batch, Catalogue, Learner

NUMBER = 8192
SEEN: Any = np.array([0, 1, 1, 0, 1, 1, 1, 0, 0], bool)  # row 0 is padding
EVENTS: Any = np.array([0, 1, 5, 0, 20, 2, 60, 0, 0], np.float32)
NONE: Any = None
BATCH = Batch({}, NONE, NONE, NONE, NONE)


def learner(seen: Any, events: Any) -> Learner:
    return Learner({}, (), Catalogue(seen, events, seen), NONE)


@jax.jit
@jax.vmap
def draw(power: Any, seen: Any, events: Any, key: Any) -> Any:
    """Negatives, log_q and the state after `begin`, from a state that an earlier increment left."""
    strategy = drawn(NUMBER, power)
    earlier = learner(~seen, 1.0 + events)
    state, _ = strategy.begin(strategy.init(earlier), earlier, NONE, key)
    state, _ = strategy.begin(state, learner(seen, events), NONE, key)
    batch = strategy.batch(state, BATCH, key)
    return batch.negatives, batch.log_q


POWERS: Any = np.array([0.0, 0.75, 1.0], np.float32)


@pytest.fixture(scope="module")
def draws() -> Any:
    keys = jax.random.split(jax.random.key(3), len(POWERS))
    return [np.asarray(part) for part in draw(POWERS, np.stack([SEEN] * 3), np.stack([EVENTS] * 3), keys)]


def shares(power: float) -> Any:
    weight = np.where(SEEN, np.maximum(EVENTS, 1.0).astype(np.float64) ** power, 0.0)
    return weight / weight.sum()


@pytest.mark.parametrize(("case", "power"), list(enumerate(POWERS)))
def test_items_are_drawn_in_proportion_to_a_power_of_their_events(draws: Any, case: int, power: float) -> None:
    counts = np.bincount(draws[0][case], minlength=len(SEEN))
    expected = NUMBER * shares(float(power))
    assert stats.chisquare(counts[SEEN], expected[SEEN]).pvalue > 1e-4


def test_only_items_seen_so_far_are_drawn(draws: Any) -> None:
    assert SEEN[draws[0]].all()


@pytest.mark.parametrize(("case", "power"), list(enumerate(POWERS)))
def test_log_q_is_the_log_of_the_expected_number_of_draws(draws: Any, case: int, power: float) -> None:
    negatives, log_q = draws[0][case], draws[1][case]
    np.testing.assert_allclose(log_q, np.log(NUMBER * shares(float(power))[negatives]), rtol=1e-5)


def test_an_impossible_number_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"head\.negatives=0.*at least 1"):
        drawn(0, 0.0)
