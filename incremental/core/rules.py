"""Programs that score by rules: what a session's last item leads to, from weights of pairs of items."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from incremental.core.gradient_free import gradient_free
from incremental.core.pairs import Counted, Pairs, absorbed, empty, heaviest
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Params


def by_rules(
    inputs: Mapping[str, Input],
    sizes: Sizes,
    cutoffs: tuple[int, ...],
    *,
    counted: Counted,
    window: int,
    rules: int,
    room: int,
) -> Program:
    """A program whose score of item i is the weight of the pair (last item of the history, i), if that is one of the
    `rules` heaviest of its left side, else 0. What an event counts, `core.pairs` says; `room`: pairs an item."""

    def state(pairs: Pairs) -> Params:
        ids, weights = heaviest(pairs, sizes.slots, rules)
        return {"pairs": pairs, "ids": ids, "weights": weights}

    def absorb(params: Params, data: Data) -> Params:
        return state(absorbed(params["pairs"], data, window, counted))

    def scores(params: Params, inputs: dict[str, Array]) -> Array:
        last = inputs["history"][:, -1]
        rows = jnp.arange(len(last))[:, None]
        return jnp.zeros((len(last), sizes.slots)).at[rows, params["ids"][last]].add(params["weights"][last])

    return gradient_free(
        sizes=sizes,
        inputs=inputs,
        init=lambda: state(empty(room * sizes.slots)),
        absorb=absorb,
        scores=scores,
        cutoffs=cutoffs,
    )
