"""SPMF: a reservoir whose badly predicted members come back more often (Wang, Yin et al. 2018, SIGIR)."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.steps import batches
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Memory, Problem, Step, with_labels
from incremental.core.untied import REMEDY
from incremental.domains import Count, NotNegative, checked
from incremental.errors import UserError
from incremental.memory import buffer, reservoir
from incremental.memory.exemplars import chunked

By = Literal["score", "loss"]


class Ranked(NamedTuple):
    """Past rows, and those that the update trains on again."""

    memory: Memory
    drawn: Array  # [C] bool
    size: Array  # [] int32: the rows of the update


@checked
def spmf(
    problem: Problem,
    *,
    capacity: Count = 5000,
    rows: Count = 128,
    share: NotNegative = 0.5,
    weight: NotNegative = 1.0,
    by: By = "score",
) -> Strategy:
    """An update trains on its own rows and on ⌊`share` · its rows⌋ of a reservoir of `capacity` past examples.

    At its start the reservoir's n members are scored with the last increment's model and ranked, the best predicted
    one first: r = 1..n. They are drawn without replacement, with probabilities proportional to exp(r / n), so that the
    worst predicted one is e times as likely as the best. `by` "score": the best has the highest score s_y of its label,
    as in the code. "loss": the lowest loss over the items seen so far, for softmax heads, whose scores are not
    comparable between examples. Each batch comes with ⌈drawn / batches⌉ of those that were drawn, uniform ones and at
    most `rows`: each comes about once an epoch, and more often where fewer are drawn than there are batches. Loss:
    Σ_new w ℓ / Σ_new w + weight Σ_drawn w ℓ / B. `share` 0, or an empty reservoir, is fine-tuning.

    From ASMG's adaptation (danni9594/ASMG at 75ea1e0), with `share` ½. It goes through new and drawn rows in the order
    of time, here they are shuffled; it fills the reservoir after the period, here it is filled in the first epoch, and
    a drawn member whose place a new row takes does not come any more. Its reservoir of negatives is left out, as the
    head draws these. Where an update starts afresh its random weights make the ranks. State: the reservoir, [capacity]
    rows and bools. An increment scores it once.
    """
    if by not in get_args(By):
        raise UserError(f"strategies.spmf: by={by!r}: expected one of {', '.join(get_args(By))}")

    def init(learner: Learner) -> Ranked:
        del learner
        return Ranked(buffer.empty(problem.example, capacity), jnp.zeros(capacity, bool), jnp.int32(0))

    def begin(state: Ranked, learner: Learner, data: Data, key: Array) -> tuple[Ranked, Learner]:
        kept, params = state.memory.rows, learner.params

        def badness(rows: Batch) -> Array:
            outputs = problem.apply(params, rows.inputs)
            if by == "score":
                if outputs.scores is None:
                    raise UserError(
                        "strategies.spmf: the head makes its scores with a state of its own, without which spmf cannot "
                        f"rank past examples at an increment's start; {REMEDY}, or leave spmf out"
                    )
                return -jnp.take_along_axis(outputs.scores, rows.labels[:, None], 1)[:, 0]
            rows = rows._replace(candidates=with_labels(learner.catalogue.seen, rows))
            return problem.loss(params, outputs, rows)

        number = jnp.floor(share * data.size).astype(jnp.int32)
        log_weight = ranks(chunked(badness, kept), kept.valid) / jnp.maximum(kept.valid.sum(), 1)
        return Ranked(state.memory, buffer.without_replacement(kept.valid, log_weight, number, key), data.size), learner

    def batch(state: Ranked, batch: Batch, key: Array) -> Batch:
        slot, some = buffer.among(state.drawn, rows, key)
        number = jnp.maximum(batches(state.size, batch.own), 1)
        turn = jnp.arange(rows) < -(-state.drawn.sum() // number)
        old = buffer.drawn(state.memory, slot)
        return buffer.beside(batch, old._replace(weight=old.weight * weight, valid=old.valid & some & turn))

    def record(state: Ranked, step: Step, key: Array) -> Ranked:
        def inserted(state: Ranked) -> Ranked:
            slots = reservoir.slots(state.memory, step.offered, key)
            drawn = state.drawn.at[slots].set(False, mode="drop")
            return state._replace(memory=buffer.write(state.memory, step.offered, slots), drawn=drawn)

        return jax.lax.cond(step.first_pass, inserted, lambda state: state, state)

    return Strategy(init=init, begin=begin, batch=batch, record=record)


def ranks(badness: Array, valid: Array) -> Array:
    """[C] int32: 1 for the valid slot with the least `badness` [C], and so on."""
    return 1 + jnp.argsort(jnp.argsort(jnp.where(valid, badness, jnp.inf)))
