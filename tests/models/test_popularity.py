from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.spec import Sizes, next_item
from incremental.core.types import Data
from incremental.models.popularity import popularity

SIZES = Sizes(item=8, user=4)
INCREMENTS = [[1, 1, 2, 3, 3, 3], [2, 2, 4], [1, 4, 4, 4, 4]]
KNOWN: Any = np.ones(1, np.int32)
DECAYS: Any = np.array([0.0, 0.5, 0.9, 1.0], np.float32)


def data(t: int) -> Data:
    """Increment t's events, with padding behind."""
    items = np.pad(np.array(INCREMENTS[t], np.int32), (0, 8 - len(INCREMENTS[t])))
    fields: list[Any] = [None, np.int32(1), np.int32(t), items, {"user": np.minimum(items, 1)}]
    return Data(*fields)


@jax.jit
@jax.vmap
def scores(decay: Any) -> Any:
    """[T, V]: the scores for a known user after each increment, with a decay that is traced."""
    program = popularity(decay=decay).program(next_item(8), SIZES, ())
    state = program.init(jax.random.key(0))
    after = []
    for t in range(len(INCREMENTS)):
        state = program.begin(state, data(t))
        state, _ = program.run_epoch(state, data(t))
        state = program.end(state, data(t))
        after.append(program.scores(state, {"user": KNOWN})[0])
    return jax.numpy.stack(after)


@pytest.fixture(scope="module")
def computed() -> Any:
    return np.asarray(scores(DECAYS))


@pytest.mark.parametrize("case", range(len(DECAYS)))
def test_score_is_the_decayed_sum_of_the_increments_counts(computed: Any, case: int) -> None:
    counts = [np.bincount(items, minlength=SIZES.slots) for items in INCREMENTS]
    for now in range(len(INCREMENTS)):
        expected: Any = sum(float(DECAYS[case]) ** (now - t) * counts[t] for t in range(now + 1))
        seen = sum(counts[: now + 1]) > 0
        np.testing.assert_allclose(computed[case, now][seen], expected[seen], rtol=1e-6)


def test_padding_and_items_not_yet_seen_are_no_candidates(computed: Any) -> None:
    assert (computed[:, :, 0] == -np.inf).all()
    assert (computed[:, 0, 4] == -np.inf).all()
    assert (computed[:, 1, 4] >= 0).all()


def test_a_user_who_was_never_met_has_the_same_scores_as_others() -> None:
    """Not the undecayed number of events, which would be one ranking whatever the decay."""
    for decay in (0.0, 0.5):
        program = popularity(decay=decay).program(next_item(8), SIZES, ())
        state = program.init(jax.random.key(0))
        for t in range(len(INCREMENTS)):
            state = program.begin(state, data(t))
            state, _ = program.run_epoch(state, data(t))
        met, never = np.asarray(program.scores(state, {"user": np.array([1, 3], np.int32)}))  # type: ignore[dict-item]
        np.testing.assert_array_equal(never, met)
        assert never[4] == 4.0 + decay  # 4 events now, 1 before
