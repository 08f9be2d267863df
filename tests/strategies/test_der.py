from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Batch, Learner, Outputs, Problem, Step
from incremental.errors import UserError
from incremental.strategies.der import der
from incremental.testing import check_strategy

B, ROWS, C, D = 4, 5, 6, 3
NONE: Any = None
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch({"user": jax.ShapeDtypeStruct((), np.int32)}, *SCALARS)


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    del key
    hidden = inputs["user"][:, None] * params["w"]
    return Outputs(hidden, hidden)


PROBLEM = Problem(NONE, apply, NONE, EXAMPLE, {}, NONE, NONE)
OLD: Any = {"w": np.array([1.0, -2.0, 0.5], np.float32)}
NOW: Any = {"w": np.array([0.5, 0.0, 2.0], np.float32)}
GAP = np.square(np.asarray(OLD["w"]) - NOW["w"]).sum()  # of user 1; of user u, u² times as much


def rows(labels: Any) -> Batch:
    """Rows whose user is the label; label 0 is padding."""
    ids = np.array(labels, np.int32)
    fields: list[Any] = [ids, np.full(len(ids), 0.5, np.float32), ids > 0, np.zeros(len(ids), np.int32)]
    return Batch({"user": ids}, *fields)


def made(alpha: Any = 1.0, beta: Any = 0.0) -> Any:
    return der(PROBLEM, capacity=C, rows=ROWS, alpha=alpha, beta=beta)


def learner(params: Any) -> Learner:
    return Learner(params, (), NONE, NONE)


@jax.jit
def recorded(state: Any, new: Any, first_pass: Any, seed: Any) -> Any:
    """After a step whose batch held replayed rows too."""
    joined = made().batch(state, new, jax.random.key(seed))
    outputs = apply(OLD, joined.inputs)
    step = Step(joined, new, outputs, NONE, NONE, NONE, NONE, first_pass)
    return made().record(state, step, jax.random.key(seed))


@jax.jit
def ended(state: Any, params: Any) -> Any:
    """After the increment, which ended with these weights."""
    return made().end(state, learner(params), NONE, NONE)[0]


@jax.jit
def batched(state: Any, new: Any, beta: Any) -> Any:
    return made(beta=beta).batch(state, new, jax.random.key(9))


@jax.jit
def stepped(state: Any, batch: Any, params: Any, alpha: Any) -> Any:
    def loss(params: Any) -> Any:
        return made(alpha).loss(state, params, batch, apply(params, batch.inputs))

    return jax.value_and_grad(loss)(params)


START = jax.jit(lambda: made().init(learner(OLD)))()


@pytest.fixture(scope="module")
def filled() -> Any:
    return ended(recorded(START, rows([3, 0, 1, 2]), np.bool_(True), 0), OLD)


def test_the_state_knows_the_width() -> None:
    assert START.hidden.shape == (C, D)
    assert START.hidden.dtype == np.float32


def test_the_increments_end_stores_each_new_row_with_its_hidden_vector(filled: Any) -> None:
    assert np.asarray(filled.memory.rows.labels).tolist() == [3, 1, 2, 0, 0, 0]
    assert np.asarray(filled.ready).tolist() == [True] * 3 + [False] * 3
    np.testing.assert_allclose(filled.hidden[:3], np.array([[3], [1], [2]]) * OLD["w"])


def test_older_rows_keep_what_was_stored_and_slots_taken_over_are_stored_anew(filled: Any) -> None:
    state = filled
    for i in range(2):
        state = recorded(state, rows(10 + 4 * i + np.arange(4)), np.bool_(True), 2 + i)
    labels = np.asarray(state.memory.rows.labels)
    assert int(state.memory.inserted) == 11
    kept = labels < 4
    assert 0 < kept.sum() < 3  # some slots were taken over
    np.testing.assert_array_equal(state.ready, kept)
    after = ended(state, NOW)
    assert np.asarray(after.ready).all()
    np.testing.assert_allclose(after.hidden, labels[:, None] * np.where(kept[:, None], OLD["w"], NOW["w"]))


def test_rows_of_the_running_increment_are_not_drawn(filled: Any) -> None:
    state = recorded(filled, rows([10, 11, 12, 0]), np.bool_(True), 0)
    assert set(np.asarray(state.memory.rows.labels).tolist()) == {1, 2, 3, 10, 11, 12}
    joined = batched(state, rows([7, 8, 9, 0]), np.float32(1))
    assert set(np.asarray(joined.labels)[B:].tolist()) <= {1, 2, 3}
    fresh = batched(recorded(START, rows([3, 0, 1, 2]), np.bool_(True), 0), rows([7, 8, 9, 0]), np.float32(1))
    assert not np.asarray(fresh.valid)[B:].any()


def test_later_passes_insert_nothing(filled: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, recorded(filled, rows([7, 8, 9, 6]), np.bool_(False), 1), filled)


def test_of_a_window_the_rows_that_are_new_fill_the_reservoir() -> None:
    new = rows([3, 1, 2, 0])._replace(increment=np.array([0, 1, 1, 1], np.int32))  # type: ignore[arg-type]
    step = Step(new, new, NONE, NONE, NONE, NONE, NONE, jnp.array(True), jnp.int32(0))
    after = jax.jit(lambda state: made().record(state, step, jax.random.key(0)))(START)
    assert np.asarray(after.memory.rows.labels).tolist() == [1, 2, 0, 0, 0, 0]
    assert np.asarray(after.memory.rows.valid).tolist() == [True, True, False, False, False, False]
    assert int(after.memory.inserted) == 2


@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_drawn_rows_are_valid_past_rows_whose_labels_count_beta(filled: Any, beta: float) -> None:
    joined = batched(filled, rows([7, 8, 9, 0]), np.float32(beta))
    assert np.asarray(joined.labels)[:B].tolist() == [7, 8, 9, 0]
    assert set(np.asarray(joined.labels)[B:].tolist()) <= {1, 2, 3}
    assert np.asarray(joined.valid)[B:].all()
    np.testing.assert_allclose(joined.weight, [0.5] * B + [0.5 * beta] * ROWS)


@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_the_loss_is_the_mean_square_distance_to_what_was_stored(filled: Any, alpha: float) -> None:
    joined = batched(filled, rows([7, 8, 9, 0]), np.float32(0))
    users = np.asarray(joined.labels)[B:]
    assert len(set(users.tolist())) > 1
    value, gradient = stepped(filled, joined, NOW, np.float32(alpha))
    assert float(value) == pytest.approx(alpha * GAP * (users**2).mean(), rel=1e-5)
    expected = alpha * 2 * (NOW["w"] - OLD["w"]) * (users**2).mean()
    np.testing.assert_allclose(gradient["w"], expected, rtol=1e-5)


def test_where_nothing_moved_there_is_no_pull(filled: Any) -> None:
    joined = batched(filled, rows([7, 8, 9, 0]), np.float32(0))
    value, gradient = stepped(filled, joined, OLD, np.float32(2))
    assert float(value) == 0.0
    assert not np.asarray(gradient["w"]).any()


def test_an_empty_memory_adds_padding_and_no_loss() -> None:
    joined = batched(START, rows([7, 8, 9, 0]), np.float32(0.5))
    assert not np.asarray(joined.valid)[B:].any()
    users = joined._replace(inputs={"user": joined.inputs["user"] + 5})  # padding that the model has an answer to
    value, gradient = stepped(START, users, NOW, np.float32(2))
    assert float(value) == 0.0
    assert not np.asarray(gradient["w"]).any()


def test_its_own_rows_are_found_behind_those_of_another_part(filled: Any) -> None:
    new = rows([7, 8, 9, 0, 5, 4])
    joined = batched(filled, new, np.float32(0))
    after = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:2]]), joined._replace(memory=None))
    value, _ = stepped(filled, after._replace(memory=joined.memory), NOW, np.float32(1))
    users = np.asarray(joined.labels)[len(new.labels) :]
    assert float(value) == pytest.approx(GAP * (users**2).mean(), rel=1e-5)


@pytest.mark.parametrize("wrong", ["capacity", "rows"])
def test_impossible_sizes_are_refused(wrong: str) -> None:
    sizes: Any = {wrong: 0}
    with pytest.raises(UserError, match=rf"der: {wrong}=0: expected a whole number >= 1"):
        der(PROBLEM, **sizes)


def test_the_laws_of_strategies() -> None:
    check_strategy(der, kind="memory", off={"alpha": 0.0, "beta": 0.0}, arguments={"capacity": 24, "rows": 8})
