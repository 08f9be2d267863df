"""SA-CAISR: contrast with the old model, without the weights that the new data would change most (arXiv 2602.08678)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.cosine import unit
from incremental.core.distillation import NEVER, Over, drawn, refuse_over
from incremental.core.mirrors import path_of
from incremental.core.mixing import words
from incremental.core.steps import total_weight
from incremental.core.strategy import Strategy, named_key
from incremental.core.types import (
    Batch,
    Data,
    Learner,
    Outputs,
    Params,
    Problem,
    Step,
    Teacher,
    with_labels,
    with_negatives,
)
from incremental.domains import Count, NotNegative, Positive, Share, checked

MOST = 0.99  # the greatest probability of leaving a weight out


class Questioned(NamedTuple):
    """The last increment's model, and which of its weights the new data would change."""

    teacher: Teacher
    importance: Params  # F


class Asked(NamedTuple):
    """What a step asks of the old model."""

    importance: Params  # F, with the step's g
    old: Params  # masked
    valid: Array  # [n] bool: which rows are here, without those that later strategies append


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
    over: Over = "known",
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

    The examples are those that are in the batch where this strategy stands in the order of strategies: put it behind a
    replay, and the replayed ones take part. It reads the scores of the whole catalogue, whatever the head; with `over`
    "drawn" those of the N items that the head draws for the batch: each product that a cosine is made of,
    Σ_v a_v b_v over the items v, is then Σ_j a_j b_j / Q_j over the drawn ones, Q_j the expected number of draws of j,
    which has the same mean. A step costs two further forward passes and one backward pass. A probability is resolved to
    1/65,536. Each step moves all of F, so that `training.rows=compact` is refused. State: 2 floats a parameter.
    """
    refuse_over("sa_caisr", over)

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
        """Leaves F with this batch's g, and the masked old model."""
        assert batch.candidates is not None
        teacher = state.teacher.params
        rows = with_negatives(batch)._replace(candidates=with_labels(batch.candidates, batch))

        def entropy(params: Params) -> Array:
            each = problem.loss(params, problem.apply(params, rows.inputs), rows)
            return jnp.where(rows.valid, rows.weight * each, 0.0).sum() / jnp.maximum(total_weight(rows), 1e-6)

        g = jax.grad(entropy)(teacher)
        importance = jax.tree.map(lambda f, g: (1.0 - rate) * f + rate * g**2, state.importance, g)
        return batch._replace(memory=Asked(importance, masked(teacher, importance, dropped, key), batch.valid))

    def loss(state: Questioned, params: Params, batch: Batch, outputs: Outputs) -> Array:
        asked: Asked = batch.memory
        rows = jnp.arange(len(asked.valid))
        told = problem.apply(asked.old, jax.tree.map(lambda leaf: leaf[: len(rows)], batch.inputs))
        if over == "known":
            assert batch.candidates is not None
            pair = outputs.scores[: len(rows)] * batch.candidates, told.scores * batch.candidates
        else:
            items, counts, log_q = drawn("sa_caisr", batch)
            root = jnp.where(counts, jnp.exp(-0.5 * log_q), 0.0)
            said = problem.scores(params, outputs, rows, items)
            pair = said * root, problem.scores(asked.old, told, rows, items) * root
        return weight * state.teacher.ready * contrast(*pair, asked.valid, negatives, temperature)

    def record(state: Questioned, step: Step, key: Array) -> Questioned:
        del key
        return state._replace(importance=step.batch.memory.importance)

    def end(state: Questioned, learner: Learner, data: Data, key: Array) -> tuple[Questioned, Learner]:
        del data, key
        return state._replace(teacher=Teacher(learner.params, jnp.float32(1.0))), learner

    return Strategy(init=init, begin=begin, prepare=prepare, batch=batch, loss=loss, record=record, end=end, late=True)


def masked(params: Params, importance: Params, dropped: float | Array, key: Array) -> Params:
    """The parameters, of which those of great `importance` are likely to be 0; their mean over keys is `params`."""

    def of(path: jax.tree_util.KeyPath, leaf: Array, f: Array) -> Array:
        p = jnp.minimum(dropped * (f - f.min()) / jnp.maximum(f.max() - f.min(), 1e-30), MOST)
        bits = words(named_key(key, path_of(path)), leaf.size).reshape(leaf.shape) >> 16
        return jnp.where(bits >= p * 65536.0, leaf / (1.0 - p), 0.0)

    return jax.tree_util.tree_map_with_path(of, params, importance)


def contrast(said: Array, told: Array, valid: Array, negatives: int, temperature: float | Array) -> Array:
    """C of the scores [B, N] of model and old model, 0 where an item does not count; `valid` [B] bool."""
    similar = unit(said) @ unit(told).T / temperature
    own = jnp.diagonal(similar)
    other = valid & ~jnp.eye(len(own), dtype=bool)
    most, _ = jax.lax.top_k(jnp.where(other, similar, NEVER), min(negatives, len(own) - 1))
    rows = jax.nn.logsumexp(jnp.concatenate([own[:, None], most], 1), 1) - own
    return jnp.where(valid, rows, 0.0).sum() / jnp.maximum(valid.sum(), 1)
