"""Experience replay in which every item of the memory is equally likely, popular or not."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Memory, Problem, Step
from incremental.domains import Count, NotNegative, checked
from incremental.memory import buffer, reservoir


def log_weight(memory: Memory) -> Array:
    """[C] float32: -log of the number of filled slots with the slot's label; what empty slots get is of no use."""
    labels = jnp.where(memory.rows.valid, memory.rows.labels, 0)  # 0 is no item
    ranked = jnp.sort(labels)
    last, first = (jnp.searchsorted(ranked, labels, side=side) for side in ("right", "left"))
    return -jnp.log((last - first).astype(jnp.float32))


@checked
def balanced_replay(
    problem: Problem, *, capacity: Count = 5000, rows: Count = 128, weight: NotNegative = 1.0
) -> Strategy:
    """Each batch of new rows comes with `rows` ones of a reservoir, every label in it equally likely.

    Row r is drawn (with replacement) with probability 1 / (K n_r): K labels are in the memory, n_r of its rows have
    r's label. So a label is uniform among those present, then a row uniform among the label's. What is kept is a plain
    reservoir; the draw is balanced, as class-balanced sampling does it (e.g. Chrysakis & Moens 2020, ICML, which
    balances what is kept). Loss: Σ_new w ℓ / Σ_new w + weight Σ_replayed w ℓ / B. State: the reservoir, [capacity]
    rows.
    """

    def batch(state: Memory, batch: Batch, key: Array) -> Batch:
        old = buffer.sample_by(state, log_weight(state), rows, key)
        return buffer.beside(batch, old._replace(weight=old.weight * weight))

    def record(state: Memory, step: Step, key: Array) -> Memory:
        return jax.lax.cond(
            step.first_pass, lambda state: reservoir.insert(state, step.offered, key), lambda state: state, state
        )

    return Strategy(init=lambda _learner: buffer.empty(problem.example, capacity), batch=batch, record=record)
