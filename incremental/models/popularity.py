"""Popularity with decay: the same ranking for everyone."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.ranking import known_to_all
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Params
from incremental.domains import Share, checked


@checked
def popularity(*, decay: Share = 0.5) -> Baseline:
    """Score of an item: Σ_t decay^(now - t) · (its training events that update t brought), the base part being t = 0.

    It is the score for every user, one that the model has not met included.
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        def absorb(params: Params, data: Data) -> Params:
            return {"weight": (decay * params["weight"]).at[data.events].add(1.0).at[0].set(0.0)}

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            return jnp.broadcast_to(params["weight"], (len(inputs["user"]), sizes.slots))

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {"weight": jnp.zeros(sizes.slots)},
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
            known=known_to_all,
            alike=True,
        )

    return Baseline(build, ("user",))
