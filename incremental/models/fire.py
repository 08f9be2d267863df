"""FIRE: a graph filter over decayed interactions, without training (Xia et al. 2022, WWW, 10.1145/3485447.3512108)."""

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
from incremental.domains import Count, NotNegative, Share, checked
from incremental.errors import UserError

NOISE = 1e-5  # eigenvalues below this share of the largest are rounding
SPARE, ROUNDS = 8, 10  # further vectors and rounds of subspace iteration, so that the asked ones converge


@checked
def fire(*, decay: Share = 0.9, principal: NotNegative = 0.2, rank: Count = 128, limit: Count = 50_000_000) -> Baseline:
    """Score: r [R̃ᵀR̃ + `principal` · D_I^{-½} V_k V_kᵀ D_I^{½}], r the counts of all the user's events so far.

    R [W, V] counts events, those of t updates ago times `decay`^t; D_U and D_I are its row and column sums,
    R̃ = D_U^{-½} R D_I^{-½}, and V_k its k = `rank` leading right singular vectors (by 10 rounds of subspace iteration
    on R̃ᵀR̃). The paper decays by time rather than by update and adds filters of user and item side information,
    which streams do not have here. A user met since the last update has no row; r is then the counts in the history
    that the row holds.

    Everything is dense: W·V floats twice and V² once. Refused where W·V or V² is above `limit`.
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        cells = sizes.slots * max(sizes["user"], sizes.slots)
        if cells > limit:
            raise UserError(
                f"model: FIRE is dense, and {sizes['user']} users and {sizes.slots} items make a matrix of {cells} "
                f"cells, above model.limit={limit}; choose a smaller stream or frequent_directions, or raise the "
                "limit if three such matrices of 4-byte floats fit into memory"
            )
        if rank > sizes.slots:
            raise UserError(f"model.rank={rank}: expected at most the number of items, {sizes.slots}")

        def absorb(params: Params, data: Data) -> Params:
            new = jnp.zeros((sizes["user"], sizes.slots)).at[data.arrived["user"], data.events].add(1.0).at[0].set(0.0)
            recent = decay * params["recent"] + new
            by_user, by_item = inverse_root(recent.sum(1)), inverse_root(recent.sum(0))
            normal = by_user[:, None] * recent * by_item
            near = normal.T @ normal
            v = leading(near, rank)
            roots = jnp.sqrt(recent.sum(0))
            smooth = (by_item[:, None] * v) @ (v.T * roots)
            return {"events": params["events"] + new, "recent": recent, "filter": near + principal * smooth}

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            user, history = inputs["user"], inputs["history"]
            own = params["events"][user]
            met = (
                jnp.zeros_like(own).at[jnp.arange(len(user))[:, None], history].add(1.0)
            )  # the filter's row of padding is 0
            return jnp.where(own.any(1, keepdims=True), own, met) @ params["filter"]

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {
                "events": jnp.zeros((sizes["user"], sizes.slots)),
                "recent": jnp.zeros((sizes["user"], sizes.slots)),
                "filter": jnp.zeros((sizes.slots, sizes.slots)),
            },
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
            known=known_by_any,
        )

    return Baseline(build, ("user", "history"), labels="item")


def inverse_root(degree: Array) -> Array:
    """degree^{-½}, and 0 where that is infinite."""
    return jnp.where(degree > 0, jax.lax.rsqrt(jnp.where(degree > 0, degree, 1.0)), 0.0)


def leading(gram: Array, rank: int) -> Array:
    """[V, rank]: the leading eigenvectors of a positive matrix [V, V]; 0 in place of those of eigenvalue 0."""
    width = min(rank + SPARE, len(gram))
    start = jax.random.normal(jax.random.key(0), (len(gram), width))
    basis = jax.lax.fori_loop(
        0, ROUNDS, lambda _, basis: jnp.linalg.qr(gram @ basis)[0], jnp.linalg.qr(gram @ start)[0]
    )
    values, turn = jnp.linalg.eigh(basis.T @ gram @ basis)
    values, vectors = values[::-1][:rank], (basis @ turn[:, ::-1])[:, :rank]
    return jnp.where(values > NOISE * values[0], vectors, 0.0)
