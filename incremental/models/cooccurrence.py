"""Item-to-item co-occurrence: what followed the items of the history (cf. Ludewig & Jannach 2018)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.gradient_free import gradient_free
from incremental.core.problem import Baseline
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes
from incremental.core.types import Data, Params
from incremental.domains import Count, Share, checked


@checked
def cooccurrence(*, neighbours: Count = 64, window: Count = 5, decay: Share = 0.8) -> Baseline:
    """Score of item j: Σ_p (1/p) c(h_p, j) / Σ_j' c(h_p, j'), h_p the p-th last of the `window` last items.

    c(i, j) counts, for every new event with label j, an i that is p-th last in its history with weight 1/p, multiplied
    by `decay` at each update. An item keeps its `neighbours` K heaviest followers: a new one takes the
    place of the lightest and inherits its weight (Space-Saving, Metwally et al. 2005), so a count is at most too high
    by the lightest one. State: [V, K] ids and weights.
    """

    def build(inputs: Mapping[str, Input], sizes: Sizes, cutoffs: tuple[int, ...]) -> Program:
        def count(n: Array, carry: tuple[Array, Array], data: Data) -> tuple[Array, Array]:
            ids, weights = carry
            row, p = n // window, n % window
            history = data.rows.inputs["history"][row]
            item = jnp.where(p < len(history), history[-1 - p], 0)
            label = data.rows.labels[row]
            slots, values = ids[item], weights[item]
            present = slots == label
            slot = jnp.where(present.any(), present.argmax(), values.argmin())
            amount = jnp.where(item > 0, 1.0 / (p + 1), 0.0)
            written = jnp.where(item > 0, label, slots[slot])
            return ids.at[item, slot].set(written), weights.at[item, slot].add(amount)

        def absorb(params: Params, data: Data) -> Params:
            carry = (params["ids"], decay * params["weights"])
            ids, weights = jax.lax.fori_loop(0, data.size * window, lambda n, carry: count(n, carry, data), carry)
            return {"ids": ids, "weights": weights}

        def scores(params: Params, inputs: dict[str, Array]) -> Array:
            recent = inputs["history"][:, -window:][:, ::-1]  # [B, P], the last first
            weights = params["weights"][recent] * (recent > 0)[..., None]  # [B, P, K]
            weights = weights / jnp.maximum(weights.sum(2, keepdims=True), 1e-9)
            weights = weights / (1.0 + jnp.arange(recent.shape[1]))[:, None]
            rows = jnp.arange(len(recent))[:, None, None]
            return jnp.zeros((len(recent), sizes.slots)).at[rows, params["ids"][recent]].add(weights)

        return gradient_free(
            sizes=sizes,
            inputs=inputs,
            init=lambda: {
                "ids": jnp.zeros((sizes.slots, neighbours), jnp.int32),
                "weights": jnp.zeros((sizes.slots, neighbours)),
            },
            absorb=absorb,
            scores=scores,
            cutoffs=cutoffs,
        )

    return Baseline(build, ("history",), labels="item")
