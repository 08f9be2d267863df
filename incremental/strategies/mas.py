"""Memory aware synapses: importance is how much a weight moves the scores (Aljundi et al. 2018, arXiv 1711.09601)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.ids import trained
from incremental.core.quadratic import mean_over_examples, penalty
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem
from incremental.domains import Count, NotNegative, checked


class Sensitivity(NamedTuple):
    """The summed importances and the weights of the last increment's end."""

    importance: Params
    anchor: Anchor


@checked
def mas(problem: Problem, *, weight: NotNegative = 0.001, samples: Count = 512, together: Count = 1) -> Strategy:
    """Loss: weight/2 · Σ_i Ω_i (θ_i - θ*_i)² with Ω <- Ω + Ω_t and θ* <- θ_t at the end of each increment t.

    Ω_ti = (1/n) Σ_x |∂ ‖s(x)‖² / ∂θ_i|, s the scores of the items seen so far, without dropout: the mean over n =
    `samples` single examples, drawn uniformly with replacement from the increment's training rows. No label enters.
    With `together` b > 1 the size is that of the mean gradient of b examples, of which there are n / b: much of the
    code around has it so, and as the signs of single gradients differ its Ω is smaller and rates weights otherwise.
    Ω is the plain sum over increments, without decay. The paper's loss has no ½. ‖s‖² sums over the catalogue, so a
    weight for one catalogue is not one for another. State: 2 floats a parameter.
    """

    def init(learner: Learner) -> Sensitivity:
        return Sensitivity(jax.tree.map(jnp.zeros_like, learner.params), Anchor(learner.params))

    def loss(state: Sensitivity, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        return weight * penalty(params, state.anchor.params, state.importance)

    def end(state: Sensitivity, learner: Learner, data: Data, key: Array) -> tuple[Sensitivity, Learner]:
        def squared_scores(params: Params, row: Batch, number: Array) -> Array:
            del number
            scores = problem.apply(params, row.inputs).scores
            return (jnp.where(trained(learner).labels, scores, 0.0) ** 2).sum(1).mean()

        new = mean_over_examples(squared_scores, jnp.abs, learner, data, key, samples, together)
        return Sensitivity(jax.tree.map(jnp.add, state.importance, new), Anchor(learner.params)), learner

    return Strategy(init=init, loss=loss, end=end)
