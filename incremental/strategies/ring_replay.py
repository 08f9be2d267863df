"""Experience replay from a ring of the most recent examples (Chaudhry et al. 2019, arXiv 1902.10486)."""

import jax
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Memory, Problem, Step
from incremental.domains import Count, NotNegative, checked
from incremental.memory import buffer, ring


@checked
def ring_replay(problem: Problem, *, capacity: Count = 5000, rows: Count = 128, weight: NotNegative = 1.0) -> Strategy:
    """Each batch of new rows comes with `rows` uniform ones of the last `capacity` examples.

    Loss: Σ_new w ℓ / Σ_new w + weight Σ_replayed w ℓ / B. One ring for all labels, where Chaudhry et al. have one a
    class. Every example is inserted once, in the increment's first epoch, in the order of training, which is shuffled;
    where an increment has more than `capacity` examples, nothing older is left at its end, and which of them stay is
    random. State: the ring, [capacity] rows.
    """

    def batch(state: Memory, batch: Batch, key: Array) -> Batch:
        old = buffer.sample(state, rows, key)
        return buffer.beside(batch, old._replace(weight=old.weight * weight))

    def record(state: Memory, step: Step, key: Array) -> Memory:
        del key
        return jax.lax.cond(step.first_pass, lambda state: ring.insert(state, step.offered), lambda state: state, state)

    return Strategy(init=lambda _learner: buffer.empty(problem.example, capacity), batch=batch, record=record)
