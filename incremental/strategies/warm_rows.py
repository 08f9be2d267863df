"""Warm rows: a new item starts where items that are known already stand, not at random."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.ids import nobody, trained
from incremental.core.mirrors import mirrored, path_of
from incremental.core.strategy import Strategy
from incremental.core.types import Data, Learner, Params, Problem, PyTree
from incremental.domains import Positive, checked
from incremental.errors import UserError

Source = Literal["mean", "neighbours", "text"]


@checked
def warm_rows(problem: Problem, *, source: Source = "mean", ridge: Positive = 1.0) -> Strategy:
    """Before an increment's training, each item whose first training events it brings gets a row in every item table.

    "mean": the mean of the known items' rows. "neighbours": the mean of the rows of the known items that the increment
    shows together with it, each as often as it does: those in the histories of the rows whose label is the new item,
    or, in a model without histories, the labels of the same user's rows; the mean of all where there are none. "text":
    what the items' texts predict, m + x W with W = (XᵀX + `ridge` I)⁻¹ Xᵀ(E - m): X [known, F] the known items' text
    vectors (`data.text`), E their rows, m the rows' mean. Known are the items of earlier increments; in the first,
    every row keeps its random start. The mean is the start of Hewitt (2021, "Initializing new word embeddings for
    pretrained language models") without its noise; the neighbours are those of item-based nearest neighbours (Sarwar
    et al. 2001); the map from text is that of Gantner et al. (2010, "Learning attribute-to-feature mappings for
    cold-start recommendations"), linear.

    The rows' optimizer state becomes that of the padding row, which no gradient reaches: 0 for moments, the
    accumulator's start for AdaGrad. After a fresh start (update.start=afresh) all rows are random, means too. State: 1
    bool an item.
    """
    if source not in get_args(Source):
        raise UserError(f"strategies.warm_rows: source={source!r}: expected {' or '.join(get_args(Source))}")

    def from_text(table: Array, known: Array, mean: Array, text: Array) -> Array:
        """[V, D]: what each item's text vector says of its row."""
        shown = jnp.where(known[:, None], text, 0.0)
        square = shown.T @ shown + ridge * jnp.eye(text.shape[1])
        return mean + text @ jax.scipy.linalg.solve(square, shown.T @ (table - mean), assume_a="pos")

    def begin(known: Array, learner: Learner, data: Data, key: Array) -> tuple[Array, Learner]:
        del key
        met = trained(learner).labels
        new = met & ~known & known.any()
        if source == "text" and ("text" not in data.side or data.side["text"].ndim != 2):
            raise UserError(
                "strategies.warm_rows: source=text needs a vector for each item's text: +text@data.text=hashed_words "
                "or encoded"
            )

        def warmed(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
            if problem.tables.get(path_of(path)) != problem.labels:
                return leaf
            table = leaf.reshape(len(leaf), -1)
            rows = jnp.where(known[:, None], table, 0.0).sum(0) / jnp.maximum(known.sum(), 1)
            if source == "neighbours":
                total, count = beside(table, known, data, len(learner.catalogue.arrived["user"]))
                rows = jnp.where(count > 0, total / jnp.maximum(count, 1.0), rows)
            elif "text" in data.side and source == "text":
                rows = from_text(table, known, rows, data.side["text"])
            return jnp.where(new[:, None], rows, table).reshape(leaf.shape)

        params = jax.tree_util.tree_map_with_path(warmed, learner.params)
        opt_state = without_past(problem, learner.opt_state, learner.params, new)
        return met, learner._replace(params=params, opt_state=opt_state)

    return Strategy(init=lambda learner: nobody(learner).labels, begin=begin)


def beside(table: Array, known: Array, data: Data, users: int) -> tuple[Array, Array]:
    """For each item the sum [V, D] of the known items' rows that occur with it, and how many they are [V, 1]."""
    rows = data.rows
    real = rows.valid & (jnp.arange(len(rows.labels)) < data.size)
    labels = jnp.where(real, rows.labels, 0)  # to the padding row, which is never new

    def add(total: Array, ids: Array) -> tuple[Array, None]:
        return total + counted[ids], None

    # The last column counts.
    counted = jnp.where(known[:, None], jnp.pad(table, ((0, 0), (0, 1)), constant_values=1.0), 0.0)
    if "history" in rows.inputs:
        shown, _ = jax.lax.scan(add, jnp.zeros((len(labels), counted.shape[1])), rows.inputs["history"].T)
    else:
        user = jnp.where(real, rows.inputs.get("user", rows.owner), 0)
        shown = jnp.zeros((users, counted.shape[1])).at[user].add(counted[labels])[user]
    total = jnp.zeros_like(counted).at[labels].add(shown)
    return total[:, :-1], total[:, -1:]


def without_past(problem: Problem, opt_state: PyTree, params: Params, new: Array) -> PyTree:
    """The optimizer's state with the padding row's in the new rows of every leaf that mirrors an item table."""
    shapes = {path_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def renewed(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        if problem.tables.get(mirrored(path, leaf, shapes) or "") != problem.labels:
            return leaf
        return jnp.where(new.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf[:1], leaf)

    return jax.tree_util.tree_map_with_path(renewed, opt_state)
