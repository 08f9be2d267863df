from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from incremental.core.types import Batch, Catalogue, Data, Learner, Problem
from incremental.errors import UserError
from incremental.strategies.agem import agem
from incremental.strategies.gem import gem
from incremental.testing import check_strategy

INCREMENTS, CAPACITY, P = 3, 4, 6
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
NONE: Any = None


def single(values: Any) -> Any:
    return np.asarray(values, np.float32)


G = jax.ShapeDtypeStruct((P,), np.float32)
PROBLEM = Problem(NONE, NONE, NONE, Batch({"g": G}, *SCALARS), {}, NONE, NONE)
KEY = jax.random.key(0)


def made(margin: Any = 0.0) -> Any:
    return gem(PROBLEM, increments=INCREMENTS, capacity=CAPACITY, margin=margin)


def data(t: int, size: int, g: Any = None, total: int = 7) -> Data:
    """Rows with labels 10 t + 1, 10 t + 2, …, the gradient g each; rows from `size` on are rubbish."""
    ids = 10 * t + 1 + np.arange(total, dtype=np.int32)
    rows = np.tile(single(np.zeros(P) if g is None else g), (total, 1))
    fields: list[Any] = [ids, np.ones(total, np.float32), np.ones(total, bool), np.full(total, t, np.int32)]
    events: list[Any] = [np.int32(size), np.int32(t), NONE, NONE]
    return Data(Batch({"g": rows}, *fields), *events)


@jax.jit
def ended(state: Any, data: Any) -> Any:
    learner = Learner(NONE, NONE, Catalogue(NONE, NONE, NONE), data.increment)
    return made().end(state, learner, data, KEY)[0]


def grad_fn(rows: Batch) -> Any:
    """A row's loss is g · θ, so its gradient is g: of the mean over the valid ones."""
    weight = rows.valid / jnp.maximum(rows.valid.sum(), 1)
    mean = weight @ rows.inputs["g"]
    return {"a": mean[:2], "b": mean[2:].reshape(2, 2)}


@jax.jit
def surgery(state: Any, g: Any, margin: Any) -> Any:
    strategy = made(margin)
    batch = strategy.batch(state, data(0, 1).rows, KEY)
    new = strategy.grads(state, {"a": g[:2], "b": g[2:].reshape(2, 2)}, NONE, grad_fn, batch, KEY)
    return jnp.concatenate([new["a"], new["b"].ravel()])


def empty() -> Any:
    return jax.jit(lambda: made().init(NONE))()


def after(gradients: Any) -> Any:
    """The state after increments with these gradients."""
    state = empty()
    for t, g in enumerate(gradients):
        state = ended(state, data(t, 5, g))
    return state


def test_each_increment_keeps_rows_of_its_own_and_the_oldest_make_room() -> None:
    state = empty()
    for t, size in enumerate((5, 2, 7, 5)):
        state = ended(state, data(t, size))
    labels = np.asarray(state.memory.rows.labels).reshape(INCREMENTS, CAPACITY)
    valid = np.asarray(state.memory.rows.valid).reshape(INCREMENTS, CAPACITY)
    assert valid.sum(1).tolist() == [4, 2, 4]
    for slot, t, size in ((0, 3, 5), (1, 1, 2), (2, 2, 7)):
        kept = labels[slot][valid[slot]].tolist()
        assert len(set(kept)) == len(kept)
        assert set(kept) <= set(range(10 * t + 1, 10 * t + 1 + size))
    assert int(state.memory.inserted) == 4 + 2 + 4 + 4


@pytest.mark.parametrize(("before", "kept"), [(0, [22, 24]), (-1, [21, 22, 23, 24])])
def test_of_an_update_on_several_increments_the_new_rows_are_kept(before: int, kept: list[int]) -> None:
    """Rows of an increment that an earlier update trained on are none of this one's."""
    both = data(2, 4)
    increment: Any = np.array([0, 2, 0, 1, 0, 0, 1], np.int32)
    state = empty()._replace(until=np.int32(before))
    state = ended(state, both._replace(rows=both.rows._replace(increment=increment)))
    assert sorted(np.asarray(state.memory.rows.labels)[np.asarray(state.memory.rows.valid)].tolist()) == kept
    assert int(state.until) == 2


def test_the_kept_rows_of_an_update_are_a_uniform_draw() -> None:
    def kept(key: Any) -> Any:
        learner = Learner(NONE, NONE, Catalogue(NONE, NONE, NONE), jnp.int32(0))
        memory = made().end(made().init(NONE), learner, jax.tree.map(jnp.asarray, data(0, 6)), key)[0].memory
        return (memory.rows.labels[:CAPACITY, None] == 1 + jnp.arange(6)).any(0)

    counts = np.asarray(jax.jit(jax.vmap(kept))(jax.random.split(KEY, 3000))).sum(0)
    # Each of 6 is among the 4 kept 2,000 ± 26 times (one standard deviation).
    assert np.abs(counts - 2000).max() < 4 * 26


def test_the_result_meets_the_conditions_of_an_optimum() -> None:
    rng = np.random.default_rng(0)
    moved = 0
    for trial in range(20):
        past, g = rng.normal(size=(INCREMENTS, P)), single(rng.normal(size=P))
        past[1] = 0.9 * past[0] + 0.1 * past[1]  # two that nearly agree
        margin = np.float32(0.0 if trial % 2 else 0.3)
        z = np.asarray(surgery(after(past), g, margin), np.float64)
        if (past @ g >= 0).all():
            np.testing.assert_array_equal(z, g)
            continue
        moved += 1
        v = np.linalg.lstsq(past.T, z - g, rcond=None)[0]  # the rows of `past` are independent
        np.testing.assert_allclose(past.T @ v, z - g, atol=1e-4)
        assert (v >= margin - 1e-4).all()
        assert (past @ z >= -1e-4).all()
        np.testing.assert_allclose((v - margin) * (past @ z), 0.0, atol=1e-3)
    assert moved > 5


def test_without_margin_it_is_the_nearest_point_that_meets_the_constraints() -> None:
    rng = np.random.default_rng(1)
    past, g = rng.normal(size=(INCREMENTS, P)), single(rng.normal(size=P))
    g = single(g - 2 * past.sum(0))  # against all of them
    v, _ = nnls(past.T, -g)  # min |Gᵀv + g| over v ≥ 0
    np.testing.assert_allclose(surgery(after(past), g, np.float32(0.0)), g + past.T @ v, atol=1e-4)


def test_with_one_past_increment_and_no_margin_it_is_agem() -> None:
    past = single([1.0, 2.0, -1.0, 0.5, 0.0, 3.0])
    for g in (-past, single([3.0, -4.0, 1.0, 1.0, 1.0, 0.0]), past):
        batch = data(1, 1).rows._replace(memory=data(0, 5, past).rows)
        tree = {"a": g[:2], "b": g[2:].reshape(2, 2)}
        other = jax.jit(lambda tree, batch: agem(PROBLEM).grads(NONE, tree, NONE, grad_fn, batch, KEY))(tree, batch)
        flat = np.concatenate([other["a"], np.asarray(other["b"]).ravel()])
        np.testing.assert_allclose(surgery(after([past]), g, np.float32(0.0)), flat, atol=1e-5)


def test_a_gradient_that_agrees_with_the_past_stays_as_it_is_whatever_the_margin() -> None:
    past = single([1.0, 2.0, -1.0, 0.5, 0.0, 3.0])
    np.testing.assert_array_equal(surgery(after([past]), 2 * past, np.float32(0.5)), 2 * past)


def test_without_a_past_increment_nothing_changes() -> None:
    g = single([3.0, -4.0, 1.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(surgery(empty(), g, np.float32(0.5)), g)


@pytest.mark.parametrize("wrong", [{"increments": 0}, {"capacity": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"gem: (increments|capacity)=0: expected a whole number >= 1"):
        gem(PROBLEM, **wrong)


def test_the_laws_of_strategies() -> None:
    check_strategy(gem, kind="memory", arguments={"increments": 2, "capacity": 12}, keeps="other", draws="other")
