"""The strategies as this paper's code has them, where it differs from `incremental/strategies`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.quadratic import penalty
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem, Step
from incremental.memory import buffer
from incremental.strategies.agem import References, agem
from incremental.strategies.mas import Sensitivity, mas

CLASSES = 10
EVERY = 10  # steps whose squared gradients make one estimate of the Fisher
KEEP = 0.1  # of the running Fisher, at each estimate


class Running(NamedTuple):
    """The Fisher in the making, and what the penalty reads."""

    steps: Array  # [] int32, all so far
    total: Params  # Σ g² of the steps since the last estimate
    fisher: Params  # the running mean
    importance: Params  # the last one at a task's end, scaled to [0, 1]
    anchor: Anchor


def running_ewc(problem: Problem, *, weight: float) -> Strategy:
    """Loss: weight · Σ_i F_i (θ_i - θ*_i)², F and θ* of the last finished task, no ½.

    g is the gradient of a batch's mean data loss at its true labels, before the step. After every 10 steps
    F <- 0.1 F + 0.9 Σ g² / 10; it runs through all tasks. At a task's end (F - min F) / (max F - min F), the extremes
    over all parameters, weighs the penalty.
    """
    del problem

    def init(learner: Learner) -> Running:
        zeros = jax.tree.map(jnp.zeros_like, learner.params)
        return Running(jnp.int32(0), zeros, zeros, zeros, Anchor(learner.params))

    def loss(state: Running, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        return 2.0 * weight * penalty(params, state.anchor.params, state.importance)

    def record(state: Running, step: Step, key: Array) -> Running:
        del key
        total = jax.tree.map(lambda total, g, own: total + (g - own) ** 2, state.total, step.grads, step.penalty)
        state = state._replace(steps=state.steps + 1, total=total)

        def estimated(state: Running) -> Running:
            fisher = jax.tree.map(lambda f, s: KEEP * f + (1 - KEEP) * s / EVERY, state.fisher, state.total)
            return state._replace(fisher=fisher, total=jax.tree.map(jnp.zeros_like, state.total))

        return jax.lax.cond(state.steps % EVERY == 0, estimated, lambda state: state, state)

    def end(state: Running, learner: Learner, data: Data, key: Array) -> tuple[Running, Learner]:
        del data, key
        leaves = jax.tree.leaves(state.fisher)
        least = jnp.stack([leaf.min() for leaf in leaves]).min()
        span = jnp.stack([leaf.max() for leaf in leaves]).max() - least
        scaled = jax.tree.map(lambda f: (f - least) / jnp.where(span > 0, span, 1.0), state.fisher)
        return state._replace(importance=scaled, anchor=Anchor(learner.params)), learner

    return Strategy(init=init, loss=loss, record=record, end=end)


def last_mas(problem: Problem, *, weight: float, samples: int) -> Strategy:
    """MAS whose importance is the last task's alone; `samples` gradients' worth of images, 10 to a gradient, no ½."""
    summed = mas(problem, weight=2 * weight, samples=samples, together=10)

    def end(state: Sensitivity, learner: Learner, data: Data, key: Array) -> tuple[Sensitivity, Learner]:
        nothing = jax.tree.map(jnp.zeros_like, state.importance)
        found: tuple[Sensitivity, Learner] = summed.end(state._replace(importance=nothing), learner, data, key)
        return found

    return summed._replace(end=end)


def ring_agem(problem: Problem, *, tasks: int, each: int, rows: int) -> Strategy:
    """A-GEM on `each` examples of each class and finished task, of which a step takes `rows` without repeats, or all.

    A ring of the last `each` of a class is, where a task's images come in a uniform order, a uniform draw without
    repeats: `end` makes it, and no step writes to the memory.
    """
    uniform = agem(problem, capacity=tasks * CLASSES * each, rows=rows)

    def batch(state: References, batch: Batch, key: Array) -> Batch:
        valid = state.memory.rows.valid
        drawn, slot = jax.lax.top_k(jnp.where(valid, jax.random.uniform(key, valid.shape), -1.0), rows)
        memory = buffer.drawn(state.memory, slot)
        return batch._replace(memory=memory._replace(valid=memory.valid & (drawn >= 0)))

    def end(state: References, learner: Learner, data: Data, key: Array) -> tuple[References, Learner]:
        draws = jax.random.uniform(key, data.rows.labels.shape)
        labels = jnp.where(data.rows.valid, data.rows.labels, 0)
        classes = 1 + jnp.arange(CLASSES)
        found, place = jax.vmap(lambda c: jax.lax.top_k(jnp.where(labels == c, draws, -1.0), each))(classes)
        chosen = jax.tree.map(lambda leaf: leaf[place.reshape(-1)], data.rows)
        chosen = chosen._replace(valid=found.reshape(-1) >= 0)
        slot = learner.increment * CLASSES * each + jnp.arange(CLASSES * each)
        return state._replace(memory=buffer.write(state.memory, chosen, slot)), learner

    return uniform._replace(batch=batch, record=Strategy().record, end=end)
