"""HSTU: attention by SiLU without a softmax, gated, with biases by distance and by time (Zhai et al. 2024, arXiv
2402.17152)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.core.embedding import Rows, uniform_rows
from incremental.core.packing import Tokens, by_tokens, padded
from incremental.core.problem import Model
from incremental.core.pure import pure
from incremental.core.spec import Input, Sizes
from incremental.domains import Count, NotNegative, ShareBelow1, checked
from incremental.errors import UserError


def bucket(seconds: Array, buckets: int) -> Array:
    """floor(log2(1 + seconds)) of int32, 0 for negative ones, at most `buckets` - 1; exact at powers of two."""
    above = jnp.clip(seconds, 0, jnp.iinfo(jnp.int32).max - 1) + 1
    return jnp.minimum(31 - jax.lax.clz(above), buckets - 1)


class Block(nn.Module):
    """One layer; `last` computes the ends of the histories only where each has a block of its own."""

    width: int
    heads: int
    history: int
    buckets: int

    @nn.compact
    def __call__(self, x: Array, tokens: Tokens, ages: Array | None, kept: Any, *, last: bool) -> Array:
        """x [n, L, D], ages [n, L] int32, kept: dropout before the output layer -> [n, L, D]."""
        asked = slice(-1, None) if last and tokens.last is None else slice(None)
        projected = nn.silu(nn.Dense(4 * self.width, name="inner")(nn.LayerNorm(name="inner_norm")(x)))
        u, v, q, k = jnp.split(projected, 4, axis=-1)

        def heads(values: Array) -> Array:
            return values.reshape(*values.shape[:2], self.heads, self.width // self.heads)

        logits = jnp.einsum("nqhd,nkhd->nhqk", heads(q[:, asked]), tokens.past(heads(k)))
        # Where each history has its own block, all blocks have the same places.
        places = tokens.place[:1] if tokens.last is None else tokens.place
        apart = jnp.clip(places[:, asked, None] - tokens.past(places)[:, None, :], 0, self.history - 1)
        by_distance = self.param("by_distance", nn.initializers.zeros, (self.history,))
        logits = logits + by_distance[apart][:, None].astype(x.dtype)
        if ages is not None:
            by_time = self.param("by_time", nn.initializers.zeros, (self.buckets,))
            gaps = bucket(ages[:, None, :] - ages[:, asked, None], self.buckets)
            logits = logits + by_time[gaps][:, None].astype(x.dtype)
        weights = jnp.where(tokens.allowed()[:, None, asked], nn.silu(logits) / self.history, 0.0)
        pooled = jnp.einsum("nhqk,nkhd->nqhd", weights, tokens.past(heads(v))).reshape(u[:, asked].shape)
        gated = nn.LayerNorm(name="pooled_norm")(pooled) * u[:, asked] * kept
        return x[:, asked] + nn.Dense(self.width, name="outer")(gated)


class HSTU(nn.Module):
    """Tables "item/embedding" [V, D], shared by input and output, and "position" [L, D]."""

    sizes: Sizes
    history: int
    width: int
    blocks: int
    heads: int
    dropout: float
    relative_time: bool
    buckets: int
    limit: float

    def setup(self) -> None:
        self.item = Rows(self.sizes["item"], self.width, embedding_init=uniform_rows(self.limit))
        self.position = self.param("position", uniform_rows(self.limit), (self.history, self.width))
        self.layers = [Block(self.width, self.heads, self.history, self.buckets) for _ in range(self.blocks)]
        self.norm = nn.LayerNorm()

    def encode(self, tokens: Tokens, key: Array | None, ages: Array | None = None) -> Array:
        """[b, D] of b histories."""
        n, length = tokens.item.shape
        asked = [1 if i == self.blocks - 1 and tokens.last is None else length for i in range(self.blocks)]
        first, *kept = multipliers(key, self.dropout, [(n, each, self.width) for each in (length, *asked)])
        x = self.item(tokens.item) * jnp.sqrt(self.width)
        x = (x + self.position[tokens.nth].astype(x.dtype)) * first
        for i, block in enumerate(self.layers):
            x = block(x, tokens, ages, kept[i], last=i == self.blocks - 1)
        return self.norm(tokens.ends(x) * tokens.known[:, None])

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"history": [B, L] int32, left-padded with 0, "times": [B, L] int32, where it is read} -> [B, D]."""
        if self.relative_time:
            return self.encode(padded(inputs["history"]), key, inputs["times"])
        if self.is_initializing():
            return self.encode(padded(inputs["history"]), key)
        return by_tokens(pure(self, "encode"), inputs["history"], key)

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, jnp.zeros(self.sizes["item"])


@checked
def hstu(
    *,
    width: Count = 64,
    blocks: Count = 2,
    heads: Count = 2,
    dropout: ShareBelow1 = 0.2,
    relative_time: bool = False,
    buckets: Count = 32,
    limit: NotNegative = 0.02,
) -> Model:
    """`width` D, a multiple of `heads`; `limit` of the uniform start of items and positions. X begins as √D times the
    items' rows plus the positions'. A block, over positions i and what came before, j <= i, X' = LN(X):

        U, V, Q, K = SiLU(W₁ X' + b₁)
        A_ij = SiLU(Q_i · K_j + p(i - j) + t(t_i - t_j)) / L
        X <- X + W₂ (LN(A V) ⊙ U) + b₂

    There is no softmax, so that many alike events weigh more than few, and no feed-forward. p is a number a distance, t
    a number a bucket ⌊log₂(1 + seconds)⌋ of `buckets`, of all heads, from 0; a last LN gives the hidden vector.

    With `relative_time` it reads the feature "times" (`incremental.data.features.times`); a distance in time depends on
    two events of the history alone, not on when is asked. Without, t is left out, and it reads "history" alone; it is
    causal and counts places from the first event, so that prefixes may share a run (`training.sharing=prefix`), which
    is refused with times.

    Deviations: the paper leaves the buckets and Norm open; L is the longest history, as large for short ones. The last
    vector is layer-normalised, and the head is the project's.
    """
    if width % heads:
        raise UserError(f"model.width={width}: expected a multiple of model.heads={heads}")

    def module(sizes: Sizes, inputs: Mapping[str, Input]) -> HSTU:
        history = inputs["history"].shape[0]
        if relative_time and (own := inputs["times"].shape[0]) != history:
            raise UserError(
                f"data.features.times.length={own}: expected data.history={history}, a time for each event of a history"
            )
        return HSTU(sizes, history, width, blocks, heads, dropout, relative_time, buckets, limit)

    return Model(
        module,
        ("history", "times") if relative_time else ("history",),
        {"item/embedding": "item"},
        labels="item",
        looked_up=("position",),
        sequence=None if relative_time else "history",
    )
