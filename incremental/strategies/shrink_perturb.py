"""Shrink and perturb: old weights are scaled down and mixed with new ones (Ash & Adams 2020, arXiv 1910.08475)."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.ids import Ids, nobody, rows_of, trained
from incremental.core.strategy import Strategy
from incremental.core.types import Data, Learner, Problem
from incremental.domains import NotNegative, checked


@checked
def shrink_perturb(problem: Problem, *, shrink: NotNegative = 0.8, perturb: NotNegative = 0.2) -> Strategy:
    """Before each increment's training but the first: θ <- shrink · θ + perturb · θ', θ' a fresh initialisation.

    The paper adds noise of one scale to all weights; a fresh initialisation has each parameter's own. The rows of ids
    that no finished increment trained are left as they are: they are fresh. Optimizer moments are left to
    training.moments. shrink = 1 with perturb = 0 is off. State: 1 bool an id.
    """

    def begin(state: Ids, learner: Learner, data: Data, key: Array) -> tuple[Ids, Learner]:
        del data
        mine = rows_of(problem, learner.params, state, others=True)
        later = state.labels.any()

        def mixed(old: Array, fresh: Array, mine: Array) -> Array:
            return jnp.where(mine & later, shrink * old + perturb * fresh, old)

        return state, learner._replace(params=jax.tree.map(mixed, learner.params, problem.init(key), mine))

    def end(state: Ids, learner: Learner, data: Data, key: Array) -> tuple[Ids, Learner]:
        del state, data, key
        return trained(learner), learner

    return Strategy(init=nobody, begin=begin, end=end)
