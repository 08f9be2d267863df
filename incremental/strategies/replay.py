"""Experience replay from a reservoir (Chaudhry et al. 2019, arXiv 1902.10486)."""

import jax
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Memory, Problem, Step
from incremental.domains import Count, NotNegative, checked
from incremental.memory import buffer, reservoir


@checked
def replay(problem: Problem, *, capacity: Count = 5000, rows: Count = 128, weight: NotNegative = 1.0) -> Strategy:
    """Each batch of new rows comes with `rows` uniform ones of a reservoir of `capacity` past examples.

    Loss: Σ_new w ℓ / Σ_new w + weight Σ_replayed w ℓ / B. Every example is inserted once, in the increment's first
    epoch, from the rows that are trained on; a batch replays from what earlier steps inserted. State: the reservoir,
    [capacity] rows.
    """

    def batch(state: Memory, batch: Batch, key: Array) -> Batch:
        old = buffer.sample(state, rows, key)
        return buffer.beside(batch, old._replace(weight=old.weight * weight))

    def record(state: Memory, step: Step, key: Array) -> Memory:
        return jax.lax.cond(
            step.first_pass, lambda state: reservoir.insert(state, step.offered, key), lambda state: state, state
        )

    return Strategy(init=lambda _learner: buffer.empty(problem.example, capacity), batch=batch, record=record)
