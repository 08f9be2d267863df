from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.problem import problem
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Problem
from incremental.heads.full_softmax import full_softmax
from incremental.models.matrix_factorization import matrix_factorization

USERS: Any = np.array([3, 1, 3], np.int32)


def made(sizes: Sizes) -> Problem:
    return problem(matrix_factorization(width=4, limit=0.5), full_softmax(), next_item(5), sizes)


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.tree.map(np.asarray, jax.jit(made(Sizes(item=7, user=5)).init)(jax.random.key(0)))


def test_score_is_user_vector_times_item_vector_plus_item_bias(params: Any) -> None:
    params = {**params, "item_bias": np.arange(7, dtype=np.float32)}
    outputs = jax.jit(made(Sizes(item=7, user=5)).apply)(params, {"user": USERS})
    user, item = params["user"]["embedding"], params["item"]["embedding"]
    expected = [[float(np.dot(user[u], item[i])) + i for i in range(7)] for u in USERS]
    np.testing.assert_allclose(outputs.scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(outputs.hidden, user[USERS])


def test_tables_are_named_and_indexed_by_their_ids(params: Any) -> None:
    leading = {"item": 7, "user": 5}
    flat = {"/".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert {name: leaf.shape[0] for name, leaf in flat.items()} == {
        name: leading[ids] for name, ids in made(Sizes(item=7, user=5)).tables.items()
    }


def test_grown_tables_start_as_allocated_beforehand(params: Any) -> None:
    large = jax.jit(made(Sizes(item=12, user=9)).init)(jax.random.key(0))
    jax.tree.map(lambda old, new: np.testing.assert_array_equal(old, new[: len(old)]), params, large)
