from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.core.ranking import at_once, label_rank, rankable, ranker, ranker_of_one, top_k
from incremental.core.spec import Input
from incremental.core.types import Batch, Catalogue, Data, Learner, Seen, State

N, V, W, LOG, CUTOFFS = 10, 7, 4, 12, (1, 3, 5)
NONE: Any = None
WHOLE = np.dtype(np.int32)
SPEC = {
    "user": Input((), WHOLE, "user"),
    "history": Input((2,), WHOLE, "item"),
    "category": Input((), WHOLE, "category"),
    "text": Input((2,), np.dtype(np.float32)),
}


def state(scores: Any, seen: Any = None, events: Any = None, users: Any = None) -> State:
    """A state whose parameters are the scores [N, V] of the rows."""
    seen = np.ones(scores.shape[1], bool) if seen is None else seen
    events = np.zeros(scores.shape[1], np.float32) if events is None else events
    users = np.ones(W, bool) if users is None else users
    return State(Learner(scores, NONE, Catalogue(seen, events, {"user": users}), NONE), NONE, NONE, NONE)


def data(labels: Any, size: int) -> Data:
    row = np.arange(len(labels), dtype=np.int32)
    count: Any = np.int32(size)
    return Data(Batch({"row": row}, labels, NONE, NONE, NONE), count, NONE, NONE, NONE)


def ranked(batch_size: int) -> Any:
    rank = ranker(lambda state, inputs: state.learner.params[inputs["row"]], batch_size=batch_size, cutoffs=CUTOFFS)
    return jax.jit(rank)


RANK = {size: ranked(size) for size in (4, N, 16)}  # does not divide N, is N, is larger


def brute_force(scores: Any, labels: Any, size: int, excluded: Any) -> tuple[Any, Any]:
    """Ranks [N] and recommended counts [K's, V], row by row."""
    ranks, counts = np.full(len(labels), np.inf), np.zeros((len(CUTOFFS), V), int)
    for n in range(size):
        gone = set(excluded[n]) - {labels[n]}
        candidates = [i for i in range(V) if scores[n, i] > -np.inf and i not in gone]
        if labels[n] in candidates:
            own = scores[n, labels[n]]
            higher = sum(scores[n, i] > own for i in candidates)
            equal = sum(scores[n, i] == own for i in candidates) - 1
            ranks[n] = higher + equal / 2
        best = sorted(candidates, key=lambda i: (-scores[n, i], i))
        for row, k in enumerate(CUTOFFS):
            for i in best[:k]:
                counts[row, i] += 1
    return ranks, counts


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, N), st.sampled_from(sorted(RANK)))
def test_ranks_and_recommendations_are_those_of_brute_force(seed: int, size: int, batch_size: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice([-np.inf, -1.0, 0.0, 1.0, 2.0, 3.0], (N, V)).astype(np.float32)
    scores[:, 0] = -np.inf  # padding
    labels = rng.integers(0, V + 4, N).astype(np.int32)
    log = rng.integers(1, V + 3, LOG).astype(np.int32)
    start, stop = np.sort(rng.integers(0, LOG + 1, (2, N)), axis=0).astype(np.int32)
    fields: list[Any] = [log, start, stop, np.arange(LOG, dtype=np.int32)]
    found = RANK[batch_size](state(scores), data(labels, size), Seen(*fields))
    ranks, counts = brute_force(scores, labels, size, [log[a:b] for a, b in zip(start, stop, strict=True)])
    np.testing.assert_array_equal(found.rank, ranks)
    np.testing.assert_array_equal(found.recommended, counts)


def test_lists_are_each_rows_first_items_and_change_nothing_else() -> None:
    def of(state: State, inputs: Any) -> Any:
        return state.learner.params[inputs["row"]]

    listing = jax.jit(ranker(of, batch_size=4, cutoffs=CUTOFFS, lists=True))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scores = rng.choice([-np.inf, -1.0, 0.0, 1.0], (N, V)).astype(np.float32)
        scores[:, 0] = -np.inf  # padding
        labels, size = rng.integers(0, V + 4, N).astype(np.int32), int(rng.integers(0, N + 1))
        own: Any = np.arange(N, dtype=np.int32)
        window: Any = np.arange(2, dtype=np.int32)
        given = state(scores), data(labels, size), Seen(own % V, own, np.minimum(own + 2, N), window)
        found, plain = listing(*given), RANK[4](*given)
        assert plain.lists is None
        jax.tree.map(np.testing.assert_array_equal, found._replace(lists=None), plain)
        expected = np.zeros((N, max(CUTOFFS)), int)
        for n in range(size):
            gone = {*(own % V)[n : n + 2].tolist()} - {labels[n]}
            candidates = [i for i in range(V) if scores[n, i] > -np.inf and i not in gone]
            best = sorted(candidates, key=lambda i: (-scores[n, i], i))[: max(CUTOFFS)]
            expected[n, : len(best)] = best
        np.testing.assert_array_equal(found.lists, expected)


@pytest.mark.parametrize("batch_size", sorted(RANK))
def test_without_seen_items_nothing_is_left_out(batch_size: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(N, V)).astype(np.float32)
    scores[:, 0] = -np.inf
    labels = rng.integers(1, V, N).astype(np.int32)
    found = RANK[batch_size](state(scores), data(labels, N), None)
    order = np.argsort(-scores, axis=1)
    np.testing.assert_array_equal(found.rank, [list(order[n]).index(labels[n]) for n in range(N)])
    for row, k in enumerate(CUTOFFS):
        np.testing.assert_array_equal(found.recommended[row], np.bincount(order[:, :k].ravel(), minlength=V))


def test_the_first_k_of_long_rows_are_those_of_one_step_ties_by_the_lower_item() -> None:
    rng = np.random.default_rng(0)
    one, two = jax.jit(jax.lax.top_k, static_argnums=1), jax.jit(top_k, static_argnums=1)
    for k in (1, 5):
        for values in ([0.0, 1.0], [-np.inf, 0.0], np.arange(50.0), rng.normal(size=3000)):
            scores = rng.choice(values, (7, 128 * 20)).astype(np.float32)
            scores[0] = -np.inf  # no candidate at all
            scores[1, :-3] = -np.inf  # fewer than k
            for found, expected in zip(two(scores, k), one(scores, k), strict=True):
                np.testing.assert_array_equal(found, expected)


def test_ranks_of_long_rows_count_every_item_once() -> None:
    rng = np.random.default_rng(0)
    scores = rng.choice([-np.inf, 0.0, 1.0, 2.0], (40, 192)).astype(np.float32)
    labels = rng.integers(0, 192, 40).astype(np.int32)
    own = scores[np.arange(40), labels][:, None]
    expected = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    expected = np.where(own[:, 0] > -np.inf, expected, np.inf)
    np.testing.assert_array_equal(jax.jit(label_rank)(scores, labels), expected)


@pytest.mark.parametrize("leaving_out", [False, True])
def test_scores_that_are_the_same_for_everyone_rank_as_one_by_one(leaving_out: bool) -> None:
    of_row: Any = np.arange(N, dtype=np.int32) % V
    window: Any = np.arange(2, dtype=np.int32)
    seen = Seen(of_row, of_row, of_row + 2, window) if leaving_out else None

    def everyone(state: State, inputs: Any) -> Any:
        values = jnp.where(state.learner.catalogue.seen, state.learner.params[0], -jnp.inf)
        return jnp.broadcast_to(values, (len(inputs["row"]), V))

    once, each = (
        jax.jit(made(everyone, batch_size=4, cutoffs=CUTOFFS, lists=True)) for made in (ranker_of_one, ranker)
    )
    rng = np.random.default_rng(0)
    for size in (0, 3, N):
        for _ in range(5):
            given = state(rng.choice([0.0, 1.0, 2.0], (1, V)).astype(np.float32), rng.random(V) < 0.7)
            listed: Any = rng.random(V) < 0.2
            rows = data(rng.integers(0, V + 3, N).astype(np.int32), size)._replace(listed=listed)
            jax.tree.map(np.testing.assert_array_equal, once(given, rows, seen), each(given, rows, seen))


def test_ties_count_half_and_labels_that_are_no_candidates_rank_last() -> None:
    scores = np.array([[2.0, 5.0, 5.0, 5.0, 1.0, -np.inf]], np.float32)
    labels = np.arange(8, dtype=np.int32)
    ranks = jax.jit(label_rank)(np.repeat(scores, 8, 0), labels)
    np.testing.assert_array_equal(ranks, [3.0, 1.0, 1.0, 1.0, 4.0, np.inf, np.inf, np.inf])
    assert ranks.dtype == np.float32


@pytest.fixture(scope="module")
def masked() -> Any:
    return jax.jit(rankable(lambda state, _inputs: state.learner.params, SPEC))


SEEN: Any = np.array([0, 1, 1, 1, 0, 1, 0], bool)
EVENTS: Any = np.array([0, 4, 9, 1, 0, 2, 0], np.float32)


def test_items_not_seen_are_no_candidates(masked: Any) -> None:
    raw = np.random.default_rng(0).normal(size=(2, V)).astype(np.float32)
    found = masked(state(raw, SEEN, EVENTS), {"user": np.array([1, 2], np.int32)})
    np.testing.assert_array_equal(found, np.where(SEEN, raw, -np.inf))


def test_unknown_users_and_empty_histories_fall_back_to_popularity(masked: Any) -> None:
    raw = np.full((4, V), 7.0, np.float32)
    users = np.array([False, True, False, True])
    popular = np.where(SEEN, EVENTS, -np.inf)
    own = np.where(SEEN, 7.0, -np.inf)
    rows = {"user": np.array([0, 1, 2, 3], np.int32)}
    np.testing.assert_array_equal(masked(state(raw, SEEN, EVENTS, users), rows), [popular, own, popular, own])
    rows = {"history": np.array([[0, 0], [0, 3], [0, 0], [2, 1]], np.int32)}
    np.testing.assert_array_equal(masked(state(raw, SEEN, EVENTS, users), rows), [popular, own, popular, own])


def test_a_list_of_any_kind_may_be_empty_and_single_ids_and_vectors_say_nothing_of_who_asks(masked: Any) -> None:
    raw = np.full((2, V), 7.0, np.float32)
    popular, own = np.where(SEEN, EVENTS, -np.inf), np.where(SEEN, 7.0, -np.inf)
    told = {"category": np.array([0, 3], np.int32), "text": np.zeros((2, 2), np.float32)}
    np.testing.assert_array_equal(masked(state(raw, SEEN, EVENTS), told), [own, own])
    both = {**told, "history": np.array([[0, 0], [0, 2]], np.int32)}
    np.testing.assert_array_equal(masked(state(raw, SEEN, EVENTS), both), [popular, own])


def test_a_raw_score_that_is_not_a_number_does_not_reach_an_unknown_user(masked: Any) -> None:
    raw = np.full((1, V), np.nan, np.float32)
    found = masked(state(raw, SEEN, EVENTS, np.zeros(W, bool)), {"user": np.array([3], np.int32)})
    np.testing.assert_array_equal(found, [np.where(SEEN, EVENTS, -np.inf)])


@pytest.mark.parametrize(
    ("slots", "most", "rows"),
    [(1000, 8, 256), (1 << 18, 8, 256), (1 + (1 << 18), 256, 224), (10**6, 256, 64), (10**6, 8, 8), (10**8, 256, 32)],
)
def test_a_batch_of_a_test_has_fewer_rows_where_their_scores_are_large(slots: int, most: int, rows: int) -> None:
    assert at_once(slots, most) == rows
