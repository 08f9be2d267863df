from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Batch, Data, Teacher
from incremental.strategies.pisa import pisa, sparse
from incremental.testing import check_strategy
from tests.strategies.two_sides import NONE, PROBLEM, apply, data, learner

W, V, D, K = 7, 6, 3, 2
RNG = np.random.default_rng(0)
OLD, FORWARD, NEW = ({"user": RNG.normal(size=(W, D)), "item": RNG.normal(size=(V, D))} for _ in range(3))
KNOWN: Any = {"user": np.array([0, 1, 1, 1, 1, 0, 0], bool), "item": np.array([0, 1, 1, 1, 1, 0], bool)}
TAU, RATIO, WEIGHT = 0.7, 0.6, 2.0
CENTRES = RNG.normal(size=(K, D))


BASE = data(0, [(1, 1), (1, 2), (2, 2), (3, 3), (3, 4), (4, 4), (2, 1), (4, 1), (4, 2)])
NEXT = data(1, [(1, 3), (1, 5), (5, 5), (2, 3), (3, 2), (5, 1), (4, 3), (6, 2)])
BEFORE = {1: [1, 2], 2: [2, 1], 3: [3, 4], 4: [4, 1, 2]}
NOW = {1: [3, 5], 2: [3], 3: [2], 4: [3], 5: [5, 1], 6: [2]}


def made(**keys: Any) -> Any:
    return pisa(
        PROBLEM, **{"weight": WEIGHT, "ratio": RATIO, "temperature": TAU, "clusters": K, "neighbours": 4, **keys}
    )


def batch(users: list[int], labels: list[int], valid: list[int]) -> Batch:
    ids: Any = np.array(users, np.int32)
    given: tuple[Any, ...] = (np.array(labels, np.int32), NONE, np.array(valid, bool), NONE, ids)
    return Batch({"user": ids}, *given)


def fit(params: Any, data: Data, key: Any, epochs: int = 3) -> Any:
    """Stands for training: what it would come to depends on the number of epochs."""
    del data, key
    return jax.tree.map(lambda old, new: jnp.where(epochs == 3, jnp.float32(new), old), params, FORWARD)


@jax.jit
def begun(increment: Any, present: Any = NEXT) -> Any:
    part = made()
    state, _ = part.end(part.init(learner(OLD, KNOWN)), learner(OLD, KNOWN), BASE, NONE)
    given = present._replace(increment=increment)
    return part.begin(state, learner(NEW, KNOWN), given, NONE, fit)[0]


@jax.jit
def loss(params: Any, state: Any, rows: Batch, weight: Any, ratio: Any) -> Any:
    part = made(weight=weight, ratio=ratio)

    def value(params: Any) -> Any:
        seen = part.batch(state, rows, NONE)
        return part.loss(state, params, seen, apply(params, seen.inputs))

    return jax.value_and_grad(value)(params)


STATE = begun(np.int32(1))._replace(centres=jnp.float32(CENTRES))
ROWS = batch([1, 2, 1, 5, 4, 3, 6], [3, 3, 5, 5, 3, 2, 2], [1, 1, 1, 1, 1, 1, 0])  # user 1 twice, the last is padding
USERS, SEEN = [1, 2, 5, 4, 3], [1, 2, 4, 3]


def softmax(logits: Any) -> Any:
    p = np.exp(logits - logits.max())
    return p / p.sum()


def plasticity(params: Any) -> dict[int, float]:
    """w of the old users, before any is dropped."""
    drift = {}
    for u in SEEN:
        p, q = (softmax(CENTRES @ table["user"][u]) for table in (OLD, params))
        middle = (p + q) / 2
        drift[u] = 0.5 * (p * np.log(p / middle)).sum() + 0.5 * (q * np.log(q / middle)).sum()
    mean = np.mean(list(drift.values()))
    return {u: 1 / (1 + np.exp(mean - drift[u])) for u in SEEN}


def kept(weights: dict[int, float], ratio: float) -> set[int]:
    bound = np.quantile(list(weights.values()), 1 - ratio)
    return {u for u, w in weights.items() if w > bound}


def contrast(rows: list[tuple[Any, Any, float]]) -> float:
    """C, as it is written, over (anchor, row, weight)."""

    def cos(x: Any, z: Any) -> float:
        return float(x @ z / np.sqrt((x @ x) * (z @ z)))

    told = [
        -weight * np.log(np.exp(cos(x, z) / TAU) / sum(np.exp(cos(x, other) / TAU) for _, other, _ in rows))
        for x, z, weight in rows
    ]
    return float(np.mean(told))


def expected(params: Any, base: Any, ratio: float) -> float:
    """The loss at `params`, what is constant being taken at `base`."""
    constant, w = plasticity(base), plasticity(params)
    up, down = kept(constant, ratio), kept({u: 1 - value for u, value in constant.items()}, ratio)
    h = params["user"]
    pu = contrast([(FORWARD["user"][u], h[u], w[u] * (u in up)) for u in SEEN])
    su = contrast([(OLD["user"][u], h[u], (1 - w[u]) * (u in down)) for u in SEEN])
    pn = contrast(
        [(FORWARD["item"][i], h[u], constant[u] * (u in up) if u in SEEN else 0.5) for u in USERS for i in NOW[u]]
    )
    sn = contrast([(OLD["item"][i], h[u], (1 - constant[u]) * (u in down)) for u in SEEN for i in BEFORE[u]])
    return WEIGHT * (pu + pn + su + sn)


@pytest.mark.parametrize("ratio", [0.6, 1.0])
def test_the_loss_is_the_formula_and_its_gradient_are_differences(ratio: float) -> None:
    assert 1 < len(kept(plasticity(NEW), ratio)) < len(SEEN)
    value, gradient = loss(NEW, STATE, ROWS, np.float32(WEIGHT), np.float32(ratio))
    assert float(value) == pytest.approx(expected(NEW, NEW, ratio), rel=1e-5)
    slopes = np.zeros((W, D))
    for place in np.ndindex(W, D):
        both = []
        for step in (1e-5, -1e-5):
            moved = {**NEW, "user": NEW["user"].copy()}
            moved["user"][place] += step
            both.append(expected(moved, NEW, ratio))
        slopes[place] = (both[0] - both[1]) / 2e-5
    np.testing.assert_allclose(gradient["user"], slopes, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(gradient["item"], 0.0)


def test_there_is_none_without_an_old_user_an_old_label_a_teacher_or_a_weight() -> None:
    strangers = batch([5, 6, 5, 5, 6, 6, 1], [1, 2, 1, 1, 1, 2, 1], [1, 1, 1, 1, 1, 1, 0])
    new_labels = ROWS._replace(labels=np.full(7, 5, np.int32))  # type: ignore[arg-type]
    untaught = STATE._replace(taught=STATE.taught._replace(teacher=Teacher(OLD, jnp.float32(0.0))))
    for state, rows, weight in ((STATE, strangers, 1), (STATE, new_labels, 1), (untaught, ROWS, 1), (STATE, ROWS, 0)):
        value, gradient = loss(NEW, state, rows, np.float32(weight), np.float32(0.6))
        for leaf in (value, *jax.tree.leaves(gradient)):
            np.testing.assert_array_equal(leaf, 0.0)


def test_the_forward_model_is_that_of_fit_and_the_base_part_has_none() -> None:
    np.testing.assert_allclose(STATE.forward.users, FORWARD["user"], rtol=1e-6)
    np.testing.assert_allclose(STATE.last.users, OLD["user"], rtol=1e-6)
    np.testing.assert_allclose(begun(np.int32(0)).forward.users, NEW["user"], rtol=1e-6)
    fitted: list[int] = []

    def noted(params: Any, data: Data, key: Any, epochs: int) -> Any:
        del data, key
        fitted.append(epochs)
        return params

    given: Any = (STATE._replace(forward=NONE), learner(NEW, KNOWN))
    jax.eval_shape(lambda state, learner: made(epochs=5).begin(state, learner, NEXT, NONE, noted), *given)
    assert fitted == [5]


def test_of_a_window_only_the_events_that_are_new_count() -> None:
    """Neither as the increment's own, nor a second time among those before."""
    rows = jax.tree.map(lambda *each: np.concatenate(each), BASE.rows, NEXT.rows)
    window = NEXT._replace(rows=rows, size=BASE.size + NEXT.size)
    state = begun(np.int32(1), window)
    np.testing.assert_array_equal(state.arrived, STATE.arrived)
    end = jax.jit(lambda state, data: made().end(state, learner(NEW, KNOWN), data, NONE)[0])
    after = end(state, window)
    jax.tree.map(np.testing.assert_array_equal, after.history, end(STATE, NEXT).history)
    assert [int(each.until) for each in (state, after)] == [0, 1]


def test_its_state_has_no_more_numbers_than_it_says() -> None:
    said = (W + V) * D + (W + V) * (2 * D + 1) + W * (2 * 4 + 1) + K * D
    assert sum(leaf.size for leaf in jax.tree.leaves(STATE)) == said + 2  # whether it is taught, and until when


def test_centres_are_those_of_the_items_seen_so_far() -> None:
    """Two groups among them, far apart."""
    table = np.where(np.arange(V)[:, None] < 3, 1.0, -1.0) * np.full(D, 9.0) + RNG.normal(scale=0.1, size=(V, D))
    params = {**NEW, "item": np.where(KNOWN["item"][:, None], table, 500.0)}
    found = np.asarray(jax.jit(made().prepare)(STATE, learner(params, KNOWN), NEXT, jax.random.key(0)).centres)
    np.testing.assert_allclose(
        np.sort(found[:, 0]), np.sort([table[[1, 2], 0].mean(), table[[3, 4], 0].mean()]), rtol=1e-5
    )


def test_of_the_weights_those_above_the_quantile_are_kept() -> None:
    weights: Any = RNG.uniform(size=20).astype(np.float32)
    rows: Any = np.arange(20) % 3 > 0
    kept = jax.jit(sparse)
    for ratio in map(np.float32, (0.0, 0.2, 0.37, 1.0)):
        bound = np.quantile(weights[rows], 1 - ratio)
        np.testing.assert_array_equal(kept(weights, rows, ratio), np.where(rows & (weights > bound), weights, 0.0))
    np.testing.assert_array_equal(kept(np.full(20, 0.5, np.float32), rows, np.float32(0.5)), 0.0)
    np.testing.assert_array_equal(kept(weights, np.zeros(20, bool), np.float32(0.5)), 0.0)


def test_the_laws_of_strategies() -> None:
    """Its terms are contrasts: they do not vanish where student and teacher agree."""
    check_strategy(pisa, off={"weight": 0.0}, arguments={"clusters": 3, "neighbours": 4})
