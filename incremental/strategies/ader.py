"""ADER: adaptively distilled exemplar replay (Mi, Lin & Faltings 2020, arXiv 2007.12000)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.distillation import NEVER, Over, drawn, refuse_over
from incremental.core.ids import trained
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Outputs, Params, Problem, Teacher
from incremental.domains import Count, NotNegative, checked
from incremental.memory import buffer, exemplars
from incremental.memory.exemplars import Rehearsal
from incremental.memory.quotas import Quotas


class Distilled(NamedTuple):
    """The last increment's exemplars and model."""

    rehearsal: Rehearsal
    teacher: Teacher
    known: Array  # [V] bool: the items that the teacher was trained on


@checked
def ader(
    problem: Problem,
    *,
    capacity: Count = 5000,
    rows: Count = 128,
    weight: NotNegative = 0.8,
    adaptive: bool = True,
    spread: bool = False,
    quotas: Quotas = "multinomial",
    over: Over = "known",
) -> Strategy:
    """Each batch comes with `rows` uniform exemplars, on which the model is distilled from the last increment's end.

    Loss: data loss of the new rows + λ_t (1/n) Σ_drawn KD(x) over the n drawn exemplars, where
    KD(x) = -Σ_i p_i(teacher) log p_i(θ), p the softmax over the items known at the end of the last increment, and
    λ_t = weight sqrt(|I_{t-1}| / |I_t| · |E_{t-1}| / |D_t|): I the items seen so far, E the exemplars, D_t the rows of
    the update at t; without `adaptive` λ_t = weight. `weight` is λ_base, 0.8 in the authors' code for Diginetica. The
    teacher is the model at the end of the last increment, without dropout; in the first there is none and the term is
    0. The exemplars carry no cross-entropy on their labels. They are chosen at the end of an increment by herding on
    hidden vectors of length 1, with `spread` and `quotas` as in `incremental.strategies.exemplar_replay`; the authors'
    code goes through all exemplars once an epoch (`spread`). State: [capacity] rows, P floats, V booleans.

    Each step scores the drawn rows over the whole catalogue twice, whatever the head; with `over` "drawn" over the
    known ones of the N negatives that the head draws for the batch: p is then the softmax of s_j - log Q_j over these,
    Q_j the expected number of draws of j. That estimates KD as the sampled softmax does the cross-entropy, and its
    gradient is 0 where teacher and student agree, whichever are drawn.
    """
    refuse_over("ader", over)
    select = exemplars.selector(problem, "ader", "herding", quotas)

    def init(learner: Learner) -> Distilled:
        known = jnp.zeros_like(learner.catalogue.seen)
        return Distilled(exemplars.nothing(problem.example, capacity), Teacher(learner.params, jnp.float32(0.0)), known)

    def begin(state: Distilled, learner: Learner, data: Data, key: Array) -> tuple[Distilled, Learner]:
        del key
        return state._replace(rehearsal=exemplars.begun(state.rehearsal, learner, data)), learner

    def batch(state: Distilled, batch: Batch, key: Array) -> Batch:
        old = exemplars.beside(state.rehearsal, batch, rows, spread, key)
        joined = buffer.beside(batch, old._replace(weight=jnp.zeros_like(old.weight)))
        return joined._replace(memory=len(batch.labels) + jnp.arange(rows))

    def loss(state: Distilled, params: Params, batch: Batch, outputs: Outputs) -> Array:
        place: Array = batch.memory
        inputs = jax.tree.map(lambda leaf: leaf[place], batch.inputs)
        items: Any
        items, counts, log_q = (slice(None), True, 0.0) if over == "known" else drawn("ader", batch)
        teacher = state.teacher.params
        taught = problem.scores(teacher, problem.apply(teacher, inputs), jnp.arange(rows), items)
        known = (state.known[items] & counts)[None, :]
        target = jax.lax.stop_gradient(jax.nn.softmax(jnp.where(known, taught - log_q, NEVER)))
        said = jax.nn.log_softmax(jnp.where(known, problem.scores(params, outputs, place, items) - log_q, NEVER))
        valid = batch.valid[place]
        mean = jnp.where(valid, -(target * said).sum(1), 0.0).sum() / jnp.maximum(valid.sum(), 1)
        return state.teacher.ready * weight * (state.rehearsal.adapted if adaptive else 1.0) * mean

    def end(state: Distilled, learner: Learner, data: Data, key: Array) -> tuple[Distilled, Learner]:
        memory = select(state.rehearsal.memory, learner, data, key)
        rehearsal = exemplars.ended(state.rehearsal, learner, memory)
        return Distilled(rehearsal, Teacher(learner.params, jnp.float32(1.0)), trained(learner).labels), learner

    return Strategy(init=init, begin=begin, batch=batch, loss=loss, end=end)
