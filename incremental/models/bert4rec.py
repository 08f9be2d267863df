"""BERT4Rec for the next item: attention in both directions over a history that ends in a mask (Sun et al. 2019,
arXiv 1904.06690)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.core.embedding import Rows, uniform_rows
from incremental.core.problem import Model
from incremental.core.spec import Sizes
from incremental.core.strategy import named_key
from incremental.domains import Count, NotNegative, ShareBelow1, checked
from incremental.errors import UserError


class Block(nn.Module):
    """Attention over all real positions and feed-forward, each normalised behind its residual; `last` computes the last
    position only."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: Array, real: Array, kept: list[Array | float], *, last: bool) -> Array:
        """x [B, n, D], real [B, n] bool, kept: dropout of attention, its output and the feed-forward -> [B, n, D], or
        [B, 1, D] with `last`."""
        asked = x[:, -1:] if last else x

        def heads(name: str, values: Array) -> Array:
            projected = nn.Dense(self.width, name=name)(values)
            return projected.reshape(*values.shape[:2], self.heads, self.width // self.heads)

        q, k, v = heads("query", asked), heads("key", x), heads("value", x)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(self.width / self.heads)
        weights = nn.softmax(jnp.where(real[:, None, None], logits, -1e9)) * kept[0]
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(asked.shape)
        x = nn.LayerNorm(name="attention_norm")(asked + nn.Dense(self.width, name="attended")(attended) * kept[1])
        inner = nn.gelu(nn.Dense(4 * self.width, name="inner")(x), approximate=False)
        return nn.LayerNorm(name="norm")(x + nn.Dense(self.width, name="outer")(inner) * kept[2])


class BERT4Rec(nn.Module):
    """Tables "item/embedding" [V, D], shared by input and output, "item_bias" [V] and "position" [L + 1, D]."""

    sizes: Sizes
    history: int
    width: int
    blocks: int
    heads: int
    dropout: float
    masked: float
    limit: float

    def setup(self) -> None:
        start = uniform_rows(self.limit)
        self.item = Rows(self.sizes["item"], self.width, embedding_init=start)
        self.item_bias = self.param("item_bias", nn.initializers.zeros, (self.sizes["item"],))
        self.mask = self.param("mask", start, (self.width,))
        self.position = self.param("position", start, (self.history + 1, self.width))
        self.layers = [Block(self.width, self.heads) for _ in range(self.blocks)]
        self.top = nn.Dense(self.width)

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"history": [B, L] int32, left-padded with 0} -> [B, D]."""
        history = inputs["history"]
        rows, n = history.shape[0], history.shape[1] + 1  # a history may come with less padding than L
        x = self.item(history)
        if key is not None:
            hidden = jax.random.uniform(named_key(key, "cloze"), history.shape) < self.masked
            x = jnp.where(hidden[..., None], self.mask.astype(x.dtype), x)
        x = jnp.concatenate([x, jnp.broadcast_to(self.mask, (rows, 1, self.width)).astype(x.dtype)], 1)
        x = x + self.position[self.history + 1 - n :].astype(x.dtype)
        real = jnp.pad(history > 0, ((0, 0), (0, 1)), constant_values=True)
        shapes: list[tuple[int, ...]] = [(rows, n, self.width)]
        for i in range(self.blocks):
            asked = 1 if i == self.blocks - 1 else n
            shapes += [(rows, self.heads, asked, n), (rows, asked, self.width), (rows, asked, self.width)]
        kept = multipliers(key, self.dropout, shapes)
        x = x * kept[0]
        for i, block in enumerate(self.layers):
            x = block(x, real, kept[3 * i + 1 : 3 * i + 4], last=i == self.blocks - 1)
        return nn.gelu(self.top(x[:, -1]), approximate=False)

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, self.item_bias


@checked
def bert4rec(
    *,
    width: Count = 64,
    blocks: Count = 2,
    heads: Count = 2,
    dropout: ShareBelow1 = 0.2,
    masked: ShareBelow1 = 0.2,
    limit: NotNegative = 0.02,
) -> Model:
    """`width` D, a multiple of `heads`; `masked` the share of a history's items that training hides; `limit` of the
    uniform start of items, positions and mask.

    The input is the history and, behind it, a mask in place of the label. A block is x <- LN(x + attention(x)),
    x <- LN(x + W₂ GELU(W₁ x)), W₁ four times as wide; all real positions look at each other. The scores are
    E · GELU(W h + b) + bias, h the mask's vector, E the item table.

    Deviation: this is next-item BERT4Rec. The paper hides a share ρ of a whole sequence and predicts every hidden item
    from both sides; an example here has one label, so the loss is that at the last mask. Items of the history that
    training hides are noise, drawn anew in each step with probability `masked`, and no loss is taken there: an item is
    predicted once, as the label of its own event, from what came before. The paper's weights all start in ±0.02; here
    dense layers have Linen's start. Attention in both directions cannot share a run among prefixes
    (`training.sharing=prefix`) and computes padded histories.
    """
    if width % heads:
        raise UserError(f"model.width={width}: expected a multiple of model.heads={heads}")
    return Model(
        lambda sizes, inputs: BERT4Rec(sizes, inputs["history"].shape[0], width, blocks, heads, dropout, masked, limit),
        ("history",),
        {"item/embedding": "item", "item_bias": "item"},
        labels="item",
        looked_up=("position",),
    )
