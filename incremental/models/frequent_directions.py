"""Frequent Directions: the item space in a small sketch of all user rows (Ghashami et al. 2016, arXiv 1501.01711)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Params
from incremental.core.user_rows import arrived, block, blocks
from incremental.domains import Count, checked
from incremental.errors import UserError

NOISE = 1e-5  # a row shorter than this share of the longest is rounding


@checked
def frequent_directions(*, sketch: Count = 128, rank: Count = 64) -> Baseline:
    """Score of the items for a history: r V_k V_kᵀ, r the counts of the items in it, V_k the sketch's k = `rank` first
    directions.

    The sketch B [l, V], l = `sketch`, stands for the matrix A whose rows are the counts of each user's new events in
    each increment: a user of several increments is several rows, so AᵀA is the sum over increments. Of l rows at a
    time, [B; rows] = L Σ Vᵀ becomes B = sqrt(max(Σ² - σ_l², 0)) Vᵀ. Whatever the order,
    |AᵀA - BᵀB|₂ ≤ |A - A_k|_F² / (l - k) for every k < l, and with fewer than l independent rows B is exact. Users
    have no row of their own, so a new one is scored like others. State: l · V floats. Cost of l users: O(l² V).
    """
    if sketch <= rank:
        raise UserError(
            f"model: expected rank < sketch, got rank={rank} and sketch={sketch} (the last row of a sketch is 0)"
        )

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        def absorb(params: Params, data: Data) -> Params:
            events = arrived(data)

            def add(n: Array, kept: Array) -> Array:
                return shrunk(jnp.concatenate([kept, block(events, n, sketch, sizes.slots)[1]]))

            return {"sketch": jax.lax.fori_loop(0, blocks(events, sketch), add, params["sketch"])}

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            history, rows = inputs["history"], params["sketch"][:rank]  # orthogonal, the longest first
            length = jnp.linalg.norm(rows, axis=1, keepdims=True)
            directions = jnp.where(length > NOISE * length[0], rows / jnp.maximum(length, 1e-30), 0.0)
            own = directions.T[history].sum(1)  # the row of padding is 0
            return own @ directions

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {"sketch": jnp.zeros((sketch, sizes.slots))},
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
        )

    return Baseline(build, ("history",), labels="item")


def shrunk(rows: Array) -> Array:
    """[l, V] from [2l, V]: its singular values squared less the l-th one's, by the Gram matrix of the rows."""
    half = len(rows) // 2
    squares, vectors = jnp.linalg.eigh(rows @ rows.T)
    squares, vectors = squares[::-1][:half], vectors[:, ::-1][:, :half]
    left = jnp.maximum(squares - jnp.maximum(squares[-1], 0.0), 0.0)
    scale = jnp.sqrt(left / jnp.where(squares > 0, squares, 1.0))
    return scale[:, None] * (vectors.T @ rows)
