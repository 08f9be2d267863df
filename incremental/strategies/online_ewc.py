"""Online EWC: one decayed Fisher and the last weights as the anchor (Schwarz et al. 2018, arXiv 1805.06370)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.quadratic import Labels, fisher, penalty, refuse
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem
from incremental.domains import Count, NotNegative, Share, checked


class Consolidated(NamedTuple):
    """The running Fisher and the weights it was last taken at."""

    importance: Params
    anchor: Anchor


@checked
def online_ewc(
    problem: Problem,
    *,
    weight: NotNegative = 1.0,
    decay: Share = 0.9,
    samples: Count = 512,
    labels: Labels = "observed",
) -> Strategy:
    """Loss: weight/2 · Σ_i F_i (θ_i - θ*_i)² with F <- decay F + F_t and θ* <- θ_t at the end of each increment t.

    F_t is as in `incremental.strategies.ewc`, `samples` and `labels` too. State: 2 floats a parameter.
    """
    refuse("online_ewc", labels)

    def init(learner: Learner) -> Consolidated:
        return Consolidated(jax.tree.map(jnp.zeros_like, learner.params), Anchor(learner.params))

    def loss(state: Consolidated, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        return weight * penalty(params, state.anchor.params, state.importance)

    def end(state: Consolidated, learner: Learner, data: Data, key: Array) -> tuple[Consolidated, Learner]:
        new = fisher(problem, learner, data, key, samples, labels)
        importance = jax.tree.map(lambda old, new: decay * old + new, state.importance, new)
        return Consolidated(importance, Anchor(learner.params)), learner

    return Strategy(init=init, loss=loss, end=end)
