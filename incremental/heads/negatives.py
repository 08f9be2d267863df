"""Negatives shared by a batch's rows, and the strategy that draws them."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.errors import UserError
from incremental.problem import Items
from incremental.strategy import Strategy
from incremental.types import Batch, Data, Learner, Outputs


def drawn(number: int, power: float) -> Strategy:
    """A strategy that draws `number` negatives a batch, with replacement, from the items seen so far.

    Item i is drawn with probability q_i proportional to (its training events)^power: 0 is uniform, 1 popularity
    (word2vec's 0.75 is Mikolov et al. 2013). It fills `negatives` [N] and `log_q` [N] = log(N q).
    Its state is log q [V] float32, taken anew from the catalogue at the start of each increment.
    """
    if number < 1:
        raise UserError(f"head.negatives={number}: expected at least 1")

    def begin(state: Array, learner: Learner, data: Data, key: Array) -> tuple[Array, Learner]:
        del state, data, key
        catalogue = learner.catalogue
        weight = jnp.where(catalogue.seen, jnp.maximum(catalogue.events, 1.0) ** power, 0.0)
        return jnp.log(weight) - jnp.log(weight.sum()), learner

    def batch(state: Array, batch: Batch, key: Array) -> Batch:
        cumulative = jnp.cumsum(jnp.exp(state))
        draws = jax.random.uniform(key, (number,)) * cumulative[-1]
        negatives = jnp.searchsorted(cumulative, draws, side="right").astype(jnp.int32)
        return batch._replace(negatives=negatives, log_q=jnp.log(float(number)) + state[negatives])

    return Strategy(init=lambda learner: jnp.zeros(learner.catalogue.seen.shape), begin=begin, batch=batch)


def scored(items: Items, outputs: Outputs, batch: Batch) -> tuple[Array, Array, Array]:
    """The label's score [B], the negatives' [B, N], and which negatives count [B, N] bool.

    A negative that is the row's own label does not count. Without drawn negatives every candidate is one.
    """
    positive = (outputs.hidden * items.table[batch.labels]).sum(1) + items.bias[batch.labels]
    if batch.negatives is None:
        ids = jnp.arange(len(items.table))
        scores = outputs.scores
        counts = ids != batch.labels[:, None]
        return positive, scores, counts if batch.candidates is None else counts & batch.candidates
    scores = outputs.hidden @ items.table[batch.negatives].T + items.bias[batch.negatives]
    return positive, scores, batch.negatives != batch.labels[:, None]


def mean_over(values: Array, counts: Array) -> Array:
    """[B]: the mean of values [B, N] where counts, 0 where nothing does."""
    return jnp.where(counts, values, 0.0).sum(1) / jnp.maximum(counts.sum(1), 1)
