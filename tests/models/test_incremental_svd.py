from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Data
from incremental.errors import UserError
from incremental.models.incremental_svd import incremental_svd

SIZES = Sizes(item=14, user=12)
E, BLOCK = 256, 3  # events of an increment, with padding; users of a block
NONE: Any = None


def data(counts: Any, t: int = 0) -> Data:
    """Events [users, items] times as often as counted, in no order."""
    pairs = np.argwhere(counts)
    pairs = np.repeat(pairs, counts[tuple(pairs.T)], 0)
    assert len(pairs) <= E
    pairs = np.random.default_rng(t).permutation(np.pad(pairs, [(0, E - len(pairs)), (0, 0)]))
    users, items = pairs.T.astype(np.int32)
    events: list[Any] = [np.int32(0), np.int32(t), items, {"user": users}]
    return Data(Batch(NONE, NONE, NONE, NONE, NONE), *events)


class Made:
    """The model at one rank; increments are trained on one after the other."""

    def __init__(self, rank: int) -> None:
        program = incremental_svd(rank=rank, users=BLOCK).program(next_item(8), SIZES, ())
        self.init = jax.jit(program.init)
        self.scores = jax.jit(program.scores)
        self.update = jax.jit(lambda state, data: program.run_epoch(program.begin(state, data), data)[0])

    def trained(self, increments: list[Any]) -> Any:
        state = self.init(jax.random.key(0))
        for t, counts in enumerate(increments):
            state = self.update(state, data(counts, t))
        return state


def parts(state: Any) -> Any:
    params = state.learner.params
    return tuple(np.asarray(params[name], np.float64) for name in ("left", "values", "right"))


def product(state: Any) -> Any:
    left, values, right = parts(state)
    return left * values @ right.T


@pytest.fixture(scope="module")
def whole() -> Made:
    return Made(12)


@pytest.fixture(scope="module")
def increments() -> list[Any]:
    """Three increments: users come back, users and items come new; user 11 and item 13 never come."""
    rng = np.random.default_rng(0)
    counts = [rng.poisson(0.6, (12, 14)) for _ in range(3)]
    for t, part in enumerate(counts):
        part[0], part[:, 0], part[11], part[:, 13] = 0, 0, 0, 0
        part[7 + 2 * t :] = 0
    return counts


def test_with_rank_enough_it_is_the_svd_of_the_whole_matrix(whole: Made, increments: Any) -> None:
    state = whole.trained(increments)
    total = sum(increments)
    np.testing.assert_allclose(product(state), total, atol=1e-4)
    left, values, right = parts(state)
    np.testing.assert_allclose(values, np.linalg.svd(total)[1], atol=1e-4)
    np.testing.assert_allclose(left.T @ left, np.eye(12), atol=1e-5)
    np.testing.assert_allclose(right.T @ right, np.eye(12), atol=1e-5)


def test_with_the_rank_of_a_low_rank_matrix_nothing_is_lost() -> None:
    """Users of three kinds, a kind's users alike up to a factor."""
    rng = np.random.default_rng(1)
    kinds = rng.poisson(1.0, (3, 14))
    kinds[:, 0] = 0
    total = np.zeros((12, 14), int)
    for user in range(1, 12):
        total[user] = kinds[user % 3] * (1 + user % 2)
    first, second = total.copy(), total.copy()
    first[6:], second[:6] = 0, 0
    state = Made(3).trained([first, second, first])
    np.testing.assert_allclose(product(state), first + total, atol=1e-4)


def test_one_block_from_nothing_is_cut_to_the_best_approximation(increments: Any) -> None:
    few = sum(increments).copy()
    few[1 + BLOCK :] = 0
    left, values, right = np.linalg.svd(few)
    np.testing.assert_allclose(product(Made(2).trained([few])), left[:, :2] * values[:2] @ right[:2], atol=1e-4)


def test_users_with_a_row_are_scored_by_it_and_others_folded_in(increments: Any) -> None:
    made = Made(4)
    state = made.trained(increments)
    users = np.array([3, 11, 0, 11, 3], np.int32)
    histories = np.array([[0, 1, 2], [0, 5, 7], [5, 5, 7], [0, 0, 0], [0, 0, 0]], np.int32)
    scores = np.asarray(made.scores(state, {"user": users, "history": histories}))
    seen = np.asarray(state.learner.catalogue.seen)
    assert (scores[:, ~seen] == -np.inf).all()
    right = parts(state)[2]
    expected = np.zeros((5, 14))
    expected[[0, 4]] = product(state)[3]
    expected[1] = (np.eye(14)[5] + np.eye(14)[7]) @ right @ right.T
    expected[2] = (2 * np.eye(14)[5] + np.eye(14)[7]) @ right @ right.T
    expected[3] = sum(increments).sum(0)  # nothing is known: events of each item
    np.testing.assert_allclose(scores[:, seen], expected[:, seen], atol=1e-4)


def test_folding_in_leaves_out_directions_that_no_event_gave(whole: Made, increments: Any) -> None:
    few = increments[1].copy()
    few[4:] = 0
    state = whole.trained([few])
    rank = np.linalg.matrix_rank(few)
    right = np.linalg.svd(few)[2][:rank]
    item = int(np.argmax(few.sum(0)))
    scores = whole.scores(state, {"user": np.array([9], np.int32), "history": np.array([[0, item]], np.int32)})
    seen = np.asarray(state.learner.catalogue.seen)
    np.testing.assert_allclose(np.asarray(scores)[0, seen], (right[:, item] @ right)[seen], atol=1e-4)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="rank=0: expected a whole number >= 1"):
        incremental_svd(rank=0)
    with pytest.raises(UserError, match=r"model.rank=13: .* 12 users and 14 items; choose"):
        incremental_svd(rank=13).program(next_item(8), SIZES, ())
