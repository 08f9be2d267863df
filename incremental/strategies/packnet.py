"""PackNet: each increment owns some weights, which never move again (Mallya & Lazebnik 2018, arXiv 1711.05769)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.ids import nobody, rows_of, trained
from incremental.core.mirrors import path_of
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Data, Learner, Params, Problem
from incremental.domains import Share, checked
from incremental.errors import UserError


class Packed(NamedTuple):
    """Which weights finished increments own, and their values."""

    owned: Params  # of bool arrays
    anchor: Anchor


def largest(size: Array, free: Array, keep: float) -> Array:
    """A mask of round(keep · free elements) free elements, those of largest `size`; of equal ones the first."""
    order = jnp.argsort(jnp.where(free, -size, jnp.inf).ravel())
    rank = jnp.zeros(size.size, jnp.int32).at[order].set(jnp.arange(size.size, dtype=jnp.int32))
    return free & (rank < jnp.round(keep * free.sum())).reshape(size.shape)


@checked
def packnet(problem: Problem, *, keep: Share = 0.25, tables: bool = False) -> Strategy:
    """At the end of each increment the share `keep` of each kernel's free weights, the largest, is owned from then on.

    The kernel's other free weights are set to 0 and stay free for later increments: after t increments a share
    (1 - keep)^t is. The number owned is rounded; magnitudes are compared within a kernel, as in the paper. Parameters
    with one axis (biases, normalisations) are not pruned but owned whole after the first increment, as there. Owned
    weights do not move: their updates are 0, and what other strategies do to them is undone at the next increment's
    start and never seen by the model.

    Unlike the paper: no retraining after pruning, for there is no training behind an increment's end, so that the next
    test meets the pruned model; and one model of all increments' weights, for a request does not name its increment.

    Id tables are left alone: ids recur and arrive in every increment, so a row belongs to no single one. `tables`
    packs them as kernels, over the rows of the ids met so far; a model of tables only needs it. It acts in the
    base part too, whose end leaves weights free for what follows. State: 1 float and 1 byte a parameter.
    """
    shapes = jax.eval_shape(lambda: problem.init(jax.random.key(0)))
    named = [(path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)]
    if not tables and all(name in problem.tables or leaf.ndim < 2 for name, leaf in named):
        raise UserError(
            "strategies.packnet: tables=false: there is nothing to pack in a model whose only kernels are id tables; "
            "set tables=true, or choose a model with dense layers"
        )

    def restored(state: Packed, params: Params) -> Params:
        return jax.tree.map(jnp.where, state.owned, state.anchor.params, params)

    def init(learner: Learner) -> Packed:
        return Packed(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), learner.params), Anchor(learner.params))

    def begin(state: Packed, learner: Learner, data: Data, key: Array) -> tuple[Packed, Learner]:
        del data, key
        return state, learner._replace(params=restored(state, learner.params))

    def view(state: Packed, params: Params, increment: Array, training: bool) -> Params:
        del increment, training
        return restored(state, params)

    def updates(state: Packed, updates: Params, params: Params) -> Params:
        del params
        return jax.tree.map(lambda owned, update: jnp.where(owned, 0.0, update), state.owned, updates)

    def end(state: Packed, learner: Learner, data: Data, key: Array) -> tuple[Packed, Learner]:
        del data, key
        params = restored(state, learner.params)
        mine = rows_of(problem, params, trained(learner) if tables else nobody(learner), others=True)

        def own(path: jax.tree_util.KeyPath, leaf: Array, owned: Array, mine: Array) -> Array:
            free = mine & ~owned
            kernel = leaf.ndim > 1 or path_of(path) in problem.tables
            return owned | (largest(jnp.abs(leaf), free, keep) if kernel else free)

        owned = jax.tree_util.tree_map_with_path(own, params, state.owned, mine)
        params = jax.tree.map(lambda leaf, owned, mine: jnp.where(mine & ~owned, 0.0, leaf), params, owned, mine)
        return Packed(owned, Anchor(params)), learner._replace(params=params)

    return Strategy(init=init, begin=begin, view=view, updates=updates, end=end, early=True)
