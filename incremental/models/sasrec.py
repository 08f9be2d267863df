"""SASRec: self-attention over the history (Kang & McAuley 2018, arXiv 1808.09781), with the original code's block.

The block differs from a usual transformer's: queries are the layer-normalised input, keys and values the raw one; the
residual adds the normalised queries; there is no output projection; the feed-forward reads and adds back its
normalised input. Padded positions are zeroed after each block. Only the last position scores items, so the last block
computes only that one.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from incremental.errors import UserError
from incremental.models.dropout import multipliers
from incremental.models.embedding import uniform_rows
from incremental.models.packing import Tokens, by_tokens, padded
from incremental.problem import Model
from incremental.types import Sizes


class Block(nn.Module):
    """Causal attention and feed-forward; `last` computes the ends of the histories only."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: Array, tokens: Tokens, kept: list[Array | float], *, last: bool) -> Array:
        """x [n, L, D], kept: dropout of attention, inner and outer -> [n, L, D], or [b, D] with `last`."""
        asked = asking(tokens, last)
        queries = nn.LayerNorm(epsilon=1e-8)(x[:, asked])

        def heads(values: Array) -> Array:
            return values.reshape(*values.shape[:2], self.heads, self.width // self.heads)

        q = heads(nn.Dense(self.width, name="query")(queries))
        k = tokens.past(heads(nn.Dense(self.width, name="key")(x)))
        v = tokens.past(heads(nn.Dense(self.width, name="value")(x)))
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k) / jnp.sqrt(self.width / self.heads)
        weights = nn.softmax(jnp.where(tokens.allowed()[:, None, asked], logits, -1e9))
        real = tokens.item > 0
        weights = weights * real[:, None, asked, None] * kept[0]
        x = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(queries.shape) + queries
        if last:
            x, real = tokens.ends(x), tokens.known
        x = nn.LayerNorm(epsilon=1e-8)(x)
        inner = nn.relu(nn.Dense(self.width, name="inner")(x)) * kept[1]
        x = x + nn.Dense(self.width, name="outer")(inner) * kept[2]
        return x * real[..., None]


def asking(tokens: Tokens, last: bool) -> slice:
    """The positions of a block whose attention is needed."""
    return slice(-1, None) if last and tokens.last is None else slice(None)


class SASRec(nn.Module):
    """Tables "item/embedding" [V, D], shared by input and output, and "position" [L, D]."""

    sizes: Sizes
    history: int
    width: int
    blocks: int
    heads: int
    dropout: float
    limit: float

    def setup(self) -> None:
        rows = uniform_rows(self.limit)
        self.item = nn.Embed(self.sizes.items, self.width, embedding_init=rows)
        self.position = self.param("position", rows, (self.history, self.width))
        self.layers = [Block(self.width, self.heads) for _ in range(self.blocks)]
        self.norm = nn.LayerNorm(epsilon=1e-8)

    def encode(self, tokens: Tokens, key: Array | None) -> Array:
        """[b, D] of b histories."""
        blocks, length = tokens.item.shape
        shapes: list[tuple[int, ...]] = [(blocks, length, self.width)]
        looked_at = tokens.past(tokens.item).shape[1]
        for i in range(self.blocks):
            last = i == self.blocks - 1
            asked = len(range(length)[asking(tokens, last)])
            inner = (len(tokens.known),) if last else (blocks, length)
            shapes += [(blocks, self.heads, asked, looked_at), (*inner, self.width), (*inner, self.width)]
        kept = multipliers(key, self.dropout, shapes)
        # Positions count from the right, so that histories may come with less padding than L.
        position = self.position[self.history - length :][tokens.place]
        x = self.item(tokens.item) * jnp.sqrt(self.width)
        x = x + position.astype(x.dtype)
        x = x * kept[0] * (tokens.item > 0)[..., None]
        for i, block in enumerate(self.layers):
            x = block(x, tokens, kept[3 * i + 1 : 3 * i + 4], last=i == self.blocks - 1)
        return self.norm(x)

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"history": [B, L] int32, left-padded with 0} -> [B, D]."""
        if self.is_initializing():
            return self.encode(padded(inputs["history"]), key)
        variables = self.variables
        module = self.clone(parent=None)

        def encode(tokens: Tokens, key: Array | None) -> Array:
            return module.apply(variables, tokens, key, method="encode")

        return by_tokens(encode, inputs["history"], key)

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, jnp.zeros(self.sizes.items)


def sasrec(
    *,
    width: int = 64,
    blocks: int = 2,
    heads: int = 1,
    dropout: float = 0.2,
    limit: float = 0.02,
) -> Model:
    """`width` D, a multiple of `heads`; `limit` of the uniform start of the tables."""
    if width % heads:
        raise UserError(f"model.width={width}: expected a multiple of model.heads={heads}")
    return Model(
        lambda sizes, history: SASRec(sizes, history, width, blocks, heads, dropout, limit),
        ("history",),
        {"item/embedding": "item"},
        looked_up=("position",),
    )
