"""What is left of LoRA matrices after an increment's end, on a stand-in of a model that has them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.errors import UserError
from incremental.strategies.lora_boundary import Way, lora_boundary, pairs
from incremental.types import Learner
from tests import lab

NONE: Any = None
PAIR = "layer_1/query"


def params(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=(2, 3)).astype(np.float32)
    return {"tower": {"lora": {"layer_1": {"query": {"a": a, "b": b}}}, "text": np.ones(2, np.float32)}, "x": 1.0}


class Stand:
    """The part of a problem that the strategy reads."""

    @staticmethod
    def init(key: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: jax.random.normal(key, jnp.shape(leaf)), params(0))


def strategy(way: Way) -> Any:
    return lora_boundary(Stand, way=way)  # type: ignore[arg-type]


def ends(way: Way, number: int) -> tuple[Any, Any]:
    """The state, and the parameters after the end of the last of `number` increments that ended at params(1), ..."""
    own = strategy(way)
    state = own.init(Learner(params(0), NONE, NONE, NONE))
    learner: Any = NONE
    for seed in range(1, number + 1):
        state, learner = own.end(state, Learner(params(seed), NONE, NONE, NONE), NONE, jax.random.key(seed))
    return state, learner.params


def test_merged_products_add_up_and_the_matrices_begin_anew() -> None:
    state, after = ends("merge", 2)
    seen = pairs(strategy("merge").view(state, after, NONE, True))[PAIR]
    products = [pairs(params(seed))[PAIR]["a"] @ pairs(params(seed))[PAIR]["b"] for seed in (1, 2)]
    np.testing.assert_allclose(seen["merged"], sum(products), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(seen["b"], 0.0)
    assert lab.differs(seen["a"], pairs(params(2))[PAIR]["a"])
    assert (after["x"], after["tower"]["text"].sum()) == (1.0, 2.0)


def test_averaged_matrices_are_the_means_of_those_at_the_ends() -> None:
    state, after = ends("average", 3)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *(pairs(params(seed)) for seed in (1, 2, 3)))
    lab.assert_close(pairs(after), mean)
    assert strategy("average").view(state, after, NONE, True) is after


def test_a_model_without_them_is_left_alone() -> None:
    own, plain = strategy("merge"), {"x": jnp.ones(2)}
    state = own.init(Learner(plain, NONE, NONE, NONE))
    assert own.view(state, plain, NONE, False) is plain
    assert own.end(state, Learner(plain, NONE, NONE, NONE), NONE, jax.random.key(0))[1].params is plain


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UserError, match="way='sum': expected merge or average"):
        lora_boundary(Stand, way="sum")  # type: ignore[arg-type]
