from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from incremental.core.spec import Input
from incremental.core.types import Batch, Catalogue, Learner, Outputs, Problem
from incremental.errors import UserError
from incremental.heads.bpr import bpr
from incremental.run.check import holds_anchor
from incremental.strategies.ccd import ccd, pairs
from incremental.testing import check_strategy
from tests.applies import trace

NONE: Any = None
B, V, D = 3, 12, 2
RNG = np.random.default_rng(1)
X: Any = RNG.normal(size=(B, D)).astype(np.float32)
SEEN: Any = np.array([0, *[1] * 10, 0], bool)


def drawn() -> Any:
    return {"item": RNG.normal(size=(V, D)).astype(np.float32), "w": RNG.normal(size=(D, D)).astype(np.float32)}


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None
    hidden = inputs["x"] @ params["w"]
    return Outputs(hidden, hidden @ params["item"].T)


INPUTS = {"x": Input((D,), np.float32), "history": Input((2,), np.int32, "item")}
PROBLEM = Problem(NONE, apply, NONE, NONE, {"item": "item"}, None, NONE, inputs=INPUTS)
OLD, NEW, NOW = (drawn() for _ in range(3))
HISTORY: Any = np.array([[0, 1], [2, 3], [0, 0]], np.int32)
LABELS: Any = np.array([2, 4, 6], np.int32)
ROWS = Batch({"x": X, "history": HISTORY}, LABELS, NONE, jnp.array([True, True, False]), NONE)


def learner(params: Any, seen: Any = SEEN) -> Learner:
    return Learner(params, (), Catalogue(seen, seen, {"user": jnp.zeros(1, bool)}), jnp.int32(1))


def made(**keys: Any) -> Any:
    return ccd(PROBLEM, **{"stable_pairs": 2, "plastic_pairs": 2, "top": 4, "sharpness": 1e6, **keys})


@jax.jit
def ended(state: Any, learner: Any, stable: Any, plastic: Any) -> Any:
    return made(stable=stable, plastic=plastic).end(state, learner, NONE, NONE)[0]


@jax.jit
@jax.value_and_grad
def loss(params: Any, state: Any, weight: Any) -> Any:
    part = made(weight=weight)
    rows = part.batch(state, ROWS, jax.random.key(0))
    return part.loss(state, params, rows, apply(params, rows.inputs))


START = jax.jit(made().init)(learner(NOW, np.zeros(V, bool)))  # the random start, of which no proxy keeps anything
FIRST = ended(START, learner(OLD), 0.75, 0.0)
SECOND = ended(FIRST, learner(NEW), 0.75, 0.0)


def in_epoch(state: Any, number: int) -> Any:
    """At this epoch of an update, from 0."""
    state, _ = made().begin(state, NONE, NONE, NONE)
    for _ in range(number + 1):
        state = made().prepare(state, NONE, NONE, NONE)
    return state


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_proxies_are_averages_that_start_as_the_model() -> None:
    jax.tree.map(np.testing.assert_array_equal, FIRST.stable.params, OLD)
    jax.tree.map(np.testing.assert_array_equal, FIRST.plastic.params, OLD)
    mean = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, OLD, NEW)
    jax.tree.map(np.testing.assert_array_equal, SECOND.stable.params, mean)
    jax.tree.map(np.testing.assert_array_equal, SECOND.plastic.params, NEW)  # 0: the student itself
    assert holds_anchor(SECOND)  # a mean of weights from several random starts would say nothing
    # A new id's row has no past; 1 freezes the rest.
    later = ended(SECOND, learner(NOW, np.append(SEEN[:-1], True)), 1.0, 1.0)
    for before, after in ((SECOND.stable, later.stable), (SECOND.plastic, later.plastic)):
        np.testing.assert_array_equal(after.params["item"][:-1], before.params["item"][:-1])
        np.testing.assert_array_equal(after.params["item"][-1], NOW["item"][-1])
        np.testing.assert_array_equal(after.params["w"], before.params["w"])


def forgotten(row: int, proxy: Any) -> dict[int, float]:
    """The two items of the proxy's first four that the model NOW ranks lowest beside it, and their targets."""
    scores, own = (np.asarray(apply(params, {"x": np.float64(X)}).scores)[row] for params in (proxy, NOW))
    items = [i for i in range(V) if SEEN[i] and i not in {LABELS[row], *HISTORY[row]}]
    best = sorted(items, key=lambda i: -scores[i])[:4]
    ranks = {i: sorted(items, key=lambda i: -own[i]).index(i) for i in items}
    # Equal differences would be drawn for.
    differences = sorted((best.index(i) - ranks[i], i) for i in best)
    assert len(best) < 3 or differences[1][0] < differences[2][0]
    return {i: float(sigmoid(scores[i])) for _, i in differences[:2]}


def test_the_loss_is_the_entropy_on_what_was_forgotten_and_its_gradient() -> None:
    def expected(params: Any) -> float:
        total = 0.0
        scores = np.asarray(apply(params, {"x": np.float64(X)}).scores)
        for row in (0, 1):  # the last one is padding
            one, other = (forgotten(row, proxy.params) for proxy in (SECOND.stable, SECOND.plastic))
            shared.extend({*one} & {*other})
            for i in {*one} | {*other}:
                q, p = max(one.get(i, 0.0), other.get(i, 0.0)), sigmoid(scores[row, i])
                total -= q * np.log(p) + (1 - q) * np.log(1 - p)
        return 3.0 * np.exp(-2 / 10) * total / 2

    shared: list[int] = []
    value, gradient = loss(NOW, in_epoch(in_epoch(SECOND, 1), 2), np.float32(3.0))
    assert float(value) == pytest.approx(expected(NOW), rel=1e-4)
    assert shared  # an item that both have drawn
    wide = jax.tree.map(np.float64, NOW)
    for place in ((1, 0), (3, 1), (5, 0), (6, 1)):
        ends = []
        for sign in (1, -1):
            moved = wide["item"].copy()
            moved[place] += sign * 1e-6
            ends.append(expected({**wide, "item": moved}))
        assert float(gradient["item"][place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-5)
    np.testing.assert_array_equal(np.asarray(gradient["item"])[~SEEN], 0.0)


def test_there_is_none_before_the_first_increments_end() -> None:
    value, gradient = loss(NOW, START, np.float32(3.0))
    assert float(value) == 0.0
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0.0), gradient)


def test_items_are_drawn_by_how_much_was_forgotten() -> None:
    """One of four, by exp(0.4 · difference of ranks)."""
    n, proxy, student = 20_000, np.array([4.0, 3, 2, 1, 0]), np.array([1.0, 4, 2, 3, 0])
    noise = jax.random.gumbel(jax.random.key(0), (n, 4))
    found = jax.jit(
        lambda noise: pairs(jnp.tile(student, (n, 1)), jnp.tile(proxy, (n, 1)), jnp.ones((n, 5), bool), noise, 1, 0.4)
    )(noise)
    chances = np.exp(0.4 * (np.array([3, 0, 2, 1]) - np.arange(4)))
    counts = np.bincount(found.items[:, 0], minlength=4)
    assert stats.chisquare(counts, n * chances / chances.sum()).pvalue > 1e-3
    np.testing.assert_allclose(found.target[:, 0], sigmoid(proxy)[found.items[:, 0]], rtol=1e-6)


def test_compact_rows_are_refused(documented: Any) -> None:
    with pytest.raises(UserError, match=r"training\.rows=compact: strategies\.ccd reads the scores of all") as error:
        trace(ccd, "mf", lambda: bpr(negatives=2), rows="compact", name="ccd")
    documented("CCD with compact rows", error.value)


def test_the_laws_of_strategies() -> None:
    """The copies that are the last increment's model are teachers as any distillation's."""
    arguments = {"stable": 0.0, "plastic": 0.0, "top": 6}
    check_strategy(ccd, kind="distillation", arguments=arguments, off={"weight": 0.0})
