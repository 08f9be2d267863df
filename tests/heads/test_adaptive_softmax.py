import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core.gradient import make, training
from incremental.core.problem import Head, Items, problem
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs, Params, Step
from incremental.errors import UserError
from incremental.heads.adaptive_softmax import FORGETTING, ROWS, State, adaptive_softmax, arranged
from incremental.models.matrix_factorization import matrix_factorization
from incremental.run.capacity import into_corner
from incremental.strategies.ewc import ewc
from incremental.strategies.l2_to_last import l2_to_last
from incremental.strategies.lwf import lwf

V, D, B = 40, 12, 300
CUTOFFS = (6, 16)
NONE: Any = None
HIDDEN: Any = np.random.default_rng(0).normal(size=(B, D)).astype(np.float32)
SEEN: Any = (np.arange(V) > 0) & (np.arange(V) < 33) & (np.arange(V) != 9)


def events(seed: int) -> Any:
    return np.where(SEEN, np.random.default_rng(seed).permutation(V) + 5.0, 0.0).astype(np.float32)


@functools.cache
def head(shrink: int = 3) -> Head:
    return adaptive_softmax(cutoffs=CUTOFFS, shrink=shrink)


def table(size: int) -> Any:
    """The model's items; a larger catalogue begins with the same."""
    return np.random.default_rng(2).uniform(-1.0, 1.0, (64, D)).astype(np.float32)[:size]


def items(params: Params) -> Items:
    bias: Any = np.float32(0.1) * np.arange(len(params["table"]), dtype=np.float32) % np.float32(0.7)
    return Items(params["table"], bias)


def learner_of(own: Params, counts: Any, seen: Any = SEEN, rows: Any = None) -> Learner:
    params = {"head": own, "table": table(len(own["bias"])) if rows is None else rows}
    catalogue = Catalogue(jnp.asarray(seen), jnp.asarray(counts, jnp.float32), NONE)
    return Learner(params, NONE, catalogue, jnp.int32(0))


@functools.cache
def strategy_of(shrink: int = 3) -> Strategy:
    tied = head(shrink).tied
    assert tied is not None
    return tied(items)


def own_of(learner: Learner) -> Params:
    """What the head scores with, but for the slots."""
    return {**learner.params["head"], "items": items(learner.params)}


def arrivals(items: Any) -> Data:
    """Padded, so that one program serves all."""
    padded = np.zeros(2048, np.int32)
    padded[: len(items)] = items
    return Data(NONE, NONE, NONE, jnp.asarray(padded), NONE)


@functools.cache
def begin(shrink: int = 3) -> Any:
    return jax.jit(strategy_of(shrink).begin)


@functools.cache
def fresh(size: int = V) -> Params:
    """The head's own parameters, as they start."""
    init = head().init
    assert init is not None
    own: Params = jax.jit(lambda key: init(key, Sizes(item=size, user=8), D))(jax.random.key(0))
    return own


def spread(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@functools.cache
def started(shrink: int = 3, size: int = V) -> tuple[State, Learner]:
    """The first increment has begun; then every parameter gets random values."""
    strategy, own = strategy_of(shrink), fresh(size)
    pad = (0, size - V)
    counts, seen = np.pad(events(0), pad), np.pad(SEEN, pad)
    everything = np.repeat(np.arange(size), counts.astype(int))
    learner = learner_of(own, counts, seen)
    state, learner = begin(shrink)(strategy.init(learner), learner, arrivals(everything), NONE)
    shapes = {"bias": (64,), "clusters": (2, D), "cluster_bias": (2,)}  # a larger catalogue begins with the same
    own = {name: spread(shape)[: len(own[name])] for name, shape in shapes.items()}
    return state, learner._replace(params={**learner.params, "head": own})


@functools.cache
def log_p_of(shrink: int = 3) -> Any:
    scores = head(shrink).scores
    assert scores is not None
    return jax.jit(lambda own, slots, hidden: scores({**own, "slots": slots}, hidden))


def log_p(state: State, learner: Learner, hidden: Any = HIDDEN, shrink: int = 3) -> Any:
    return np.asarray(log_p_of(shrink)(own_of(learner), state.slots, hidden))


def cluster(state: State) -> Any:
    return np.digitize(np.asarray(state.slots.slot), CUTOFFS)


# -- the softmax ------------------------------------------------------------------------------------------------------


def test_probabilities_of_the_seen_items_sum_to_one() -> None:
    p = np.exp(np.float64(log_p(*started())))
    np.testing.assert_allclose(p[:, SEEN].sum(1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(p[:, ~SEEN], 0.0)


def test_probability_is_the_written_formula() -> None:
    """In float64, item by item: short list with an entry a tail; inside a tail the first coordinates."""
    state, learner = started()
    own, hidden = jax.tree.map(np.float64, learner.params["head"]), np.asarray(HIDDEN[0], np.float64)
    rows, bias = (np.asarray(each, np.float64) for each in items(learner.params))
    bias = bias + own["bias"]
    edges, of = (0, *CUTOFFS, V), np.asarray(state.slots.item)
    inside = [[(i, hidden[:width] @ rows[i, :width] + bias[i])
               for i in of[edges[k] : edges[k + 1]] if SEEN[i]] for k, width in enumerate((12, 4, 1))]  # fmt: skip
    entries = [hidden @ own["clusters"][k] + own["cluster_bias"][k] for k in range(2)]
    total = np.exp([score for _, score in inside[0]]).sum() + np.exp(entries).sum()
    expected = {i: score - np.log(total) for i, score in inside[0]}
    for k in (1, 2):
        within = np.log(np.exp([score for _, score in inside[k]]).sum())
        expected |= {i: entries[k - 1] - np.log(total) + score - within for i, score in inside[k]}
    found = log_p(state, learner)[0]
    assert sorted(expected) == list(np.flatnonzero(SEEN))
    np.testing.assert_allclose([found[i] for i in expected], list(expected.values()), rtol=1e-4, atol=1e-5)


@jax.jit
def gathered_and_full(own: Any, hidden: Any, slots: Any, batch: Batch, slope: Any) -> Any:
    """The gradient and the rows of the loss, and those of the full softmax."""
    made, scores = head(), head().scores
    assert scores is not None

    def gathered(own: Any, hidden: Any) -> Any:
        rows = made.loss({**own, "slots": slots}, Outputs(hidden, NONE), batch)
        return (slope * rows).sum(), rows

    def full(own: Any, hidden: Any) -> Any:
        rows = -scores({**own, "slots": slots}, hidden)[jnp.arange(B), batch.labels]
        return (slope * rows).sum(), rows

    return [jax.grad(each, argnums=(0, 1), has_aux=True)(own, hidden) for each in (gathered, full)]


@pytest.mark.parametrize("seed", [0, 1])
def test_gathered_loss_and_gradient_are_the_full_ones(seed: int) -> None:
    """More rows than one round takes lie in the last tail; padding rows lie nowhere."""
    state, learner = started()
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.flatnonzero(cluster(state) * SEEN == 2), B).astype(np.int32)
    labels[:20] = rng.choice(np.flatnonzero(SEEN), 20)
    assert (cluster(state)[labels] == 2).sum() > 2 * ROWS
    valid: Any = np.arange(B) < B - 3
    slope = rng.normal(size=B).astype(np.float32) * valid
    batch = Batch({}, labels, NONE, valid, NONE, candidates=SEEN)  # type: ignore[arg-type]
    (gradient, rows), (expected, expected_rows) = gathered_and_full(own_of(learner), HIDDEN, state.slots, batch, slope)
    np.testing.assert_allclose(rows[valid], expected_rows[valid], atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5), gradient, expected)


def test_the_gradient_of_arranged_rows_is_that_of_plain_indexing() -> None:
    rng, edges, widths = np.random.default_rng(0), (0, 6, 16, 16, V), (D, 4, 2, 1)
    item = jnp.asarray(rng.permutation(V).astype(np.int32))
    slopes = [rng.normal(size=(b - a, width)) for a, b, width in zip(edges, edges[1:], widths, strict=False)]

    def plain(rows: Any) -> list[Any]:
        return [rows[item[a:b]][:, :width] for a, b, width in zip(edges, edges[1:], widths, strict=False)]

    def written_out(rows: Any) -> Any:
        return arranged(edges, widths, rows, item, jnp.argsort(item).astype(jnp.int32))

    def total(parts: Any) -> Any:
        return sum((part * slope).sum() for part, slope in zip(parts, slopes, strict=True))

    found, expected = (jax.jit(jax.grad(lambda rows, of=of: total(of(rows))))(table(V)) for of in (written_out, plain))
    np.testing.assert_array_equal(found, expected)


def test_candidates_are_all_that_enter_a_denominator() -> None:
    state, learner = started()
    candidates: Any = SEEN & (np.arange(V) % 3 > 0)
    labels = np.flatnonzero(candidates).astype(np.int32)
    few = state._replace(slots=state.slots._replace(live=candidates[np.asarray(state.slots.item)]))
    batch = Batch({}, labels, NONE, np.ones(len(labels), bool), NONE, candidates=candidates)  # type: ignore[arg-type]
    own = {**own_of(learner), "slots": state.slots}
    rows = jax.jit(head().loss)(own, Outputs(HIDDEN[: len(labels)], NONE), batch)
    expected = log_p(few, learner)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(rows, -expected, atol=1e-5)


# -- slots ------------------------------------------------------------------------------------------------------------


def test_the_first_increment_sorts_all_by_their_events() -> None:
    state, _ = started()
    order = np.asarray(state.slots.item)[: SEEN.sum()]
    assert list(order) == list(np.argsort(-events(0), kind="stable")[: SEEN.sum()])
    np.testing.assert_array_equal(np.asarray(state.slots.slot)[np.asarray(state.slots.item)[:V]], np.arange(V))


def test_later_known_items_are_sorted_anew_and_new_ones_come_last() -> None:
    state, learner = started()
    counts = events(1)
    new: Any = [33, 35]
    counts[new] = 900.0
    seen = SEEN | (counts > 0)
    learner = learner._replace(catalogue=Catalogue(jnp.asarray(seen), jnp.asarray(counts), NONE))
    data = arrivals(np.concatenate([np.repeat(new, 900), np.flatnonzero(SEEN)]))
    state, _ = begin()(state, learner, data, NONE)
    order = list(np.asarray(state.slots.item)[: seen.sum()])
    assert order == [*np.argsort(-events(1), kind="stable")[: SEEN.sum()], *new]
    np.testing.assert_array_equal(state.slots.live[: seen.sum()], True)
    assert not state.slots.live[seen.sum() :].any()
    # At the next start they are known.
    third, _ = begin()(state, learner, arrivals(np.flatnonzero(SEEN)), NONE)
    assert set(np.asarray(third.slots.item)[:2]) == set(new)


def test_the_start_is_the_items_share_of_the_events() -> None:
    """Rows of 0 leave the biases."""
    learner = learner_of(fresh(), events(0), rows=np.zeros((V, D), np.float32))
    everything = np.repeat(np.arange(V), events(0).astype(int))
    ends = begin()(strategy_of().init(learner), learner, arrivals(everything), NONE)
    share = events(0) / events(0).sum()
    np.testing.assert_allclose(np.exp(log_p(*ends)), np.broadcast_to(share, (B, V)), rtol=1e-4, atol=1e-7)


def test_a_new_item_starts_with_its_share_of_all_events() -> None:
    """At the mean hidden vector, where the known ones make room for it alike."""
    state, learner = started()
    state = state._replace(hidden=jnp.asarray(HIDDEN[0]))
    counts: Any = events(0)
    counts[[33, 35]] = 7.0, 2.0
    learner = learner._replace(catalogue=Catalogue(jnp.asarray(counts > 0), jnp.asarray(counts), NONE))
    later, after = begin()(state, learner, arrivals([33] * 7 + [35] * 2), NONE)
    old, p = (np.exp(np.float64(log_p(tree, own, HIDDEN[:1])))[0] for tree, own in ((state, learner), (later, after)))
    np.testing.assert_allclose(p[[33, 35]], np.array([7.0, 2.0]) / counts.sum(), rtol=1e-3)
    ratio = p[SEEN] / old[SEEN]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_a_candidate_without_an_event_is_new_with_one() -> None:
    """As all items of the data are with data.unseen_items=known, at each start; rows of 0 leave the biases."""
    counts: Any = np.where(np.arange(V) < 20, events(0), 0.0).astype(np.float32)
    learner = learner_of(fresh(), counts, seen=SEEN, rows=np.zeros((V, D), np.float32))
    state, share = strategy_of().init(learner), np.where(SEEN, np.maximum(counts, 1.0), 0.0)
    for new in (np.repeat(np.arange(V), counts.astype(int)), np.zeros(0, int)):
        state, learner = begin()(state, learner, arrivals(new), NONE)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learner.params))
        np.testing.assert_allclose(np.exp(log_p(state, learner)[0]), share / share.sum(), rtol=1e-3)
        assert set(np.asarray(state.slots.item)[: SEEN.sum()]) == set(np.flatnonzero(SEEN))


@functools.cache
def rebucketed(shrink: int = 3) -> tuple[State, Learner, State, Learner]:
    """Before and after the counts have changed; hidden vectors have a mean that is not 0."""
    state, learner = started(shrink)
    state = state._replace(hidden=jnp.asarray(HIDDEN[0]))
    learner = learner._replace(catalogue=Catalogue(jnp.asarray(SEEN), jnp.asarray(events(1)), NONE))
    return state, learner, *begin(shrink)(state, learner, arrivals(np.flatnonzero(SEEN)), NONE)


@pytest.mark.parametrize("shrink", [1, 3])
def test_at_the_mean_hidden_vector_no_probability_changes(shrink: int) -> None:
    state, learner, later, after = rebucketed(shrink)
    moved = cluster(state) != cluster(later)
    assert (moved & SEEN).sum() > 10
    old, new = (log_p(s, x, HIDDEN[:1], shrink)[0, SEEN] for s, x in ((state, learner), (later, after)))
    np.testing.assert_allclose(new, old, atol=2e-4)


def test_mean_hidden_vector_follows_the_valid_rows() -> None:
    state, _ = started()
    valid: Any = np.arange(B) < 10
    step = Step(Batch({}, NONE, NONE, valid, NONE), NONE, Outputs(HIDDEN, NONE), *[NONE] * 5)
    found = jax.jit(strategy_of().record)(state, step, NONE)
    expected = state.hidden + FORGETTING * (HIDDEN[:10].mean(0) - state.hidden)
    np.testing.assert_allclose(found.hidden, expected, rtol=1e-5, atol=1e-7)


def test_grown_is_allocated_beforehand() -> None:
    """Only the last tail grows; ids beyond the old capacity come behind all others."""
    large = 48
    (state, learner), (whole, whole_learner) = started(), started(3, large)
    np.testing.assert_allclose(log_p(whole, whole_learner)[:, :V], log_p(state, learner), atol=1e-6)
    own = {**fresh(large), "bias": jnp.asarray(spread((64,))[:large])}
    new = learner_of(own, np.zeros(large), np.zeros(large, bool))
    grown = jax.tree.map(into_corner, (strategy_of().init(new), own), (state, learner.params["head"]))
    counts: Any = np.pad(events(1), (0, large - V))
    counts[[34, 45]] = 3.0
    data = arrivals(np.repeat([34, 45, 1], 3))
    ends = []
    for before, tables in ((whole, whole_learner.params["head"]), grown):
        ends.append(begin()(before, learner_of(tables, counts, counts > 0), data, NONE))
    np.testing.assert_allclose(log_p(*ends[1]), log_p(*ends[0]), atol=1e-5)


def test_a_catalogue_smaller_than_the_cutoffs_has_empty_tails() -> None:
    made = adaptive_softmax(cutoffs=(6, 100, 200))
    assert made.init is not None
    assert made.tied is not None
    assert made.scores is not None
    learner = learner_of(made.init(jax.random.key(0), Sizes(item=V, user=8), D), events(0))
    everything = np.repeat(np.arange(V), events(0).astype(int))
    strategy = made.tied(items)
    state, after = jax.jit(strategy.begin)(strategy.init(learner), learner, arrivals(everything), NONE)
    own = {**own_of(after), "slots": state.slots}
    found = np.asarray(jax.jit(made.scores)(own, HIDDEN), np.float64)
    np.testing.assert_allclose(np.exp(found)[:, SEEN].sum(1), 1.0, atol=1e-5)
    labels = np.flatnonzero(SEEN).astype(np.int32)
    batch = Batch({}, labels, NONE, np.ones(len(labels), bool), NONE, candidates=SEEN)  # type: ignore[arg-type]
    rows = jax.jit(made.loss)(own, Outputs(HIDDEN[: len(labels)], NONE), batch)
    np.testing.assert_allclose(rows, -found[np.arange(len(labels)), labels], atol=1e-5)


# -- combinations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [ewc, l2_to_last, lwf])
def test_strategies_that_copy_the_head_are_refused(part: Any) -> None:
    sizes = Sizes(item=V, user=8)
    own = problem(matrix_factorization(width=D), head(), next_item(4), sizes)
    program = make(own, optax.sgd(0.1), {"it": part(own)}, sizes=sizes, training=training(batch_size=4, epochs=1))
    with pytest.raises(UserError, match=r"strategies\.it keeps.*head/.*full_softmax"):
        jax.eval_shape(program.init, jax.eval_shape(lambda: jax.random.key(0)))


def test_the_loss_without_the_slots_is_refused() -> None:
    own = problem(matrix_factorization(width=D), head(), next_item(4), Sizes(item=V, user=8))
    params = jax.eval_shape(own.init, jax.eval_shape(lambda: jax.random.key(0)))
    with pytest.raises(UserError, match=r"head=adaptive_softmax.*EWC"):
        jax.eval_shape(own.loss, params, Outputs(HIDDEN, NONE), Batch({}, NONE, NONE, NONE, NONE))


@pytest.mark.parametrize(("keys", "said"), [({"cutoffs": (8, 8)}, "rising"), ({"shrink": 0}, "shrink=0")])
def test_impossible_settings_are_refused_by_name(keys: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        adaptive_softmax(**keys)
