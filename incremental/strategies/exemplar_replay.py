"""Replay of exemplars chosen at each increment's end (iCaRL: Rebuffi et al. 2017, arXiv 1611.07725)."""

from jax import Array

from incremental.memory import buffer, exemplars
from incremental.memory.quotas import Quotas
from incremental.memory.sizes import refuse_none
from incremental.strategy import Strategy
from incremental.types import Batch, Data, Learner, Memory, Problem


def exemplar_replay(
    problem: Problem,
    *,
    capacity: int = 5000,
    rows: int = 128,
    weight: float = 1.0,
    selection: exemplars.Selection = "herding",
    quotas: Quotas = "proportional",
    groups: exemplars.Groups = "label",
) -> Strategy:
    """Each batch of new rows comes with `rows` uniform ones of at most `capacity` exemplars.

    Loss: (Σ_new w ℓ + weight Σ_replayed w ℓ) / Σ_new w. At the end of an increment the exemplars are chosen anew from
    its training rows and the memory's. Each label v with n_v of these n rows gets slots by `quotas`: "proportional"
    (capacity n_v / n, largest remainder), "balanced" (the same for each as far as its rows go) or "multinomial"
    (`capacity` draws with chances n_v / n: ADER, Mi et al. 2020, arXiv 2007.12000); they sum to the capacity and never
    exceed n_v. With `groups` "increment" the increments share the memory in the labels' stead; "balanced" is then the
    equal share of each task that continual learning is used to. Within a label `selection` takes "herding" (in round k
    the row that brings the mean of the k taken closest to the label's mean, on hidden vectors of length 1), "loss" (the
    greatest ones over all seen items) or "random" rows. State: the memory, [capacity] rows. The choice costs one
    forward pass over the candidates and, for herding, as many rounds as the largest quota.
    """
    refuse_none("exemplar_replay", capacity=capacity, rows=rows)
    select = exemplars.selector(problem, "exemplar_replay", selection, quotas, groups)

    def batch(state: Memory, batch: Batch, key: Array) -> Batch:
        old = exemplars.sample(state, rows, key)
        return buffer.beside(batch, old._replace(weight=old.weight * weight))

    def end(state: Memory, learner: Learner, data: Data, key: Array) -> tuple[Memory, Learner]:
        return select(state, learner, data, key), learner

    return Strategy(init=lambda _learner: buffer.empty(problem.example, capacity), batch=batch, end=end)
