"""Learning without forgetting: the new rows' scores stay near the old model's (Li & Hoiem 2017, arXiv 1606.09282)."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.distillation import Taught, lesson, marked, taught, untaught
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Outputs, Params, Problem
from incremental.domains import NotNegative, Positive, checked


@checked
def lwf(problem: Problem, *, weight: NotNegative = 1.0, temperature: Positive = 2.0) -> Strategy:
    """Loss: weight · T² · mean over new rows of -Σ_j p_j(teacher) log p_j(student), p = softmax(s / T).

    The teacher is the model at the end of the last increment, without dropout; j runs over the items it was trained
    on. The mean is over the batch's valid rows where this strategy stands in the order of strategies: before a replay
    the increment's own rows, after it the replayed ones too. Rows of a user the teacher did not know are left out of
    it. T = `temperature`; T² keeps the gradient's size as T grows (Hinton et al. 2015, arXiv 1503.02531) and is not in
    Li & Hoiem. It reads the scores of the whole catalogue, [B, V], whatever the head. State: 1 float a parameter, 1
    bool an id.
    """

    def loss(state: Taught, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del params
        student, teacher, share = lesson(problem, state, batch, outputs)
        # Before the teacher knows any item its share is 0; over no items the softmax would be NaN.
        known = state.known.labels | ~state.known.labels.any()
        p = jax.nn.softmax(jnp.where(known, teacher.scores / temperature, -jnp.inf))
        scores = student.scores / temperature
        normaliser = jax.nn.logsumexp(jnp.where(known, scores, -jnp.inf), 1)
        return weight * temperature**2 * (share * (normaliser - (p * scores).sum(1))).sum()

    return Strategy(init=untaught, batch=marked, loss=loss, end=taught)
