"""Synaptic intelligence: importance is what a weight's path contributed to the drop of the loss (Zenke et al. 2017)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.quadratic import penalty
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem, Step
from incremental.domains import NotNegative, Positive, checked


class Synapses(NamedTuple):
    """The path integral of the running increment, the importances of the finished ones, and their last weights."""

    path: Params  # ω
    importance: Params  # Ω
    anchor: Anchor


@checked
def si(problem: Problem, *, weight: NotNegative = 0.1, damping: Positive = 1e-3) -> Strategy:
    """Loss: weight · Σ_i Ω_i (θ_i - θ*_i)², without ½ as in the paper (Zenke et al. 2017, arXiv 1703.04200, eq. 4).

    After each step, every epoch: ω_i <- ω_i - g_i Δ_i, with g the gradient of the data loss over all rows of the batch,
    and Δ the update as added. The strategies' terms of parameters are subtracted from g, those of outputs, as a
    distillation's, are not. ADER and IncCTR score items with the item table: its part of their gradient is subtracted.
    Σ_i ω_i is then the drop of the data loss, up to the step size and the noise of batches. At the end of each
    increment t

        Ω_i <- Ω_i + max(ω_i, 0) / ((θ_ti - θ*_i)² + damping),    θ* <- θ_t,    ω <- 0.

    The sum over increments and the denominator are the paper's (eq. 5, `damping` its ξ); negative contributions are cut
    at 0, in the authors' code after the sum, here before it. Rows that `begin` hooks of other strategies move count
    in θ_t - θ*. State: 3 floats a parameter.
    """
    del problem

    def init(learner: Learner) -> Synapses:
        zeros = jax.tree.map(jnp.zeros_like, learner.params)
        return Synapses(zeros, zeros, Anchor(learner.params))

    def loss(state: Synapses, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        return 2.0 * weight * penalty(params, state.anchor.params, state.importance)

    def record(state: Synapses, step: Step, key: Array) -> Synapses:
        del key
        path = jax.tree.map(
            lambda path, grad, own, update: path - (grad - own) * update,
            state.path,
            step.grads,
            step.penalty,
            step.updates,
        )
        return state._replace(path=path)

    def end(state: Synapses, learner: Learner, data: Data, key: Array) -> tuple[Synapses, Learner]:
        del data, key
        importance = jax.tree.map(
            lambda total, path, now, before: total + jnp.maximum(path, 0.0) / ((now - before) ** 2 + damping),
            state.importance,
            state.path,
            learner.params,
            state.anchor.params,
        )
        return Synapses(jax.tree.map(jnp.zeros_like, state.path), importance, Anchor(learner.params)), learner

    return Strategy(init=init, loss=loss, record=record, end=end)
