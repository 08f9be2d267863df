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
from incremental.models.lengths import by_length
from incremental.problem import Model
from incremental.types import Sizes


class Block(nn.Module):
    """Causal attention and feed-forward; `last` computes the last position only."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: Array, real: Array, kept: list[Array | float], *, last: bool) -> Array:
        """x [B, L, D], real [B, L] bool, kept: dropout of attention, inner and outer -> [B, L, D], or [B, 1, D]
        with `last`."""
        batch, length, width = x.shape
        asked = slice(length - 1, length) if last else slice(None)
        queries = nn.LayerNorm(epsilon=1e-8)(x[:, asked])

        def heads(values: Array) -> Array:
            return values.reshape(batch, -1, self.heads, width // self.heads)

        q = heads(nn.Dense(width, name="query")(queries))
        k = heads(nn.Dense(width, name="key")(x))
        v = heads(nn.Dense(width, name="value")(x))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(width / self.heads)
        position = jnp.arange(length)
        allowed = (position[None, :] <= position[asked][:, None])[None, None] & real[:, None, None, :]
        weights = nn.softmax(jnp.where(allowed, logits, -1e9))
        weights = weights * real[:, None, asked, None] * kept[0]
        x = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, -1, width) + queries
        x = nn.LayerNorm(epsilon=1e-8)(x)
        inner = nn.relu(nn.Dense(self.width, name="inner")(x)) * kept[1]
        x = x + nn.Dense(self.width, name="outer")(inner) * kept[2]
        return x * real[:, asked, None]


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

    def encode(self, history: Array, key: Array | None) -> Array:
        """[B, l] int32, the last l <= L of the history -> [B, D]."""
        rows, length = history.shape
        shapes: list[tuple[int, ...]] = [(rows, length, self.width)]
        for i in range(self.blocks):
            asked = 1 if i == self.blocks - 1 else length
            shapes += [
                (rows, self.heads, asked, length),
                (rows, asked, self.width),
                (rows, asked, self.width),
            ]
        kept = multipliers(key, self.dropout, shapes)
        real = history > 0
        # Positions count from the right, so that cutting padding off the left changes nothing.
        x = self.item(history) * jnp.sqrt(self.width) + self.position[self.history - length :]
        x = x * kept[0] * real[..., None]
        for i, block in enumerate(self.layers):
            x = block(x, real, kept[3 * i + 1 : 3 * i + 4], last=i == self.blocks - 1)
        return self.norm(x)[:, -1]

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"history": [B, L] int32, left-padded with 0} -> [B, D]."""
        if self.is_initializing():
            return self.encode(inputs["history"], key)
        variables = self.variables
        module = self.clone(parent=None)

        def encode(history: Array, key: Array | None) -> Array:
            return module.apply(variables, history, key, method="encode")

        return by_length(encode, inputs["history"], key)

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
    )
