from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Problem
from incremental.errors import UserError
from incremental.strategies.orthogonal_updates import orthogonal_updates
from incremental.testing import check_strategy
from tests import lab

NONE: Any = None
SHAPES = {"square": (6, 6), "wide": (4, 9), "tall": (9, 4), "still": (5, 5)}


def start(key: Any) -> Any:
    del key
    kernels = {name: {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1])} for name, shape in SHAPES.items()}
    tables = {"item": {"embedding": jnp.zeros((12, 4)), "kernel": jnp.zeros((12, 4))}, "position": jnp.zeros((5, 4))}
    return {**kernels, **tables}


PROBLEM = Problem(start, NONE, NONE, NONE, {"item/embedding": "item", "item/kernel": "item"}, NONE, NONE)


def draw() -> Any:
    rng = np.random.default_rng(0)
    update = jax.tree.map(lambda leaf: 1e-3 * rng.normal(size=leaf.shape).astype(np.float32), start(NONE))
    update["still"]["kernel"][:] = 0.0
    return update


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """An update before and after."""
    update = draw()
    return update, jax.jit(lambda update: orthogonal_updates(PROBLEM).updates((), update, NONE))(update)


@pytest.mark.parametrize("name", ["square", "wide", "tall"])
def test_singular_vectors_and_length_stay_and_singular_values_become_alike(pair: Any, name: str) -> None:
    before, after = (np.asarray(tree[name]["kernel"], np.float64) for tree in pair)
    left, values, right = np.linalg.svd(before, full_matrices=False)
    rotated = left.T @ after @ right.T
    np.testing.assert_allclose(rotated, np.diag(np.diag(rotated)), atol=1e-2 * np.abs(rotated).max())
    assert values.max() / values.min() > 2.5
    # All singular values that are a fair share of the length end within Muon's band.
    fair = values > 0.02 * np.linalg.norm(values)
    new = np.diag(rotated)[fair]
    assert new.max() / new.min() < 1.9
    assert new.min() > 0
    np.testing.assert_allclose(np.linalg.norm(after), np.linalg.norm(before), rtol=1e-5)


def test_other_leaves_and_updates_of_nothing_stay_as_they_are(pair: Any) -> None:
    before, after = pair
    np.testing.assert_array_equal(after["still"]["kernel"], 0.0)
    for path in (("item", "embedding"), ("item", "kernel"), ("wide", "bias")):
        np.testing.assert_array_equal(after[path[0]][path[1]], before[path[0]][path[1]])
    np.testing.assert_array_equal(after["position"], before["position"])


def test_a_model_of_id_tables_alone_is_refused() -> None:
    tables = Problem(lambda _: {"item": jnp.zeros((3, 4))}, NONE, NONE, NONE, {"item": "item"}, NONE, NONE)
    with pytest.raises(UserError, match=r"orthogonal_updates: the model has no dense kernel .* choose"):
        orthogonal_updates(tables)


def test_the_laws_of_strategies() -> None:
    check_strategy(orthogonal_updates, model=lab.dense())
