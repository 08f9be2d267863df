"""A-GEM: no step against the gradient on past rows (Chaudhry et al. 2019, arXiv 1812.00420)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Memory, Params, Problem, Step
from incremental.domains import Count, checked
from incremental.memory import buffer, reservoir


class References(NamedTuple):
    """What the gradient is held against."""

    memory: Memory
    until: Array  # [] int32, the last increment that an earlier update trained on


@checked
def agem(problem: Problem, *, capacity: Count = 5000, rows: Count = 128) -> Strategy:
    """A gradient g that would raise the loss on `rows` uniform past rows loses its part along their gradient r.

    If g·r < 0: g ← g - (g·r / r·r) r, over all parameters at once; g is the gradient of the total loss, r that of the
    weighted mean data loss on the past rows (same dropout, no penalties). Past rows are those of a reservoir of
    `capacity` that belong to increments of earlier updates: rows of the running update are in the reservoir too, but
    are not drawn; without a past row nothing changes. The promise g·r ≥ 0 is about the gradient: what an optimizer with
    moments makes of it can still raise the past loss. State: the reservoir, [capacity] rows. Cost: a second gradient,
    on `rows` rows, from the second increment on.
    """

    def batch(state: References, batch: Batch, key: Array) -> Batch:
        kept = state.memory.rows
        slot, some = buffer.among(kept.valid & (kept.increment <= state.until), rows, key)
        drawn = buffer.drawn(state.memory, slot)
        return batch._replace(memory=drawn._replace(valid=drawn.valid & some))

    def grads(
        state: References, grads: Params, params: Params, grad_fn: Callable[[Batch], Params], batch: Batch, key: Array
    ) -> Params:
        del state, params, key

        def projected(grads: Params) -> Params:
            reference = grad_fn(batch.memory)
            along, square = optax.tree.vdot(grads, reference), optax.tree.vdot(reference, reference)
            against = jnp.where(along < 0, along / jnp.where(square > 0, square, 1.0), 0.0)
            return jax.tree.map(lambda g, r: g - against * r, grads, reference)

        return jax.lax.cond(batch.memory.valid.any(), projected, lambda grads: grads, grads)

    def record(state: References, step: Step, key: Array) -> References:
        return jax.lax.cond(
            step.first_pass,
            lambda state: state._replace(memory=reservoir.insert(state.memory, step.offered, key)),
            lambda state: state,
            state,
        )

    def end(state: References, learner: Learner, data: Data, key: Array) -> tuple[References, Learner]:
        del data, key
        return state._replace(until=learner.increment), learner

    return Strategy(
        init=lambda _learner: References(buffer.empty(problem.example, capacity), jnp.int32(-1)),
        batch=batch,
        grads=grads,
        record=record,
        end=end,
    )
