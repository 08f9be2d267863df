"""Dark experience replay, DER and DER++ (Buzzega et al. 2020, arXiv 2004.07211), on hidden vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.memory import buffer, reservoir
from incremental.memory.sizes import refuse_none
from incremental.strategy import Strategy
from incremental.types import Batch, Learner, Memory, Outputs, Params, Problem, Step


class Dark(NamedTuple):
    """Past rows and what the model made of them when they were inserted."""

    memory: Memory
    hidden: Array  # [C, D] float32


class Drawn(NamedTuple):
    """A batch's own replayed rows."""

    place: Array  # [rows] int32, in the batch
    hidden: Array  # [rows, D] float32, as stored


def der(problem: Problem, *, capacity: int = 5000, rows: int = 128, alpha: float = 0.5, beta: float = 0.0) -> Strategy:
    """Each batch comes with `rows` uniform ones of a reservoir, whose hidden vectors are held to what they once were.

    Loss: data loss + alpha (1/n) Σ_drawn ‖h_θ(x) - h_stored‖² over the n drawn rows, squared norm summed over the D
    components; h_stored is the row's hidden vector at insertion, in the increment's first epoch, with dropout where
    the model has it. The data loss holds the drawn rows at weight `beta`: (Σ_new w ℓ + beta Σ_drawn w ℓ) / Σ_new w.
    beta = 0 is DER, beta > 0 DER++, here on the same rows, where the paper draws others for each term. The paper
    stores logits; those of V items are the hidden vector times the item table, so [D] numbers stand for them and the
    table is left free. State: the reservoir, [capacity] rows, and [capacity, D] floats.
    """
    refuse_none("der", capacity=capacity, rows=rows)

    def init(learner: Learner) -> Dark:
        memory = buffer.empty(problem.example, capacity)
        width = jax.eval_shape(problem.apply, learner.params, memory.rows.inputs).hidden.shape[1]
        return Dark(memory, jnp.zeros((capacity, width), jnp.float32))

    def batch(state: Dark, batch: Batch, key: Array) -> Batch:
        filled = state.memory.rows.valid.sum()
        slot = jax.random.randint(key, (rows,), 0, jnp.maximum(filled, 1))
        old = buffer.drawn(state.memory, slot)
        joined = buffer.beside(batch, old._replace(weight=old.weight * beta))
        return joined._replace(memory=Drawn(len(batch.labels) + jnp.arange(rows), state.hidden[slot]))

    def loss(state: Dark, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del state, params
        place, hidden = batch.memory
        gap = ((outputs.hidden[place] - hidden) ** 2).sum(1)
        valid = batch.valid[place]
        return alpha * jnp.where(valid, gap, 0.0).sum() / jnp.maximum(valid.sum(), 1)

    def record(state: Dark, step: Step, key: Array) -> Dark:
        def inserted(state: Dark) -> Dark:
            slots = reservoir.slots(state.memory, step.new, key)
            hidden = step.outputs.hidden[: len(step.new.labels)]
            return Dark(buffer.write(state.memory, step.new, slots), buffer.put(state.hidden, hidden, slots))

        return jax.lax.cond(step.first_pass, inserted, lambda state: state, state)

    return Strategy(init=init, batch=batch, loss=loss, record=record)
