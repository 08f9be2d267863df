import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.capacity import into_corner
from incremental.errors import UserError
from incremental.heads.adaptive_softmax import FORGETTING, ROWS, State, adaptive_softmax
from incremental.learner import make, training
from incremental.models.matrix_factorization import matrix_factorization
from incremental.problem import Head, problem
from incremental.strategies.ewc import ewc
from incremental.strategies.l2_to_last import l2_to_last
from incremental.strategies.lwf import lwf
from incremental.types import Batch, Catalogue, Data, Learner, Outputs, Params, Sizes, Step

V, D, B = 40, 12, 300
CUTOFFS = (6, 16)
NONE: Any = None
HIDDEN: Any = np.random.default_rng(0).normal(size=(B, D)).astype(np.float32)
SEEN: Any = (np.arange(V) > 0) & (np.arange(V) < 33) & (np.arange(V) != 9)


def events(seed: int) -> Any:
    return np.where(SEEN, np.random.default_rng(seed).permutation(V) + 5.0, 0.0).astype(np.float32)


@functools.cache
def head(shrink: int = 3) -> Head:
    return adaptive_softmax(cutoffs=CUTOFFS, shrink=shrink, limit=1.0)


TX = optax.adagrad(0.1, initial_accumulator_value=0.25)


def learner_of(own: Params, counts: Any, seen: Any = SEEN) -> Learner:
    params = {"head": own}
    catalogue = Catalogue(jnp.asarray(seen), jnp.asarray(counts, jnp.float32), NONE)
    return Learner(params, TX.init(params), catalogue, jnp.int32(0))


def arrivals(items: Any) -> Data:
    """Padded, so that one program serves all."""
    padded = np.zeros(2048, np.int32)
    padded[: len(items)] = items
    return Data(NONE, NONE, NONE, NONE, jnp.asarray(padded))


@functools.cache
def begin(shrink: int = 3) -> Any:
    strategy = head(shrink).strategy
    assert strategy is not None
    return jax.jit(strategy.begin)


@functools.cache
def started(shrink: int = 3, size: int = V) -> tuple[State, Learner]:
    """The first increment has begun, with every table at random values."""
    made, strategy = head(shrink), head(shrink).strategy
    assert strategy is not None
    assert made.init is not None
    own = made.init(jax.random.key(0), Sizes(size, 8), D)
    for name in ("bias", "cluster_bias"):  # by place, so that a larger catalogue begins with the same
        own[name] = jax.random.normal(jax.random.key(1), own[name].shape)
    pad = (0, size - V)
    counts, seen = np.pad(events(0), pad), np.pad(SEEN, pad)
    everything = np.repeat(np.arange(size), counts.astype(int))
    learner = learner_of(own, counts, seen)
    return begin(shrink)(strategy.init(learner), learner, arrivals(everything), NONE)


@functools.cache
def log_p_of(shrink: int = 3) -> Any:
    scores = head(shrink).scores
    assert scores is not None
    return jax.jit(lambda own, slots, hidden: scores({**own, "slots": slots}, hidden))


def log_p(state: State, learner: Learner, hidden: Any = HIDDEN, shrink: int = 3) -> Any:
    return np.asarray(log_p_of(shrink)(learner.params["head"], state.slots, hidden))


def rows_of(learner: Learner, state: State, item: Any) -> tuple[Any, float]:
    """An item's row and bias."""
    slot = int(state.slots.slot[item])
    k = int(np.digitize(slot, CUTOFFS))
    own = learner.params["head"]
    return np.asarray(own[f"rows_{k}"][slot - (0, *CUTOFFS)[k]]), float(own["bias"][slot])


def cluster(state: State) -> Any:
    return np.digitize(np.asarray(state.slots.slot), CUTOFFS)


# -- the softmax ------------------------------------------------------------------------------------------------------


def test_probabilities_of_the_seen_items_sum_to_one() -> None:
    p = np.exp(np.float64(log_p(*started())))
    np.testing.assert_allclose(p[:, SEEN].sum(1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(p[:, ~SEEN], 0.0)


def test_probability_is_the_written_formula() -> None:
    """In float64, item by item: short list with an entry a tail; inside a tail of its own."""
    state, learner = started()
    own = jax.tree.map(np.float64, learner.params["head"])
    hidden = np.float64(HIDDEN[0])
    edges, items = (0, *CUTOFFS, V), np.asarray(state.slots.item)
    bases = [np.eye(D), own["project_4"], own["project_1"]]
    inside = [[(i, hidden @ bases[k] @ own[f"rows_{k}"][s - edges[k]] + own["bias"][s])
               for s, i in enumerate(items) if edges[k] <= s < edges[k + 1] and SEEN[i]] for k in range(3)]  # fmt: skip
    entries = [hidden @ own["clusters"][k] + own["cluster_bias"][k] for k in range(2)]
    total = np.exp([score for _, score in inside[0]]).sum() + np.exp(entries).sum()
    expected = {i: score - np.log(total) for i, score in inside[0]}
    for k in (1, 2):
        within = np.log(np.exp([score for _, score in inside[k]]).sum())
        expected |= {i: entries[k - 1] - np.log(total) + score - within for i, score in inside[k]}
    found = log_p(state, learner)[0]
    assert sorted(expected) == list(np.flatnonzero(SEEN))
    np.testing.assert_allclose([found[i] for i in expected], list(expected.values()), rtol=1e-4, atol=1e-5)


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
    batch = Batch({}, labels, NONE, valid, NONE, SEEN)  # type: ignore[arg-type]
    made, scores = head(), head().scores
    assert scores is not None

    @jax.jit
    def both(own: Any, hidden: Any) -> Any:
        def gathered(own: Any, hidden: Any) -> Any:
            rows = made.loss({**own, "slots": state.slots}, Outputs(hidden, NONE), batch)
            return (slope * rows).sum(), rows

        def full(own: Any, hidden: Any) -> Any:
            rows = -scores({**own, "slots": state.slots}, hidden)[jnp.arange(B), labels]
            return (slope * rows).sum(), rows

        return [jax.grad(each, argnums=(0, 1), has_aux=True)(own, hidden) for each in (gathered, full)]

    (gradient, rows), (expected, expected_rows) = both(learner.params["head"], HIDDEN)
    np.testing.assert_allclose(rows[valid], expected_rows[valid], atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5), gradient, expected)


def test_candidates_are_all_that_enter_a_denominator() -> None:
    state, learner = started()
    candidates: Any = SEEN & (np.arange(V) % 3 > 0)
    labels = np.flatnonzero(candidates).astype(np.int32)
    few = state._replace(slots=state.slots._replace(live=candidates[np.asarray(state.slots.item)]))
    batch = Batch({}, labels, NONE, np.ones(len(labels), bool), NONE, candidates)  # type: ignore[arg-type]
    own = {**learner.params["head"], "slots": state.slots}
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
    made = adaptive_softmax(cutoffs=CUTOFFS, shrink=3, limit=0.0)
    assert made.init is not None
    assert made.strategy is not None
    learner = learner_of(made.init(jax.random.key(0), Sizes(V, 8), D), events(0))
    everything = np.repeat(np.arange(V), events(0).astype(int))
    ends = begin()(made.strategy.init(learner), learner, arrivals(everything), NONE)
    share = events(0) / events(0).sum()
    np.testing.assert_allclose(np.exp(log_p(*ends)), np.broadcast_to(share, (B, V)), rtol=1e-4, atol=1e-7)


def test_a_new_item_starts_with_its_share_of_the_clusters_events() -> None:
    """At the mean hidden vector; the known ones make room for it within the short list's normaliser only."""
    state, learner = started()
    state = state._replace(hidden=jnp.asarray(HIDDEN[0]))
    counts: Any = events(0)
    counts[[33, 35]] = 7.0, 2.0
    learner = learner._replace(catalogue=Catalogue(jnp.asarray(counts > 0), jnp.asarray(counts), NONE))
    later, after = begin()(state, learner, arrivals([33] * 7 + [35] * 2), NONE)
    old, p = (np.exp(np.float64(log_p(tree, own, HIDDEN[:1])))[0] for tree, own in ((state, learner), (later, after)))
    last = (cluster(later) == 2) & (counts > 0)
    np.testing.assert_allclose(p[[33, 35]] / p[last].sum(), np.array([7.0, 2.0]) / counts[last].sum(), rtol=1e-3)
    ratio = p[SEEN] / old[SEEN]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


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


def test_rows_go_with_their_items() -> None:
    """As they are within a cluster and, at equal widths, between clusters."""
    for shrink in (1, 3):
        state, learner, later, after = rebucketed(shrink)
        same = cluster(state) == cluster(later)
        assert (same & SEEN).any()
        for item in np.flatnonzero(SEEN & (same | (shrink == 1))):
            np.testing.assert_array_equal(rows_of(after, later, item)[0], rows_of(learner, state, item)[0])


def test_a_row_of_another_width_is_the_least_squares_fit() -> None:
    state, learner, later, after = rebucketed()
    own = jax.tree.map(np.float64, learner.params["head"])
    mean, bases = np.float64(HIDDEN[0]), [np.eye(D), own["project_4"], own["project_1"]]
    edges = (0, *CUTOFFS, V)
    offsets = [np.zeros(D)]
    for k in (1, 2):
        live = np.asarray(state.slots.live)[edges[k] : edges[k + 1]]
        rows = own[f"rows_{k}"][live]
        p = np.exp(mean @ bases[k] @ rows.T + own["bias"][edges[k] : edges[k + 1]][live])
        offsets.append(own["clusters"][k - 1] - bases[k] @ (p @ rows) / p.sum())
    checked = 0
    for item in np.flatnonzero(SEEN & (cluster(state) != cluster(later))):
        j, k = cluster(state)[item], cluster(later)[item]
        wanted = bases[j] @ rows_of(learner, state, item)[0] + offsets[j] - offsets[k]
        fit = np.linalg.lstsq(bases[k], wanted, rcond=None)[0]
        np.testing.assert_allclose(rows_of(after, later, item)[0], fit, atol=1e-4)
        checked += 1
    assert checked > 10


def test_moments_move_with_a_row_and_start_anew_at_another_width() -> None:
    state, learner = started()

    def numbered(leaf: Any) -> Any:  # each row another number; that of the padding id as the optimizer made it
        return leaf + 1.0 + jnp.arange(len(leaf), dtype=jnp.float32).reshape(-1, *(1,) * (leaf.ndim - 1))

    found: Any = jax.tree.map(numbered, learner.opt_state)
    slot = int(state.slots.slot[0])
    k = int(np.digitize(slot, CUTOFFS))
    moments = found[0].sum_of_squares["head"]
    moments[f"rows_{k}"] = moments[f"rows_{k}"].at[slot - (0, *CUTOFFS)[k]].set(0.25)
    before = jax.tree.map(np.asarray, moments)
    learner = learner._replace(opt_state=found, catalogue=Catalogue(jnp.asarray(SEEN), jnp.asarray(events(1)), NONE))
    later, after = begin()(state, learner, arrivals(np.flatnonzero(SEEN)), NONE)
    now: Any = after.opt_state
    now = now[0].sum_of_squares["head"]
    old, new, first = cluster(state), cluster(later), (0, *CUTOFFS)
    for item in np.flatnonzero(SEEN):
        a, b = int(state.slots.slot[item]), int(later.slots.slot[item])
        row = np.asarray(now[f"rows_{new[item]}"][b - first[new[item]]])
        kept = before[f"rows_{old[item]}"][a - first[old[item]]]
        np.testing.assert_array_equal(row, kept if old[item] == new[item] else 0.25)
        assert now["bias"][b] == before["bias"][a]
    np.testing.assert_array_equal(now["clusters"], before["clusters"])


def test_mean_hidden_vector_follows_the_valid_rows() -> None:
    strategy = head().strategy
    assert strategy is not None
    state, _ = started()
    valid: Any = np.arange(B) < 10
    step = Step(Batch({}, NONE, NONE, valid, NONE), NONE, Outputs(HIDDEN, NONE), *[NONE] * 5)
    found = jax.jit(strategy.record)(state, step, NONE)
    expected = state.hidden + FORGETTING * (HIDDEN[:10].mean(0) - state.hidden)
    np.testing.assert_allclose(found.hidden, expected, rtol=1e-5, atol=1e-7)


def test_grown_is_allocated_beforehand() -> None:
    """Only the last tail grows; ids beyond the old capacity come behind all others."""
    large = 48
    (state, learner), (whole, whole_learner) = started(), started(3, large)
    np.testing.assert_allclose(log_p(whole, whole_learner)[:, :V], log_p(state, learner), atol=1e-6)
    made, strategy = head(), head().strategy
    assert strategy is not None
    assert made.init is not None
    own = {**made.init(jax.random.key(0), Sizes(large, 8), D)}
    own["bias"] = jax.random.normal(jax.random.key(1), own["bias"].shape)
    new = learner_of(own, jnp.zeros(large), jnp.zeros(large, bool))
    grown = jax.tree.map(into_corner, (strategy.init(new), own), (state, learner.params["head"]))
    counts: Any = np.pad(events(1), (0, large - V))
    counts[[34, 45]] = 3.0
    data = arrivals(np.repeat([34, 45, 1], 3))
    ends = []
    for before, tables in ((whole, whole_learner.params["head"]), grown):
        ends.append(begin()(before, learner_of(tables, counts, counts > 0), data, NONE))
    np.testing.assert_allclose(log_p(*ends[1]), log_p(*ends[0]), atol=1e-5)


@pytest.mark.slow
def test_a_catalogue_smaller_than_the_cutoffs_has_empty_tails() -> None:
    made = adaptive_softmax(cutoffs=(6, 100))
    assert made.init is not None
    assert made.scores is not None
    assert made.strategy is not None
    learner = learner_of(made.init(jax.random.key(0), Sizes(V, 8), D), events(0))
    everything = np.repeat(np.arange(V), events(0).astype(int))
    state, after = jax.jit(made.strategy.begin)(made.strategy.init(learner), learner, arrivals(everything), NONE)
    own = {**after.params["head"], "slots": state.slots}
    p = np.exp(np.float64(jax.jit(made.scores)(own, HIDDEN)))
    np.testing.assert_allclose(p[:, SEEN].sum(1), 1.0, atol=1e-5)


# -- combinations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [ewc, l2_to_last, lwf])
def test_strategies_that_copy_the_head_are_refused(part: Any) -> None:
    sizes = Sizes(V, 8)
    own = problem(matrix_factorization(width=D), head(), sizes, 4)
    program = make(own, optax.sgd(0.1), {"it": part(own)}, sizes=sizes, training=training(batch_size=4, epochs=1))
    with pytest.raises(UserError, match=r"strategies\.it keeps.*head/.*full_softmax"):
        jax.eval_shape(program.init, jax.eval_shape(lambda: jax.random.key(0)))


def test_the_loss_without_the_slots_is_refused() -> None:
    own = problem(matrix_factorization(width=D), head(), Sizes(V, 8), 4)
    params = jax.eval_shape(own.init, jax.eval_shape(lambda: jax.random.key(0)))
    assert set(own.tables) == {"user/embedding", "item_bias"}  # the model's item rows would serve nothing
    with pytest.raises(UserError, match=r"head=adaptive_softmax.*EWC"):
        jax.eval_shape(own.loss, params, Outputs(HIDDEN, NONE), Batch({}, NONE, NONE, NONE, NONE))


@pytest.mark.parametrize(("keys", "said"), [({"cutoffs": (8, 8)}, "rising"), ({"shrink": 0}, "shrink=0")])
def test_impossible_settings_are_refused_by_name(keys: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        adaptive_softmax(**keys)
