from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from incremental.core.types import Batch, Learner, Outputs, Problem, Step
from incremental.errors import UserError
from incremental.heads.full_softmax import cross_entropy
from incremental.strategies.sa_caisr import contrast, masked, sa_caisr
from incremental.testing import check_strategy

NONE: Any = None
B, V, D = 6, 5, 3
RNG = np.random.default_rng(0)
X: Any = RNG.normal(size=(B, D)).astype(np.float32)
OLD: Any = {"item": RNG.normal(size=(V, D)).astype(np.float32)}
NOW: Any = {"item": RNG.normal(size=(V, D)).astype(np.float32)}
CANDIDATES: Any = np.array([0, 1, 1, 1, 0], bool)
LABELS: Any = np.array([1, 2, 3, 1, 2, 3])
VALID: Any = np.array([1, 1, 1, 1, 1, 0], bool)
WEIGHT: Any = np.array([1.0, 2.0, 0.5, 1.0, 1.0, 9.0], np.float32)


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None  # no dropout
    return Outputs(inputs["x"], inputs["x"] @ params["item"].T)


def scores(params: Any, outputs: Outputs, rows: Any, items: Any) -> Any:
    return outputs.hidden[rows] @ params["item"][items].T


def entropy(_params: Any, outputs: Outputs, batch: Batch) -> Any:
    return cross_entropy(outputs, batch._replace(negatives=None, log_q=None))


PROBLEM = Problem(NONE, apply, entropy, NONE, {}, None, NONE, scores=scores)
ROWS = Batch({"x": jnp.array(X)}, LABELS, WEIGHT, jnp.array(VALID), NONE, candidates=jnp.array(CANDIDATES))
LEARNER = Learner(jax.tree.map(jnp.array, OLD), (), NONE, NONE)


def made(weight: Any = 4.0, over: Any = "known") -> Any:
    return sa_caisr(PROBLEM, weight=weight, negatives=3, temperature=0.5, over=over)


@jax.jit
def taught() -> Any:
    """After an increment that ended at OLD, at the next one's start."""
    state, _ = made().end(made().init(LEARNER), LEARNER, NONE, NONE)
    return made().begin(state, LEARNER, NONE, NONE)[0]


@jax.jit
def recorded(state: Any) -> Any:
    batch = made().batch(state, ROWS, jax.random.key(3))
    return made().record(state, Step(batch, NONE, NONE, NONE, NONE, NONE, NONE, NONE), NONE)


@jax.jit
def prepared(state: Any) -> Any:
    return made().prepare(state, LEARNER, NONE, NONE)


@jax.jit
def loss(state: Any, params: Any, weight: Any) -> Any:
    """The term, and its gradient."""
    batch = made().batch(state, ROWS, jax.random.key(3))

    def term(params: Any) -> Any:
        return made(weight).loss(state, params, batch, apply(params, batch.inputs))

    return jax.value_and_grad(term)(params)


def squared() -> Any:
    """g² of the old model's cross-entropy on the rows."""
    scores = np.where(CANDIDATES, np.asarray(X, np.float64) @ OLD["item"].T, -np.inf)
    p = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    p[np.arange(B), LABELS] -= 1
    share = WEIGHT * VALID / (WEIGHT * VALID).sum()
    return ((p * share[:, None]).T @ X) ** 2


def unit(rows: Any, times: Any) -> Any:
    """At length 1, where an item counts so many times."""
    rows = np.asarray(rows, np.float64) * np.sqrt(times)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected(params: Any, old: Any, negatives: int = 3, temperature: float = 0.5, times: Any = CANDIDATES) -> float:
    """C, row by row."""
    said, told = (unit(X @ np.asarray(of, np.float64).T, times) for of in (params, old))
    total = []
    for i in np.flatnonzero(VALID):
        others = sorted((said[i] @ told[j] / temperature for j in np.flatnonzero(VALID) if j != i), reverse=True)
        own = said[i] @ told[i] / temperature
        total.append(logsumexp([own, *others[:negatives]]) - own)
    return float(np.mean(total))


def test_importances_follow_the_old_models_gradient_and_fade_after_each_epoch() -> None:
    state, g2 = taught(), squared()
    assert g2.max() > 0.01
    first = recorded(prepared(state))
    np.testing.assert_allclose(first.importance["item"], 0.37 * g2, rtol=1e-4, atol=1e-8)
    second = recorded(first)
    np.testing.assert_allclose(second.importance["item"], (0.63 * 0.37 + 0.37) * g2, rtol=1e-4, atol=1e-8)
    third = recorded(prepared(second))  # the next epoch's first
    once_more = 0.63 * 0.9 * (0.63 * 0.37 + 0.37) + 0.37
    np.testing.assert_allclose(third.importance["item"], once_more * g2, rtol=1e-4, atol=1e-8)
    fresh, _ = jax.jit(lambda state: made().begin(state, LEARNER, NONE, NONE))(third)
    assert not np.asarray(fresh.importance["item"]).any()


def test_a_label_that_is_trained_on_is_a_candidate_of_the_gradient() -> None:
    """As one that a memory kept of an item that a fresh start forgot."""
    asked = jax.jit(lambda state, batch: made().batch(state, batch, jax.random.key(3)).memory.importance)
    forgotten = ROWS._replace(candidates=jnp.array(CANDIDATES).at[1].set(False))
    np.testing.assert_array_equal(asked(taught(), forgotten)["item"], asked(taught(), ROWS)["item"])


def test_weights_are_left_out_by_their_importance_and_the_mean_mask_is_1() -> None:
    f = {"item": jnp.array([[1.0, 3.0, 5.0]]), "bias": jnp.full(4, 2.0)}
    ones = jax.tree.map(jnp.ones_like, f)
    keys = jax.random.split(jax.random.key(0), 4000)
    masks = jax.jit(jax.vmap(lambda key: masked(ones, f, 0.8, key)))(keys)
    np.testing.assert_array_equal(masks["bias"], 1.0)  # all alike: none is left out
    item = np.asarray(masks["item"])[:, 0]
    np.testing.assert_allclose((item == 0).mean(0), [0.0, 0.4, 0.8], atol=0.03)
    np.testing.assert_allclose(item.mean(0), 1.0, atol=0.1)
    np.testing.assert_allclose(np.unique(item), [0.0, 1.0, 1 / 0.6, 1 / 0.2], rtol=1e-5)
    most = jax.jit(jax.vmap(lambda key: masked(ones, f, 1.0, key)))(keys)
    np.testing.assert_allclose(np.asarray(most["item"]).max(), 100.0, rtol=1e-4)  # p is 0.99 at most


@pytest.mark.parametrize("negatives", [2, 100])
def test_the_contrast_is_that_of_the_most_similar_rows(negatives: int) -> None:
    said, told = (X @ of["item"].T * CANDIDATES for of in (NOW, OLD))
    found = jax.jit(contrast, static_argnums=3)(said, told, VALID, negatives, 0.07)
    assert float(found) == pytest.approx(expected(NOW["item"], OLD["item"], negatives, 0.07), rel=1e-4)


def test_the_term_is_the_contrast_with_the_old_model_masked_by_this_batch_too() -> None:
    before = RNG.uniform(size=(V, D)) * squared().max()  # of earlier batches
    state = taught()._replace(importance={"item": jnp.asarray(before, jnp.float32)})
    importance = {"item": jnp.asarray(0.63 * before + 0.37 * squared(), jnp.float32)}
    old = jax.jit(masked)(OLD, importance, 0.8, jax.random.key(3))["item"]
    assert 0 < (np.asarray(old) == 0).sum() < old.size
    value, gradient = loss(state, NOW, np.float32(4.0))
    assert float(value) == pytest.approx(4.0 * expected(NOW["item"], old), rel=1e-4)
    step = 1e-5
    for place in ((1, 0), (2, 2), (3, 1)):  # finite differences
        ends = []
        for sign in (1, -1):
            moved = np.asarray(NOW["item"], np.float64).copy()
            moved[place] += sign * step
            ends.append(4.0 * expected(moved, old))
        assert float(gradient["item"][place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-4)
    assert not np.asarray(gradient["item"])[~CANDIDATES].any()


def test_over_drawn_items_each_product_is_estimated_by_what_a_draw_stands_for() -> None:
    """Item 1 is drawn twice, of which one does not count, item 3 once for every quarter of an expected draw."""
    items: Any = np.array([1, 2, 3, 1])
    log_q: Any = np.log(np.array([1.0, 2.0, 0.25, np.inf], np.float32))
    state = taught()
    importance = {"item": jnp.asarray(0.37 * squared(), jnp.float32)}
    old = jax.jit(masked)(OLD, importance, 0.8, jax.random.key(3))["item"]
    batch = made().batch(state, ROWS._replace(negatives=items, log_q=log_q), jax.random.key(3))

    @jax.jit
    def term(params: Any) -> Any:
        return made(over="drawn").loss(state, params, batch, apply(params, batch.inputs))

    times = np.array([0.0, 1.0, 0.5, 4.0, 0.0])
    assert float(term(NOW)) == pytest.approx(4.0 * expected(NOW["item"], old, times=times), rel=1e-4)
    assert abs(expected(NOW["item"], old, times=times) - expected(NOW["item"], old)) > 1e-3
    moved = {"item": NOW["item"] + np.array([[1], [0], [0], [0], [1]], np.float32)}  # no item that was drawn
    assert float(term(moved)) == float(term(NOW))


def test_rows_that_later_strategies_append_take_no_part() -> None:
    state = taught()
    batch = made().batch(state, ROWS, jax.random.key(3))
    longer = {name: jnp.concatenate([jnp.asarray(getattr(batch, name))] * 2) for name in ("labels", "weight", "valid")}
    joined = batch._replace(inputs={"x": jnp.concatenate([X, X + 1.0])}, **longer)

    @jax.jit
    def term(params: Any) -> Any:
        return made().loss(state, params, joined, apply(params, joined.inputs))

    assert float(term(NOW)) == pytest.approx(float(loss(state, NOW, np.float32(4.0))[0]), rel=1e-6)


def test_over_drawn_items_needs_a_head_that_draws_for_the_batch() -> None:
    state = taught()
    batch = made().batch(state, ROWS, jax.random.key(3))
    with pytest.raises(UserError, match=r"sa_caisr\.over=drawn: the head draws no negatives for a whole batch; choose"):
        made(over="drawn").loss(state, NOW, batch, apply(NOW, batch.inputs))
    with pytest.raises(UserError, match=r"strategies\.sa_caisr\.over='all': expected one of known, drawn"):
        made(over="all")


def test_weight_0_is_plain_fine_tuning() -> None:
    value, gradient = loss(taught(), NOW, np.float32(0.0))
    assert float(value) == 0.0
    assert not np.asarray(gradient["item"]).any()


def test_before_the_first_increments_end_there_is_no_old_model() -> None:
    value, _ = loss(jax.jit(lambda: made().init(LEARNER))(), NOW, np.float32(4.0))
    assert float(value) == 0.0


def test_a_row_without_scores_is_similar_to_none_and_asks_for_nothing() -> None:
    """Its length has no gradient; one that is only held finite would outweigh all others."""
    said = jnp.asarray(X @ NOW["item"].T).at[2].set(0.0)
    value, slope = jax.jit(jax.value_and_grad(contrast), static_argnums=3)(said, X @ OLD["item"].T, VALID, 3, 0.07)
    assert np.isfinite(value)
    assert np.abs(slope).max() < 100.0
    np.testing.assert_array_equal(np.asarray(slope)[2], 0.0)


def test_the_laws_of_strategies() -> None:
    check_strategy(sa_caisr, off={"weight": 0.0}, arguments={"negatives": 8})
