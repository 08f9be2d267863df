"""Experience replay from a reservoir (Chaudhry et al. 2019, arXiv 1902.10486)."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.errors import UserError
from incremental.memory import reservoir
from incremental.memory.reservoir import Memory
from incremental.strategy import Strategy
from incremental.types import Batch, Problem, Step, stored


def replay(problem: Problem, *, capacity: int = 5000, rows: int = 128, weight: float = 1.0) -> Strategy:
    """Each batch of new rows comes with `rows` uniform ones of a reservoir of `capacity` past examples.

    Loss: (Σ_new w ℓ + weight Σ_replayed w ℓ) / Σ_new w. Every example is inserted once, in the increment's first
    epoch, from the rows that are trained on; a batch replays from what earlier steps inserted. State: the reservoir,
    [capacity] rows.
    """
    if capacity < 1 or rows < 1:
        raise UserError(f"replay: expected capacity and rows of at least 1, got {capacity} and {rows}")

    def batch(state: Memory, batch: Batch, key: Array) -> Batch:
        old = reservoir.sample(state, rows, key)
        old = old._replace(weight=old.weight * weight)
        joined = jax.tree.map(lambda new, old: jnp.concatenate([new, old]), stored(batch), old)
        return batch._replace(**{name: getattr(joined, name) for name in joined._fields[:5]})

    def record(state: Memory, step: Step, key: Array) -> Memory:
        return jax.lax.cond(
            step.first_pass,
            lambda state, rows: reservoir.insert(state, rows, key),
            lambda state, _rows: state,
            state,
            stored(step.new),
        )

    return Strategy(init=lambda _learner: reservoir.empty(problem.example, capacity), batch=batch, record=record)
