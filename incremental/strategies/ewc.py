"""Elastic weight consolidation, with an anchor for each past increment (Kirkpatrick et al. 2017, arXiv 1612.00796)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.quadratic import Labels, fisher, penalty, refuse
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem
from incremental.domains import Count, NotNegative, checked


class Consolidated(NamedTuple):
    """The sum of all past penalties, in constant size."""

    importance: Params  # Σ_t F_t
    anchor: Anchor  # Σ_t F_t θ_t / Σ_t F_t, where ΣF > 0


@checked
def ewc(problem: Problem, *, weight: NotNegative = 1.0, samples: Count = 512, labels: Labels = "observed") -> Strategy:
    """Loss: weight/2 · Σ_t Σ_i F_ti (θ_i - θ_ti)², over the finished increments t.

    F_t is the diagonal Fisher at the end of increment t: the mean of `samples` single examples' squared gradients, at
    their observed (true) labels, the predicted ones or ones sampled from the model
    (`incremental.core.quadratic.fisher`). The separate anchors θ_t are kept as one, the F-weighted mean, whose
    penalty differs by a constant and so has the same gradient. State: 2 floats a parameter.
    """
    refuse("ewc", labels)

    def init(learner: Learner) -> Consolidated:
        return Consolidated(jax.tree.map(jnp.zeros_like, learner.params), Anchor(learner.params))

    def loss(state: Consolidated, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        return weight * penalty(params, state.anchor.params, state.importance)

    def end(state: Consolidated, learner: Learner, data: Data, key: Array) -> tuple[Consolidated, Learner]:
        new = fisher(problem, learner, data, key, samples, labels)
        total = jax.tree.map(jnp.add, state.importance, new)
        anchor = jax.tree.map(
            lambda old, now, f, all_f: jnp.where(
                all_f > 0, old + (f / jnp.where(all_f > 0, all_f, 1.0)) * (now - old), now
            ),
            state.anchor.params,
            learner.params,
            new,
            total,
        )
        return Consolidated(total, Anchor(anchor)), learner

    return Strategy(init=init, loss=loss, end=end)
