"""L2 to the previous model: every weight is pulled equally to where the last increment left it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.quadratic import penalty
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem
from incremental.domains import NotNegative, checked


class Last(NamedTuple):
    """The last increment's weights."""

    anchor: Anchor
    ready: Array  # [] float32: 0 until the first increment is finished, then 1


@checked
def l2_to_last(problem: Problem, *, weight: NotNegative = 0.01) -> Strategy:
    """Loss: weight/2 · Σ_i (θ_i - θ*_i)², θ* the weights at the end of the last increment; 0 in the first.

    EWC with all importances 1, its usual baseline (Kirkpatrick et al. 2017, arXiv 1612.00796, figure 2); L2-SP where
    θ* is a pre-trained model (Li et al. 2018, arXiv 1802.01483). The rows of ids that the last increment did not know
    are pulled to their random start. State: 1 float a parameter.
    """
    del problem

    def loss(state: Last, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        return weight * state.ready * penalty(params, state.anchor.params, jax.tree.map(jnp.ones_like, params))

    def end(state: Last, learner: Learner, data: Data, key: Array) -> tuple[Last, Learner]:
        del state, data, key
        return Last(Anchor(learner.params), jnp.float32(1.0)), learner

    return Strategy(init=lambda learner: Last(Anchor(learner.params), jnp.float32(0.0)), loss=loss, end=end)
