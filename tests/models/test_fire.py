from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Data
from incremental.errors import UserError
from incremental.models.fire import fire, leading

SIZES = Sizes(item=9, user=7)
E, RANK, DECAY, PRINCIPAL = 48, 2, 0.6, 0.3
NONE: Any = None


def data(counts: Any, t: int) -> Data:
    """Events [users, items] times as often as counted, with padding."""
    pairs = np.argwhere(counts)
    pairs = np.repeat(pairs, counts[tuple(pairs.T)], 0)
    assert len(pairs) < E
    pairs = np.random.default_rng(t).permutation(np.pad(pairs, [(0, E - len(pairs)), (0, 0)]))
    users, items = pairs.T.astype(np.int32)
    events: list[Any] = [np.int32(0), np.int32(t), items, {"user": users}]
    return Data(Batch(NONE, NONE, NONE, NONE, NONE), *events)


@jax.jit
def update(state: Any, data: Any, decay: Any, principal: Any) -> Any:
    program = fire(decay=decay, principal=principal, rank=RANK).program(next_item(8), SIZES, ())
    return program.run_epoch(program.begin(state, data), data)[0]


PROGRAM = fire(rank=RANK).program(next_item(8), SIZES, ())
SCORES = jax.jit(PROGRAM.scores)


def trained(increments: list[Any], decay: float = DECAY, principal: float = PRINCIPAL) -> Any:
    state = jax.jit(PROGRAM.init)(jax.random.key(0))
    for t, counts in enumerate(increments):
        state = update(state, data(counts, t), np.float32(decay), np.float32(principal))
    return state


def filtered(increments: list[Any]) -> Any:
    """[V, V]: the filter, written out."""
    recent = np.zeros((7, 9))
    for counts in increments:
        recent = DECAY * recent + counts
    users, items = recent.sum(1), recent.sum(0)
    with np.errstate(divide="ignore"):
        d_users, d_items = (np.where(degree > 0, degree**-0.5, 0.0) for degree in (users, items))
    normal = d_users[:, None] * recent * d_items
    v = np.linalg.svd(normal)[2][:RANK].T
    return normal.T @ normal + PRINCIPAL * (np.diag(d_items) @ v @ v.T @ np.diag(np.sqrt(items)))


@pytest.fixture(scope="module")
def increments() -> list[Any]:
    """User 6 and item 8 never come, user 5 and item 7 in the second increment only."""
    rng = np.random.default_rng(0)
    counts = [rng.poisson(0.7, (7, 9)) for _ in range(2)]
    for part in counts:
        part[0], part[:, 0], part[6], part[:, 8] = 0, 0, 0, 0
    counts[0][5], counts[0][:, 7] = 0, 0
    assert counts[1][5].any()
    return counts


def test_scores_are_the_filtered_events(increments: Any) -> None:
    state = trained(increments)
    users = np.array([1, 2, 5], np.int32)
    scores = np.asarray(SCORES(state, {"user": users, "history": np.full((3, 2), 1, np.int32)}))
    expected = sum(increments)[users] @ filtered(increments)  # undecayed events, whatever the history
    seen = np.asarray(state.learner.catalogue.seen)
    assert seen.tolist() == [False] + [True] * 7 + [False]
    np.testing.assert_allclose(scores[:, seen], expected[:, seen], atol=1e-4)
    assert (scores[:, ~seen] == -np.inf).all()


def test_a_user_without_a_row_is_scored_by_the_history(increments: Any) -> None:
    state = trained(increments)
    histories = np.array([[0, 2], [3, 3], [0, 0]], np.int32)
    scores = np.asarray(SCORES(state, {"user": np.array([6, 0, 6], np.int32), "history": histories}))
    seen = np.asarray(state.learner.catalogue.seen)
    own = filtered(increments)
    np.testing.assert_allclose(scores[0, seen], own[2, seen], atol=1e-4)
    np.testing.assert_allclose(scores[1, seen], 2 * own[3, seen], atol=1e-4)
    np.testing.assert_allclose(scores[2, seen], sum(increments).sum(0)[seen])  # by popularity


def test_without_decay_two_increments_are_one(increments: Any) -> None:
    one, two = trained([sum(increments)], decay=1.0), trained(increments, decay=1.0)
    for name in ("events", "recent", "filter"):
        np.testing.assert_allclose(one.learner.params[name], two.learner.params[name], atol=1e-4)


def test_leading_vectors_are_those_of_the_decomposition() -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    gram = np.float32(turn * 0.8 ** np.arange(60) @ turn.T)
    v = np.asarray(jax.jit(lambda gram: leading(gram, 5))(gram))
    np.testing.assert_allclose(v @ v.T, turn[:, :5] @ turn[:, :5].T, atol=1e-3)
    thin = np.float32(turn[:, :3] @ turn[:, :3].T)
    v = np.asarray(jax.jit(lambda gram: leading(gram, 5))(thin))
    np.testing.assert_allclose(v @ v.T, thin, atol=1e-4)  # no vectors of eigenvalue 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"70 users and 9 items .* 630 cells, above model.limit=629; choose"):
        fire(rank=RANK, limit=629).program(next_item(8), Sizes(item=9, user=70), ())
    with pytest.raises(UserError, match=r"81 cells, above model.limit=80"):
        fire(rank=RANK, limit=80).program(next_item(8), SIZES, ())
    with pytest.raises(UserError, match="fire: rank=0: expected a whole number >= 1"):
        fire(rank=0)
    with pytest.raises(UserError, match=r"model\.rank=10: expected at most the number of items, 9"):
        fire(rank=10).program(next_item(8), SIZES, ())
