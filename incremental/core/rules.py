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
    `rules` heaviest of its left side, else 0. What an event counts, `core.pairs` says; `room`: pairs an item.

    Each update reports `rules/dropped`, how many pairs it had no room for: where that is 0, weights are exact.
    """

    def state(pairs: Pairs, dropped: Array) -> Params:
        ids, weights = heaviest(pairs, sizes.slots, rules)
        return {"pairs": pairs, "dropped": dropped, "ids": ids, "weights": weights}

    def absorb(params: Params, data: Data) -> Params:
        return state(*absorbed(params["pairs"], data, window, counted))

    def scores(params: Params, inputs: dict[str, Array]) -> Array:
        last = inputs["history"][:, -1]
        rows = jnp.arange(len(last))[:, None]
        return jnp.zeros((len(last), sizes.slots)).at[rows, params["ids"][last]].add(params["weights"][last])

    return gradient_free(
        sizes=sizes,
        inputs=inputs,
        init=lambda: state(empty(room * sizes.slots), jnp.int32(0)),
        absorb=absorb,
        scores=scores,
        cutoffs=cutoffs,
        report=lambda params: {"rules/dropped": params["dropped"]},
    )
