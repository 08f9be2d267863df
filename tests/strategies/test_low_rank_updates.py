from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Problem, Step
from incremental.errors import UserError
from incremental.strategies.low_rank_updates import low_rank_updates
from incremental.testing import check_strategy

RANK, EVERY = 2, 3
NONE: Any = None
SHAPES = {"wide": (5, 7), "tall": (7, 5), "thin": (9, 2)}


def of(rows: int) -> Problem:
    def start(key: Any) -> Any:
        del key
        zeros = {name: {"kernel": jnp.zeros(shape)} for name, shape in SHAPES.items()}
        return {**zeros, "item": {"embedding": jnp.zeros((rows, 4))}, "bias": jnp.zeros(9)}

    return Problem(start, NONE, NONE, NONE, {"item/embedding": "item"}, NONE, NONE)


STRATEGY = low_rank_updates(of(12), rank=RANK, every=EVERY)
UPDATES = jax.jit(lambda state, updates: STRATEGY.updates(state, updates, NONE))


@jax.jit
def recorded(state: Any, grads: Any) -> Any:
    return STRATEGY.record(state, Step(NONE, NONE, NONE, grads, NONE, NONE, NONE, NONE), jax.random.key(0))


def draw(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), of(12).init(NONE))


def spaces(grads: Any) -> dict[str, Any]:
    """The projection onto the leading singular vectors of the side that is named."""
    left = np.linalg.svd(grads["wide"]["kernel"])[0][:, :RANK]
    right = np.linalg.svd(grads["tall"]["kernel"])[2][:RANK].T
    table = np.linalg.svd(grads["item"]["embedding"])[2][:RANK].T
    return {"wide": left @ left.T, "tall": right @ right.T, "item": table @ table.T}


def empty() -> Any:
    return jax.jit(lambda: STRATEGY.init(NONE))()


def test_an_update_keeps_its_part_in_the_gradients_leading_subspace() -> None:
    grads, update = draw(0), draw(1)
    new, space = UPDATES(recorded(empty(), grads), update), spaces(grads)
    np.testing.assert_allclose(new["wide"]["kernel"], space["wide"] @ update["wide"]["kernel"], atol=1e-4)
    np.testing.assert_allclose(new["tall"]["kernel"], update["tall"]["kernel"] @ space["tall"], atol=1e-4)
    np.testing.assert_allclose(new["item"]["embedding"], update["item"]["embedding"] @ space["item"], atol=1e-4)
    assert np.linalg.matrix_rank(np.asarray(new["item"]["embedding"]), tol=1e-4) == RANK
    np.testing.assert_array_equal(new["thin"]["kernel"], update["thin"]["kernel"])
    np.testing.assert_array_equal(new["bias"], update["bias"])


def test_the_first_step_of_all_is_not_projected() -> None:
    update = draw(1)
    jax.tree.map(np.testing.assert_array_equal, UPDATES(empty(), update), update)


def test_the_subspace_is_taken_anew_every_so_many_steps() -> None:
    state, bases = empty(), []
    for seed in range(2 * EVERY + 1):
        state = recorded(state, draw(seed))
        bases.append(np.asarray(state.basis["wide/kernel"]))
    changed = [not np.array_equal(one, other) for one, other in pairwise(bases)]
    assert changed == [False, False, True, False, False, True]
    np.testing.assert_allclose(bases[3] @ bases[3].T, spaces(draw(3))["wide"], atol=1e-4)


def test_the_state_does_not_depend_on_the_number_of_ids() -> None:
    few, many = (jax.eval_shape(low_rank_updates(of(n), rank=RANK).init, NONE) for n in (2, 50))
    assert jax.tree.map(lambda leaf: leaf.shape, few) == jax.tree.map(lambda leaf: leaf.shape, many)
    assert few.basis["item/embedding"].shape == (4, RANK)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"every": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"low_rank_updates: (rank|every)=0: expected a whole number >= 1"):
        low_rank_updates(of(12), **wrong)


def test_a_rank_that_leaves_nothing_to_project_is_refused() -> None:
    with pytest.raises(UserError, match=r"rank=5: no matrix .* lower rank"):
        low_rank_updates(of(12), rank=5)


def test_the_laws_of_strategies() -> None:
    check_strategy(low_rank_updates, kind="projection", arguments={"rank": 2, "every": 1_000_000})
