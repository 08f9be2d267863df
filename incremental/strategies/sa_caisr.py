"""SA-CAISR: contrast with the old model, without the weights that the new data would change most (arXiv 2602.08678)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.cosine import unit
from incremental.core.distillation import NEVER
from incremental.core.mirrors import path_of
from incremental.core.steps import total_weight
from incremental.core.strategy import Strategy, named_key
from incremental.core.types import Batch, Data, Learner, Outputs, Params, Problem, Step, Teacher
from incremental.domains import Count, NotNegative, Positive, Share, checked

MOST = 0.99  # the greatest probability of leaving a weight out


class Questioned(NamedTuple):
    """The last increment's model, and which of its weights the new data would change."""

    teacher: Teacher
    importance: Params  # F


@checked
def sa_caisr(
    problem: Problem,
    *,
    weight: NotNegative = 4.0,
    temperature: Positive = 0.07,
    negatives: Count = 128,
    dropped: Share = 0.8,
    rate: Share = 0.37,
    fade: Share = 0.9,
) -> Strategy:
    """Loss: data loss + weight · C, C a contrast of the batch's scores with those of a masked old model.

    In each step g is the gradient, at the old model's weights, of the head's loss on the batch, and elementwise
    F ← (1 - `rate`) F + `rate` g²; F = 0 at an increment's start, and F ← `fade` F after each epoch. Of each tensor a
    weight is left out of the old model with probability p = `dropped` · (F - min F) / (max F - min F), at most 0.99,
    min and max over the tensor, and multiplied by 1 / (1 - p) else: a new mask each step.

    C = mean over the batch's rows i of -log [exp(s_ii / τ) / (exp(s_ii / τ) + Σ_j exp(s_ij / τ))], j the `negatives`
    other rows with the largest s_ij, s_ij the cosine of the model's scores of row i with the masked old model's of row
    j, both [V] over the items seen so far (0 for a row of zeros), τ = `temperature`. The old model is the last
    increment's, without dropout and without a gradient. The rows of items that are new in the increment are random in
    it, and still take part, as in the code (Togmm/SA-CAISR at b1618a3). C does not vanish where the two models are
    equal.

    All examples that are in the batch take part, those of other strategies too. It reads the scores of the whole
    catalogue, whatever the head. A step costs two further forward passes and one backward pass; of a model that
    branches on the lengths of histories (`sasrec`, `gru4rec`) one more of each, for `loss` and `record` need the same
    g. State: 2 floats a parameter.
    """

    def importance(state: Questioned, batch: Batch) -> Params:
        """F with this batch's g."""

        def entropy(params: Params) -> Array:
            rows = problem.loss(params, problem.apply(params, batch.inputs), batch)
            return jnp.where(batch.valid, batch.weight * rows, 0.0).sum() / jnp.maximum(total_weight(batch), 1e-6)

        g = jax.grad(entropy)(state.teacher.params)
        return jax.tree.map(lambda f, g: (1.0 - rate) * f + rate * g**2, state.importance, g)

    def init(learner: Learner) -> Questioned:
        zeros = jax.tree.map(jnp.zeros_like, learner.params)
        return Questioned(Teacher(learner.params, jnp.float32(0.0)), zeros)

    def begin(state: Questioned, learner: Learner, data: Data, key: Array) -> tuple[Questioned, Learner]:
        del data, key
        return state._replace(importance=jax.tree.map(jnp.zeros_like, state.importance)), learner

    def prepare(state: Questioned, learner: Learner, data: Data, key: Array) -> Questioned:
        """Fades F between two epochs; before the first one it is 0."""
        del learner, data, key
        return state._replace(importance=jax.tree.map(lambda f: fade * f, state.importance))

    def batch(state: Questioned, batch: Batch, key: Array) -> Batch:
        """Leaves the key of the step's mask."""
        del state
        return batch._replace(memory=key)

    def loss(state: Questioned, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del params
        state = jax.lax.stop_gradient(state)
        old = masked(state.teacher.params, importance(state, batch), dropped, batch.memory)
        told = problem.apply(jax.lax.stop_gradient(old), batch.inputs)
        mean = contrast(outputs.scores, told.scores, batch, negatives, temperature)
        return weight * state.teacher.ready * mean

    def record(state: Questioned, step: Step, key: Array) -> Questioned:
        """Of the g that `loss` has taken: XLA computes it once where the model has no branches."""
        del key
        return state._replace(importance=importance(state, step.batch))

    def end(state: Questioned, learner: Learner, data: Data, key: Array) -> tuple[Questioned, Learner]:
        del data, key
        return state._replace(teacher=Teacher(learner.params, jnp.float32(1.0))), learner

    return Strategy(init=init, begin=begin, prepare=prepare, batch=batch, loss=loss, record=record, end=end, late=True)


def masked(params: Params, importance: Params, dropped: float | Array, key: Array) -> Params:
    """The parameters, of which those of great `importance` are likely to be 0; their mean over keys is `params`."""

    def of(path: jax.tree_util.KeyPath, leaf: Array, f: Array) -> Array:
        p = jnp.minimum(dropped * (f - f.min()) / jnp.maximum(f.max() - f.min(), 1e-30), MOST)
        kept = jax.random.bernoulli(named_key(key, path_of(path)), 1.0 - p)
        return jnp.where(kept, leaf / (1.0 - p), 0.0)

    return jax.tree_util.tree_map_with_path(of, params, importance)


def contrast(said: Array, told: Array, batch: Batch, negatives: int, temperature: float | Array) -> Array:
    """C of the scores [B, V] of model and old model."""
    among = jnp.ones(said.shape[1], bool) if batch.candidates is None else batch.candidates
    similar = unit(said * among) @ unit(told * among).T / temperature
    own = jnp.diagonal(similar)
    other = batch.valid & ~jnp.eye(len(own), dtype=bool)
    most, _ = jax.lax.top_k(jnp.where(other, similar, NEVER), min(negatives, len(own) - 1))
    rows = jax.nn.logsumexp(jnp.concatenate([own[:, None], most], 1), 1) - own
    return jnp.where(batch.valid, rows, 0.0).sum() / jnp.maximum(batch.valid.sum(), 1)
