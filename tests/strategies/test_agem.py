from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Batch, Catalogue, Learner, Problem, Step
from incremental.errors import UserError
from incremental.strategies.agem import agem
from incremental.testing import check_strategy

CAPACITY, ROWS = 6, 32
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
NONE: Any = None


def single(values: Any) -> Any:
    return np.asarray(values, np.float32)


PROBLEM = Problem(NONE, NONE, NONE, Batch({"user": SCALARS[0]}, *SCALARS), {}, NONE, NONE)
STRATEGY = agem(PROBLEM, capacity=CAPACITY, rows=ROWS)
KEY = jax.random.key(0)


def rows(labels: list[int], increment: int) -> Batch:
    """Rows whose user is their label; label 0 is padding."""
    ids = np.array(labels, np.int32)
    fields: list[Any] = [ids, np.ones(len(ids), np.float32), ids > 0, np.full(len(ids), increment, np.int32)]
    return Batch({"user": ids}, *fields)


@jax.jit
def ended(state: Any, increment: Any) -> Any:
    learner = Learner(NONE, NONE, Catalogue(NONE, NONE, NONE), increment)
    return STRATEGY.end(state, learner, NONE, KEY)[0]


@jax.jit
def recorded(state: Any, new: Any, first_pass: Any) -> Any:
    return STRATEGY.record(state, Step(NONE, new, NONE, NONE, NONE, NONE, NONE, first_pass), KEY)


@jax.jit
def drawn(state: Any, key: Any) -> Any:
    return STRATEGY.batch(state, rows([9, 9], 1), key)


@jax.jit
def surgery(grads: Any, reference: Any, valid: Any) -> Any:
    batch = rows([1] * ROWS, 1)
    batch = batch._replace(memory=rows([1] * ROWS, 0)._replace(valid=jnp.full(ROWS, valid)))
    return STRATEGY.grads(NONE, grads, NONE, lambda _: reference, batch, KEY)


def filled() -> Any:
    """Rows 1, 2, 3 of increment 0 and 4, 5 of increment 1, which is running."""
    state = jax.jit(lambda: STRATEGY.init(NONE))()
    state = recorded(state, rows([1, 2, 3, 0], 0), np.bool_(True))
    return recorded(ended(state, np.int32(0)), rows([4, 5, 0, 0], 1), np.bool_(True))


def test_reference_rows_are_uniform_over_earlier_increments_only() -> None:
    batch = drawn(filled(), KEY)
    assert batch.memory.valid.all()
    assert set(batch.memory.labels.tolist()) == {1, 2, 3}
    assert (np.asarray(batch.memory.increment) == 0).all()
    assert batch.labels.tolist() == [9, 9]  # nothing is appended
    assert drawn(filled(), jax.random.key(1)).memory.labels.tolist() != batch.memory.labels.tolist()


def test_rows_of_an_update_on_several_increments_are_none_of_the_past_while_it_runs() -> None:
    state = recorded(filled(), rows([6, 0, 0, 0], 2), np.bool_(True))
    assert set(drawn(state, KEY).memory.labels.tolist()) == {1, 2, 3}
    assert set(drawn(ended(state, np.int32(2)), KEY).memory.labels.tolist()) == {1, 2, 3, 4, 5, 6}


def test_there_is_no_reference_while_the_memory_holds_the_running_increment_only() -> None:
    state = jax.jit(lambda: STRATEGY.init(NONE))()
    assert not drawn(state, KEY).memory.valid.any()
    state = recorded(state, rows([1, 2, 3, 0], 0), np.bool_(True))
    state = recorded(state, rows([4, 5, 6, 0], 0), np.bool_(True))
    assert state.memory.rows.valid.all()
    assert not drawn(state, KEY).memory.valid.any()


def test_rows_are_inserted_once() -> None:
    state = filled()
    assert state.memory.rows.labels.tolist() == [1, 2, 3, 4, 5, 0]
    again = recorded(state, rows([6, 7, 8, 9], 1), np.bool_(False))
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_a_conflicting_gradient_loses_its_part_along_the_reference() -> None:
    g = {"a": single([1.0, -2.0]), "b": single([[3.0], [0.5]])}
    r = {"a": single([-1.0, 1.0]), "b": single([[-2.0], [4.0]])}
    flat_g, flat_r = np.array([1.0, -2.0, 3.0, 0.5]), np.array([-1.0, 1.0, -2.0, 4.0])
    assert flat_g @ flat_r < 0
    new = surgery(g, r, np.bool_(True))
    expected = flat_g - (flat_g @ flat_r) / (flat_r @ flat_r) * flat_r
    np.testing.assert_allclose(np.concatenate([new["a"], new["b"][:, 0]]), expected, rtol=1e-6)
    assert abs(expected @ flat_r) < 1e-9


@pytest.mark.parametrize(("sign", "valid"), [(1.0, True), (-1.0, False), (0.0, True)])
def test_a_gradient_that_agrees_or_has_no_reference_stays_as_it_is(sign: float, valid: bool) -> None:
    g = {"a": single([1.0, -2.0]), "b": single([[3.0], [0.5]])}
    new = surgery(g, jax.tree.map(lambda leaf: np.float32(sign) * leaf, g), np.bool_(valid))
    jax.tree.map(np.testing.assert_array_equal, new, g)


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"rows": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"agem: (capacity|rows)=0: expected a whole number >= 1"):
        agem(PROBLEM, **wrong)


def test_the_laws_of_strategies() -> None:
    check_strategy(agem, kind="memory", arguments={"capacity": 24, "rows": 8})
