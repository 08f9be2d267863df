"""What mirrors the parameters, and what a boundary does to it: to all of it what it does to the parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.types import Anchor, Learner, Memory, Params, PyTree, Teacher
from incremental.errors import UserError

Rebase = Callable[[Params, Array], Params]  # (params, key)


def path_of(path: jax.tree_util.KeyPath) -> str:
    """A leaf's path as `Problem.tables` writes it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def mirrored(path: jax.tree_util.KeyPath, leaf: Any, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The parameter, of those with these shapes, that a leaf mirrors: its path ends with that one's, the longest
    counts, and it has its shape."""
    place = "/" + path_of(path)
    name = max((name for name in shapes if place.endswith("/" + name)), key=len, default="")
    return name if name and jnp.shape(leaf) == shapes[name] else None


def whole(node: Any) -> bool:
    """Nodes that are treated as one: whole models' parameters, and rows."""
    return isinstance(node, Anchor | Teacher | Memory)


def rebased(rebase: Rebase, states: PyTree, learner: Learner, key: Array) -> tuple[PyTree, Learner]:
    """The learner and every `Anchor` and `Teacher` in the strategies' states in other parameters of the same function;
    in the base part as they are."""

    def moved(params: Params) -> Params:
        later = learner.increment > 0
        return jax.tree.map(
            lambda new, old: old if new is old else jnp.where(later, new, old), rebase(params, key), params
        )

    def of(node: Any) -> Any:
        return node._replace(params=moved(node.params)) if isinstance(node, Anchor | Teacher) else node

    return jax.tree.map(of, states, is_leaf=whole), learner._replace(params=moved(learner.params))


def refuse_kept(name: str, rebase: Rebase, states: PyTree, params: Params) -> None:
    """What a strategy keeps for each of the parameters that `name` makes anew, such as an importance, or several
    numbers for each, says nothing about the new ones."""
    old = jax.tree_util.tree_leaves_with_path(params)
    changed = jax.tree.leaves(rebase(params, jax.random.key(0)))
    anew = {"/" + path_of(path): leaf.shape for (path, leaf), new in zip(old, changed, strict=True) if new is not leaf}
    for path, node in jax.tree_util.tree_leaves_with_path(states, is_leaf=whole):
        place = "/" + path_of(path)
        kept = (place.endswith(own) and jnp.shape(node)[-len(shape) :] == shape for own, shape in anew.items())
        if not whole(node) and any(kept):
            strategy, _, what = place[1:].partition("/")
            raise UserError(
                f"strategies.{strategy} keeps something for each of the parameters that strategies.{name} makes anew "
                f"at an increment's end ({what}), and it would say nothing about the new ones; leave one of the two out"
            )
