"""ADER: adaptively distilled exemplar replay (Mi, Lin & Faltings 2020, arXiv 2007.12000)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.memory import buffer, exemplars
from incremental.memory.quotas import Quotas
from incremental.memory.sizes import refuse_none
from incremental.strategy import Strategy
from incremental.types import Batch, Data, Learner, Memory, Outputs, Params, Problem, Teacher

NEVER = -1e30  # the score of an item the teacher did not know: finite, so that no difference of two is NaN


class Distilled(NamedTuple):
    """The last increment's exemplars and model."""

    memory: Memory
    teacher: Teacher
    known: Array  # [V] bool: the teacher's candidates
    adapted: Array  # [] float32: λ_t / weight


def ader(
    problem: Problem, *, capacity: int = 5000, rows: int = 128, weight: float = 0.8, quotas: Quotas = "multinomial"
) -> Strategy:
    """Each batch comes with `rows` uniform exemplars, on which the model is distilled from the last increment's end.

    Loss: data loss of the new rows + λ_t (1/n) Σ_drawn KD(x) over the n drawn exemplars, where
    KD(x) = -Σ_i p_i(teacher) log p_i(θ), p the softmax over the items known at the end of the last increment, and
    λ_t = weight sqrt(|I_{t-1}| / |I_t| · |E_{t-1}| / |D_t|): I the items seen so far, E the exemplars, D_t the rows of
    the update at t. `weight` is λ_base, 0.8 in the authors' code for Diginetica. The teacher is the model at the end of
    the last increment, without dropout; in the first there is none and the term is 0. The exemplars carry no
    cross-entropy on their labels. They are chosen at the end of an increment by herding on hidden vectors of length 1,
    with `quotas` as in `incremental.strategies.exemplar_replay`. Exemplars are drawn with replacement, where the
    authors go through all of them once an epoch. State: [capacity] rows, P floats, V booleans. Each step scores the
    drawn rows over the whole catalogue twice, whatever the head.
    """
    refuse_none("ader", capacity=capacity, rows=rows)
    select = exemplars.selector(problem, "ader", "herding", quotas)

    def init(learner: Learner) -> Distilled:
        memory = buffer.empty(problem.example, capacity)
        known = jnp.zeros_like(learner.catalogue.seen)
        return Distilled(memory, Teacher(learner.params, jnp.float32(0.0)), known, jnp.float32(0.0))

    def begin(state: Distilled, learner: Learner, data: Data, key: Array) -> tuple[Distilled, Learner]:
        del key
        items = state.known.sum() / jnp.maximum(learner.catalogue.seen.sum(), 1)
        examples = state.memory.rows.valid.sum() / jnp.maximum(data.size, 1)
        return state._replace(adapted=jnp.sqrt(items * examples).astype(jnp.float32)), learner

    def batch(state: Distilled, batch: Batch, key: Array) -> Batch:
        old = exemplars.sample(state.memory, rows, key)
        joined = buffer.beside(batch, old._replace(weight=jnp.zeros_like(old.weight)))
        return joined._replace(memory=len(batch.labels) + jnp.arange(rows))

    def loss(state: Distilled, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del params
        place: Array = batch.memory
        inputs = jax.tree.map(lambda leaf: leaf[place], batch.inputs)
        taught = jax.lax.stop_gradient(problem.apply(state.teacher.params, inputs).scores)
        known = state.known[None, :]
        target = jax.nn.softmax(jnp.where(known, taught, NEVER))
        entropy = -(target * jax.nn.log_softmax(jnp.where(known, outputs.scores[place], NEVER))).sum(1)
        valid = batch.valid[place]
        mean = jnp.where(valid, entropy, 0.0).sum() / jnp.maximum(valid.sum(), 1)
        return state.teacher.ready * weight * state.adapted * mean

    def end(state: Distilled, learner: Learner, data: Data, key: Array) -> tuple[Distilled, Learner]:
        memory, teacher = select(state.memory, learner, data, key), Teacher(learner.params, jnp.float32(1.0))
        return Distilled(memory, teacher, learner.catalogue.seen, state.adapted), learner

    return Strategy(init=init, begin=begin, batch=batch, loss=loss, end=end)
