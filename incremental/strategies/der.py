"""Dark experience replay, DER and DER++ (Buzzega et al. 2020, arXiv 2004.07211), on hidden vectors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Memory, Outputs, Params, Problem, Step
from incremental.domains import Count, NotNegative, checked
from incremental.memory import buffer, reservoir
from incremental.memory.exemplars import chunked


class Dark(NamedTuple):
    """Past rows and what the model made of them at the end of their increment."""

    memory: Memory
    hidden: Array  # [C, D] float32
    ready: Array  # [C] bool: rows of finished increments, whose hidden vector is there


class Drawn(NamedTuple):
    """A batch's own replayed rows."""

    place: Array  # [rows] int32, in the batch
    hidden: Array  # [rows, D] float32, as stored


@checked
def der(
    problem: Problem, *, capacity: Count = 5000, rows: Count = 128, alpha: NotNegative = 0.5, beta: NotNegative = 0.0
) -> Strategy:
    """Each batch comes with `rows` past ones of a reservoir, whose hidden vectors are held to what they once were.

    Loss: data loss + alpha (1/n) Σ_drawn ‖h_θ(x) - h_stored‖² over the n drawn rows, squared norm summed over the D
    components; h_stored is the row's hidden vector at the end of the increment that brought it, without dropout. Rows
    of the running increment are in the reservoir, but are not drawn. (The paper stores what the model says when a row
    is inserted; over several epochs that is the first one's model, which on a base part knows nothing yet.) The data
    loss holds the drawn rows at weight `beta`: Σ_new w ℓ / Σ_new w + beta Σ_drawn w ℓ / B. beta = 0 is DER, beta > 0
    DER++, here on the same rows, where the paper draws others for each term. The paper stores logits; those of V items
    are the hidden vector times the item table, so [D] numbers stand for them and the table is left free. After fresh
    starts (update.start=afresh) the stored vectors are of several models, whose axes have nothing in common: leave it
    out there. State: the reservoir, [capacity] rows, [capacity, D] floats and [capacity] bools.
    """

    def init(learner: Learner) -> Dark:
        memory = buffer.empty(problem.example, capacity)
        width = jax.eval_shape(problem.apply, learner.params, memory.rows.inputs).hidden.shape[1]
        return Dark(memory, jnp.zeros((capacity, width), jnp.float32), jnp.zeros(capacity, bool))

    def batch(state: Dark, batch: Batch, key: Array) -> Batch:
        slot, some = buffer.among(state.ready, rows, key)
        old = buffer.drawn(state.memory, slot)
        joined = buffer.beside(batch, old._replace(weight=old.weight * beta, valid=old.valid & some))
        return joined._replace(memory=Drawn(len(batch.labels) + jnp.arange(rows), state.hidden[slot]))

    def loss(state: Dark, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del state, params
        place, hidden = batch.memory
        gap = ((outputs.hidden[place] - hidden) ** 2).sum(1)
        valid = batch.valid[place]
        return alpha * jnp.where(valid, gap, 0.0).sum() / jnp.maximum(valid.sum(), 1)

    def record(state: Dark, step: Step, key: Array) -> Dark:
        def inserted(state: Dark) -> Dark:
            slots = reservoir.slots(state.memory, step.offered, key)
            ready = state.ready.at[slots].set(False, mode="drop")
            return Dark(buffer.write(state.memory, step.offered, slots), state.hidden, ready)

        return jax.lax.cond(step.first_pass, inserted, lambda state: state, state)

    def end(state: Dark, learner: Learner, data: Data, key: Array) -> tuple[Dark, Learner]:
        del data, key
        kept = state.memory.rows
        now = chunked(lambda rows: problem.apply(learner.params, rows.inputs).hidden, kept)
        return Dark(state.memory, jnp.where(state.ready[:, None], state.hidden, now), kept.valid), learner

    return Strategy(init=init, batch=batch, loss=loss, record=record, end=end)
