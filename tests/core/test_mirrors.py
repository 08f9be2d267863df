"""What mirrors a parameter, and what is done to all copies of a model at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.mirrors import mirrored
from incremental.core.strategy import Strategy, chain
from incremental.core.types import Anchor, Learner, Params, Teacher
from incremental.errors import UserError

NONE: Any = None
SHAPES = {"item": (4, 2), "head/item": (4, 3), "bias": (4,)}


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ({"mu": {"item": np.zeros((4, 2))}}, "item"),
        ({"mu": {"head": {"item": np.zeros((4, 3))}}}, "head/item"),
        ({"mu": {"head": {"item": np.zeros((4, 2))}}}, None),  # the longest path counts
        ({"mu": {"myitem": np.zeros((4, 2))}}, None),
        ({"mu": {"item": np.zeros((4, 1))}}, None),
        ({"bias": np.zeros(4)}, "bias"),
    ],
)
def test_a_mirror_is_known_by_the_end_of_its_path_and_its_shape(tree: Any, found: str | None) -> None:
    ((path, leaf),) = jax.tree_util.tree_leaves_with_path(tree)
    assert mirrored(path, leaf, SHAPES) == found


def rebase(params: Params, key: Any) -> Params:
    """x and y in other parts, of one sum."""
    part = jax.random.uniform(key, params["x"].shape)
    return {**params, "x": params["x"] + params["y"] - part, "y": part}


def keeps(kind: Any) -> Strategy:
    """Copies of the parameters, taken in `end`."""
    return Strategy(
        init=lambda learner: kind(learner.params), end=lambda _s, learner, _d, _k: (kind(learner.params), learner)
    )


@jax.jit
def ended(params: Params, increment: Any) -> Any:
    parts = {
        "one": keeps(lambda params: {"deep": Anchor(params)}),
        "mine": Strategy(rebase=rebase),
        "two": keeps(lambda params: Teacher(params, jnp.float32(1.0))),
    }
    return chain(**parts).end(dict.fromkeys(parts, ()), Learner(params, NONE, NONE, increment), NONE, jax.random.key(1))


def test_every_copy_of_the_model_is_rebased_with_the_learner_and_none_in_the_base_part() -> None:
    params: Any = {name: np.full(3, value, np.float32) for name, value in (("x", 1.0), ("y", 2.0), ("z", 5.0))}
    for increment in (0, 1):
        own, learner = ended(params, jnp.int32(increment))
        for copy in (own["one"]["deep"].params, own["two"].params):
            jax.tree.map(np.testing.assert_array_equal, copy, learner.params)
        np.testing.assert_allclose(learner.params["x"] + learner.params["y"], 3.0, rtol=1e-6)
        assert (np.abs(learner.params["x"] - 1.0).max() > 0.1) == (increment == 1)
        np.testing.assert_array_equal(learner.params["z"], 5.0)


def test_what_is_kept_for_each_rebased_parameter_is_refused() -> None:
    learner = Learner({name: jnp.ones(3) for name in ("x", "y", "z")}, NONE, NONE, NONE)
    kept = {
        "refused": lambda params: {"importance": params},
        "by direction": lambda params: {"basis": {"y": jnp.ones((7, *params["y"].shape))}},
    }
    for kind in kept.values():
        with pytest.raises(
            UserError, match=r"strategies\.theirs keeps something for each .* strategies\.mine makes anew"
        ):
            chain(theirs=keeps(kind), mine=Strategy(rebase=rebase)).init(learner)
    chain(theirs=keeps(lambda params: {"z": params["z"]}), mine=Strategy(rebase=rebase)).init(learner)
