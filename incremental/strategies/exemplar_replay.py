"""Replay of exemplars chosen at each increment's end (iCaRL: Rebuffi et al. 2017, arXiv 1611.07725)."""

import jax.numpy as jnp
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Problem
from incremental.domains import Count, NotNegative, checked
from incremental.memory import buffer, exemplars
from incremental.memory.exemplars import Rehearsal
from incremental.memory.quotas import Quotas


@checked
def exemplar_replay(
    problem: Problem,
    *,
    capacity: Count = 5000,
    rows: Count = 128,
    weight: NotNegative = 1.0,
    adaptive: bool = False,
    spread: bool = False,
    selection: exemplars.Selection = "herding",
    quotas: Quotas = "proportional",
    groups: exemplars.Groups = "label",
) -> Strategy:
    """Each batch of new rows comes with `rows` uniform ones of at most `capacity` exemplars.

    Loss: Σ_new w ℓ / Σ_new w + weight Σ_replayed w ℓ / B. With `adaptive`, ADER's (Mi et al. 2020, arXiv 2007.12000):
    the mean over the new rows + λ_t times the mean over the replayed ones, λ_t = weight sqrt(|I_{t-1}| / |I_t| ·
    |E_{t-1}| / |D_t|), I the items seen so far, E the exemplars, D_t the rows of the update at t. With `spread` they
    come in turn, ⌊|E| / batches⌋ beside each batch, so that each comes once an epoch; `rows` is then the most a batch.

    At the end of an increment the exemplars are chosen anew from its training and validation rows and the memory's (an
    update on a window may so replay rows for validation of older increments). Each label v with n_v of
    these n rows gets slots by `quotas`: "proportional" (capacity n_v / n, largest remainder), "balanced" (the same for
    each as far as its rows go), "multinomial" (`capacity` draws with chances n_v / n: ADER), "uniform" (`capacity`
    draws, each label with rows as likely) or "uniform_seen" (`capacity` draws, each item seen so far as likely; draws
    of items without rows are lost: the code of ADER-equal). They never exceed n_v, and sum to the capacity, or where
    they are drawn to less. With `groups` "increment" the increments share the memory in the labels' stead; "balanced"
    is then the equal share of each task that continual learning is used to. Within a label `selection` takes "herding"
    (in round k the row that brings the mean of the k taken closest to the label's mean, on hidden vectors of length 1),
    "loss" (the greatest ones over all seen items), "least_loss" (ER-loss as ADER's paper has it), "random" rows, or
    "one" random row however many slots there are (ER-loss in ADER's code). State: the memory, [capacity] rows. The
    choice costs one forward pass over the candidates, unless it is random, and for herding as many rounds as the
    largest quota.
    """
    select = exemplars.selector(problem, "exemplar_replay", selection, quotas, groups)

    def begin(state: Rehearsal, learner: Learner, data: Data, key: Array) -> tuple[Rehearsal, Learner]:
        del key
        return exemplars.begun(state, learner, data), learner

    def batch(state: Rehearsal, batch: Batch, key: Array) -> Batch:
        old = exemplars.beside(state, batch, rows, spread, key)
        own = old.weight * weight
        if adaptive:
            drawn = jnp.where(old.valid, old.weight, 0.0).sum()  # the mean over them, of a sum that is divided by B
            own = own * state.adapted * batch.own / jnp.maximum(drawn, 1e-6)
        return buffer.beside(batch, old._replace(weight=own))

    def end(state: Rehearsal, learner: Learner, data: Data, key: Array) -> tuple[Rehearsal, Learner]:
        return exemplars.ended(state, learner, select(state.memory, learner, data, key)), learner

    return Strategy(
        init=lambda _learner: exemplars.nothing(problem.example, capacity),
        begin=begin,
        batch=batch,
        end=end,
    )
