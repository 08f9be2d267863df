"""Truncated SVD of the user-item matrix, updated increment by increment (Brand 2006, Linear Algebra Appl. 415)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.ranking import known_by_any
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Params
from incremental.core.user_rows import arrived, block, blocks
from incremental.domains import Count, checked
from incremental.errors import UserError

NOISE = 1e-5  # singular values below this share of the largest are rounding


@checked
def incremental_svd(*, rank: Count = 64, users: Count = 256) -> Baseline:
    """Score of item i for user u: (U S Vᵀ)_ui, the rank-`rank` SVD of A, A_ui the number of u's events with i so far.

    An update takes the users of the new events in blocks of `users` c. Their new counts N [c, V] are a low-rank change:
    A + E N = [U E] [[S, 0], [0, I]] [V Nᵀ]ᵀ with E [W, c] the unit vectors of those users. QR of both outer factors and
    an SVD of the (k+c)² matrix between them give the new U, S, V, cut to `rank` after each block. New events
    add to the old ones, nothing is replaced or counted twice. A user of no update yet is folded in: score r V Vᵀ, r the
    counts of the items in the history that the example holds. Another user is scored by his row of U, as of the last
    update.

    With `rank` at least A's own rank this is A itself; otherwise what the cuts drop is lost, and the result differs
    from the SVD of the whole. State: (W + V + 1) · rank floats, W bools. Cost of a block: O((W + V) (rank + c)²).
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        if rank > min(sizes["user"], sizes.slots):
            raise UserError(
                f"model.rank={rank}: the user-item matrix has room for {sizes['user']} users and {sizes.slots} items; "
                "choose a rank of at most the smaller number"
            )

        def absorb(params: Params, data: Data) -> Params:
            events = arrived(data)

            def add(n: Array, svd: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
                u, s, v = svd
                ids, new = block(events, n, users, sizes.slots)
                units = jnp.zeros((sizes["user"], users)).at[ids, jnp.arange(users)].set(1.0)
                q_left, left = jnp.linalg.qr(jnp.concatenate([u, units], 1))
                q_right, right = jnp.linalg.qr(jnp.concatenate([v, new.T], 1))
                middle = (left * jnp.concatenate([s, jnp.ones(users)])) @ right.T
                turn_left, s, turn_right = jnp.linalg.svd(middle, full_matrices=False)
                return q_left @ turn_left[:, :rank], s[:rank], q_right @ turn_right[:rank].T

            svd = (params["left"], params["values"], params["right"])
            left, values, right = jax.lax.fori_loop(0, blocks(events, users), add, svd)
            known = params["known"].at[data.arrived["user"]].set(True).at[0].set(False)
            return {"left": left, "values": values, "right": right, "known": known}

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            user, history, values = inputs["user"], inputs["history"], params["values"]
            # Vectors of singular values that are 0 are arbitrary.
            right = jnp.where(values > NOISE * values[0], params["right"], 0.0)
            folded = right[history].sum(1)  # the row of padding is 0
            own = params["left"][user] * values
            return jnp.where(params["known"][user][:, None], own, folded) @ right.T

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {
                "left": jnp.zeros((sizes["user"], rank)),
                "values": jnp.zeros(rank),
                "right": jnp.zeros((sizes.slots, rank)),
                "known": jnp.zeros(sizes["user"], bool),
            },
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
            known=known_by_any,
        )

    return Baseline(build, ("user", "history"), labels="item")
