"""LightGCN: tables averaged over layers of the user-item graph (He et al. 2020, arXiv 2002.02126).

The id tables "user/embedding" [W, D] and "item/embedding" [V, D] are trained. What scores is computed from them:

    E = 1/(K+1) Σ_k E^(k),   E^(0) the trained rows,   E^(k+1)_u = Σ_{i ∈ N(u)} E^(k)_i / √(d_u d_i), and so for items,

with D^-½ A D^-½ of the symmetric matrix A of both sides, no self-loop, no weights, no dropout. A user or an item
without an edge has 1/(K+1) of its own row. score(user, item) = E_user · E_item.

For strategies. They see trained tables in `params` and computed ones in what the problem says of them:

- `problem.apply(params, {"user": ids}).hidden` [n, D] are users' outputs E_u; `ids = jnp.arange(W)` for all of them.
- `problem.items(params).table` [V, D] are all items' outputs E_i.
- `problem.settle(params)` has both tables in the places of the trained ones; the functions above take it too, so that
  two questions at the same parameters cost one propagation.
- The edges are `data.side["edges"]` [E, 2] int32 (user, item), rows of zeros are padding, in `begin` and `end`; those
  of the last update are in `end`, and a strategy that needs them later keeps them in its state. Their number E may grow
  from one increment to the next, so a state keeps what it makes of them in the shapes of the tables.
- `problem` is made for the edges of the running update: a teacher's or an anchor's `params` are propagated over these.

Every step touches every row of both tables, so that compact rows are refused.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.graph import Graph, normalised
from incremental.core.problem import LABELS, Model
from incremental.core.spec import Sizes
from incremental.domains import Count, NotNegative, Whole, checked


class Factors(nn.Module):
    """Tables "user/embedding" [W, D] and "item/embedding" [V, D]."""

    sizes: Sizes
    width: int
    deviation: float

    def setup(self) -> None:
        rows = nn.initializers.normal(self.deviation)
        self.user = nn.Embed(self.sizes["user"], self.width, embedding_init=rows)
        self.item = nn.Embed(self.sizes.slots, self.width, embedding_init=rows)

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"user": [B] int32} -> [B, D]."""
        del key
        return self.user(inputs["user"])

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, jnp.zeros(self.sizes.slots)


@checked
def lightgcn(
    *, width: Count = 64, layers: Count = 2, deviation: NotNegative = 0.1, window: Whole | Literal["all"] = "all"
) -> Model:
    """`width` D, `layers` K, `deviation` of the normal start of the tables.

    `window`: the increments whose training examples are the graph's edges, counted back from the last that the model
    was, or could have been, updated on: n, "all" so far, or 0: the base part alone. A pair counts once. No validation
    or held-out event is an edge, and no event of an increment before its test. The graph goes on growing where the
    update policy lets the weights be (update=static).
    """

    def propagate(users: Array, items: Array, edges: Array) -> tuple[Array, Array]:
        weight = normalised(edges, len(users), len(items))[:, None]
        user, item = edges[:, 0], edges[:, 1]
        layer, total = (users, items), (users, items)
        for _ in range(layers):
            layer = (
                jax.ops.segment_sum(weight * layer[1][item], user, len(users)),
                jax.ops.segment_sum(weight * layer[0][user], item, len(items)),
            )
            total = total[0] + layer[0], total[1] + layer[1]
        return total[0] / (layers + 1), total[1] / (layers + 1)

    return Model(
        lambda sizes, _inputs: Factors(sizes, width, deviation),
        ("user",),
        {"user/embedding": "user", "item/embedding": LABELS},
        graph=Graph(propagate, window),
    )
