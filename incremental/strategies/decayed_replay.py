"""Experience replay that prefers recent increments: a reservoir, drawn from with exponential decay in time."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Memory, Problem, Step
from incremental.domains import Count, NotNegative, Share, checked
from incremental.memory import buffer, reservoir


@checked
def decayed_replay(
    problem: Problem, *, capacity: Count = 5000, rows: Count = 128, weight: NotNegative = 1.0, decay: Share = 0.7
) -> Strategy:
    """Each batch of new rows comes with `rows` ones of a reservoir, recent increments more likely.

    Row r of the memory is drawn (with replacement) with probability decay^(t - t_r) / Σ_s decay^(t - t_s), t the
    current increment and t_r the one the row arrived in: 1 is the uniform distribution of `replay`, 0 draws from the
    memory's last increment only. Time is counted in increments. What is kept stays uniform over the past, so that
    `decay` alone says how much the past matters; the weighting by age is that of biased reservoirs (Aggarwal 2006,
    VLDB), applied at the draw. Loss: Σ_new w ℓ / Σ_new w + weight Σ_replayed w ℓ / B. State: the
    reservoir, [capacity] rows.
    """

    def batch(state: Memory, batch: Batch, key: Array) -> Batch:
        # Ages from the memory's last increment: from the current one all differ by a constant, which cancels.
        arrived = state.rows.increment
        age = jnp.where(state.rows.valid, arrived, 0).max() - arrived
        # Without the condition decay = 0 would give the youngest rows 0 times log 0.
        old = buffer.sample_by(state, jnp.where(age > 0, age * jnp.log(decay), 0.0), rows, key)
        return buffer.beside(batch, old._replace(weight=old.weight * weight))

    def record(state: Memory, step: Step, key: Array) -> Memory:
        return jax.lax.cond(
            step.first_pass, lambda state: reservoir.insert(state, step.offered, key), lambda state: state, state
        )

    return Strategy(init=lambda _learner: buffer.empty(problem.example, capacity), batch=batch, record=record)
