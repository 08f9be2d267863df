"""Updates in the leading subspace of a recent gradient (after GaLore: Zhao et al. 2024, arXiv 2403.03507)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.leaves import by_path, matrices, replaced
from incremental.core.strategy import Strategy
from incremental.core.types import Learner, Params, Problem, Step
from incremental.domains import Count, checked
from incremental.errors import UserError


class Projectors(NamedTuple):
    """A subspace of one side of each matrix, by the matrix's path."""

    basis: dict[str, Array]  # [side, rank], orthonormal columns
    steps: Array  # [] int32, so far


@checked
def low_rank_updates(problem: Problem, *, rank: Count = 16, every: Count = 200) -> Strategy:
    """An update of a matrix [m, n] keeps its part in an r-dimensional space of one side: U ← P Pᵀ U, or U P Pᵀ.

    P [side, `rank`] holds the leading singular vectors, on that side, of the total gradient; it is taken anew every
    `every` steps, after the step, so the first step of all is not projected. The side is the shorter one; for id tables
    [V, D] always D, as V grows. Matrices with a side of `rank` or less, vectors and biases are left alone.

    GaLore runs Adam on the projected gradient PᵀG, so that its moments are small, and scales the result by α. Here the
    optimizer sees the whole gradient and keeps whole moments: what is projected is its update, there is no α, and no
    memory is saved. It is the update's rank that is studied. State: side · `rank` floats a matrix.
    """
    shapes = matrices(problem)
    sides = {path: 1 if path in problem.tables or n < m else 0 for path, (m, n) in shapes.items()}
    # Of a table only D is asked: V grows, the state's shape must not.
    sides = {
        path: side
        for path, side in sides.items()
        if (shapes[path][1] if path in problem.tables else min(shapes[path])) > rank
    }
    if not sides:
        raise UserError(
            f"low_rank_updates.rank={rank}: no matrix of the model has both sides larger, so nothing would be "
            "projected; lower rank, or widen the model"
        )

    def init(learner: Learner) -> Projectors:
        del learner
        return Projectors({path: jnp.zeros((shapes[path][side], rank)) for path, side in sides.items()}, jnp.int32(0))

    def updates(state: Projectors, updates: Params, params: Params) -> Params:
        del params
        moves = by_path(updates)

        def projected(path: str, side: int) -> Array:
            p, move = state.basis[path], moves[path]
            low = move @ p @ p.T if side else p @ (p.T @ move)
            return jnp.where(state.steps > 0, low, move)

        return replaced(updates, {path: projected(path, side) for path, side in sides.items()})

    def record(state: Projectors, step: Step, key: Array) -> Projectors:
        del key
        grads = by_path(step.grads)

        def leading(path: str, side: int) -> Array:
            gram = grads[path].T @ grads[path] if side else grads[path] @ grads[path].T
            return jnp.linalg.eigh(gram)[1][:, -rank:]

        basis = jax.lax.cond(
            state.steps % every == 0,
            lambda: {path: leading(path, side) for path, side in sides.items()},
            lambda: state.basis,
        )
        return Projectors(basis, state.steps + 1)

    return Strategy(init=init, updates=updates, record=record)
