"""How the laws look at states: what is in them, and how two differ."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, PyTree, State


def first_batch(strategy: Strategy, own: Any, begun: State, data: Data, rows: int = 16) -> Batch:
    """The first rows of an increment as a step sees them."""

    @jax.jit  # one program; op by op there would be dozens
    def drawn(own: Any, data: Data, seen: Any) -> Batch:
        new = jax.tree.map(lambda leaf: leaf[:rows], data.rows)._replace(candidates=seen, step=jnp.int32(0), own=rows)
        return strategy.batch(own, new, jax.random.key(0))

    batch: Batch = drawn(own, data, begun.learner.catalogue.seen)
    return batch


def found(tree: PyTree, kind: type) -> list[Any]:
    """The instances of `kind` in a tree."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def numbered(rows: Batch) -> list[tuple[int, Any]]:
    """The valid rows by the number in their weight."""
    host = jax.tree.map(np.asarray, rows)
    index = np.flatnonzero(host.valid)
    numbers = np.rint((host.weight[index] - 1.0) * 4096).astype(int).tolist()
    fields = [
        (
            {name: ids[i].tolist() for name, ids in host.inputs.items()},
            int(host.labels[i]),
            int(host.increment[i]),
            int(host.owner[i]),
        )
        for i in index
    ]
    return list(zip(numbers, fields, strict=True))


def brief(row: Any) -> str:
    """A numbered row in a line."""
    inputs, label, increment, owner = row
    read = ", ".join(f"{name} {ids}" for name, ids in inputs.items())
    return f"{read}, item {label}, increment {increment}, owner {owner}"


def first_line(error: Exception) -> str:
    """Of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def types_of(tree: PyTree) -> Any:
    """Structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def difference(one: PyTree, other: PyTree) -> str:
    """The first leaf whose type differs."""
    old, new = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)} for tree in (one, other)
    )
    for path in old.keys() | new.keys():
        was, now = (
            f"{leaf.dtype}{list(leaf.shape)}" if (leaf := tree.get(path)) is not None else "nothing"
            for tree in (old, new)
        )
        if was != now:
            return f"{path}: {was}, then {now}"
    return "its structure"


def gap_between(one: PyTree, other: PyTree) -> float:
    """The largest difference, infinities that both have apart."""

    def largest(a: Any, b: Any) -> float:
        a, b = np.asarray(a), np.asarray(b)
        both = np.isfinite(a)
        if not np.array_equal(both, np.isfinite(b)):
            return float("inf")
        return float(np.max(np.abs(np.where(both, a, 0.0) - np.where(both, b, 0.0)), initial=0.0))

    return max(jax.tree.leaves(jax.tree.map(largest, one, other)))


def norm(tree: PyTree) -> float:
    """Euclidean norm over the float leaves."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return float(np.sqrt(sum(float((leaf.astype(np.float64) ** 2).sum()) for leaf in leaves)))


def differs(one: PyTree, other: PyTree) -> bool:
    """Whether any leaf differs in a bit of its value."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(not np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in pairs)
