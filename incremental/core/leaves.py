"""Parameters by path, for strategies that treat matrices apart from id tables and vectors."""

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.core.types import Params, Problem

Pairs = dict[str, dict[str, Array]]
"""path -> "a" [D_in, r], "b" [r, D_out] and, with model.merges, "merged" [D_in, D_out]"""


def by_path(tree: Params) -> dict[str, Array]:
    """The leaves of nested dicts, by their keys joined with "/"."""
    return dict(flatten_dict(tree, sep="/"))


def replaced(tree: Params, new: dict[str, Array]) -> Params:
    """The tree with the leaves at these paths replaced."""
    return unflatten_dict({**by_path(tree), **new}, sep="/")


def matrices(problem: Problem) -> dict[str, tuple[int, ...]]:
    """Shape of every 2-D leaf of the parameters, by path; id tables too."""
    shapes = by_path(jax.eval_shape(problem.init, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in shapes.items() if leaf.ndim == 2}


def kernels(problem: Problem) -> dict[str, tuple[int, ...]]:
    """Shape [D_in, D_out] of every dense kernel, by path: 2-D leaves named "kernel" that are no id table."""
    found = matrices(problem).items()
    return {path: shape for path, shape in found if path.endswith("kernel") and path not in problem.tables}


def is_pair(_: tuple[str, ...], node: dict[str, Array]) -> bool:
    """Where `flatten_dict` stops."""
    return {"a", "b"} <= node.keys()


def pairs(params: Params) -> Pairs:
    """The LoRA matrices that a model adds to frozen kernels, by their paths."""
    found = flatten_dict(params, sep="/", is_leaf=is_pair).items()
    return {path: node for path, node in found if isinstance(node, dict)}
