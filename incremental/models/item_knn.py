"""Item nearest neighbours by cosine with shrinkage (Deshpande and Karypis 2004, ACM TOIS 22; Bell and Koren 2007)."""

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
from incremental.domains import Count, NotNegative, checked


@checked
def item_knn(*, neighbours: Count = 100, shrink: NotNegative = 10.0, limit: Count = 100_000_000) -> Baseline:
    """Score of item j for a history: Σ_i sim(i, j) over its distinct items i that have j among their K neighbours.

    sim(i, j) = n_ij / (√(n_i n_j) + `shrink`), n_ij the number of users who had both items, n_i those who had i; the
    K = `neighbours` most similar other items of i are its neighbours, of equal ones those that came first to the
    stream. No further normalisation. Counts are exact and grow with each update: the result is that of all events at
    once.

    Deviation: it is scored by the last data.history events. Memory: one matrix [V, V] float32 of counts, another one
    for a moment, V · K neighbours, and a bit for each user and item; refused where V² is above `limit`.
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        refuse_large(sizes, limit, 2)
        number = min(neighbours, sizes.slots)

        def absorb(params: Params, data: Data) -> Params:
            counted = with_new(params, data)
            shared = counted["shared"]
            users = jnp.diag(shared)
            scale = jnp.sqrt(users[:, None] * users) + shrink
            likeness = jnp.where(shared > 0, shared / jnp.where(scale > 0, scale, 1.0), 0.0)
            weights, ids = jax.lax.top_k(jnp.where(jnp.eye(sizes.slots) > 0, 0.0, likeness), number)
            return {**counted, "ids": ids, "weights": weights}

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            history = jnp.sort(inputs["history"], 1)
            fresh = history != jnp.pad(history, ((0, 0), (1, 0)))[:, :-1]  # each item once; padding, 0, comes first
            rows = jnp.arange(len(history))[:, None, None]
            weights = params["weights"][history] * fresh[..., None]
            return jnp.zeros((len(history), sizes.slots)).at[rows, params["ids"][history]].add(weights)

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {
                **nothing(sizes),
                "ids": jnp.zeros((sizes.slots, number), jnp.int32),
                "weights": jnp.zeros((sizes.slots, number)),
            },
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
        )

    return Baseline(build, ("history",), labels="item")
