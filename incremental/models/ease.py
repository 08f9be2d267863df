"""EASE: a linear item-to-item model in closed form, updated exactly (Steck 2019, WWW, arXiv 1905.03375)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.shared_users import nothing, refuse_large, with_new
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Params
from incremental.domains import Count, Positive, checked


@checked
def ease(*, penalty: Positive = 500.0, limit: Count = 100_000_000) -> Baseline:
    """Score of the items for a history: x B, x [V] the 0/1 row of its items, B = I - P diag(1 / diag P).

    P = (XᵀX + `penalty` I)⁻¹, X [W, V] the 0/1 matrix of which user had which item; B minimises
    |X - XB|² + `penalty` |B|² with a diagonal of 0. An update changes XᵀX by its users' new rows less their old ones
    and inverts it anew, by Cholesky's factors: after any number of updates B is that of all events at once, up to
    rounding. Own items are scored like others; data.exclude_seen leaves them out.

    Deviation: the last data.history events make x. Memory: two matrices [V, V] float32, some more for a moment, and X
    with a bit a cell; refused where V² is above `limit`. Cost of an update: O(V³ + V² · users).
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        refuse_large(sizes, limit, 2)
        one = jnp.eye(sizes.slots)

        def absorb(params: Params, data: Data) -> Params:
            counted = with_new(params, data)
            factor = jax.scipy.linalg.cho_factor(counted["shared"] + penalty * one)
            inverse = jax.scipy.linalg.cho_solve(factor, one)
            return {**counted, "weights": jnp.where(one > 0, 0.0, -inverse / jnp.diag(inverse))}

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            history = inputs["history"]
            own = jnp.zeros((len(history), sizes.slots)).at[jnp.arange(len(history))[:, None], history].set(1.0)
            return own.at[:, 0].set(0.0) @ params["weights"]

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {**nothing(sizes), "weights": jnp.zeros((sizes.slots, sizes.slots))},
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
        )

    return Baseline(build, ("history",), labels="item")
