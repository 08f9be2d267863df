"""BERT4Rec: attention in both directions over a sequence with masks, one of them the item that is predicted (Sun et al.
2019, arXiv 1904.06690)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.core.embedding import Rows, uniform_rows
from incremental.core.problem import Model
from incremental.core.spec import Sizes
from incremental.core.strategy import named_key
from incremental.domains import Count, NotNegative, Share, ShareBelow1, checked
from incremental.errors import UserError


class Block(nn.Module):
    """Attention over all real positions and feed-forward, each normalised behind its residual."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: Array, real: Array, kept: list[Array | float], place: Array | None) -> Array:
        """x [B, n, D], real [B, n] bool, kept: dropout of attention, its output and the feed-forward -> [B, n, D], or
        [B, 1, D] at one `place` [B] int32 of each."""
        asked = x if place is None else jnp.take_along_axis(x, place[:, None, None], 1)

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
    cloze: float
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
        """{"history": [B, L] int32, left-padded with 0, "following": [B, L] int32, right-padded} -> [B, D]."""
        history = inputs["history"]
        rows, n = history.shape[0], history.shape[1] + 1  # a history may come with less padding than L
        items, place = jnp.pad(history, ((0, 0), (0, 1))), jnp.full(rows, n - 1)  # the mask's place holds 0
        behind = jnp.where(self.cloze > 0, jnp.minimum((inputs["following"] > 0).sum(1), n - 1), 0)
        if key is not None:
            behind = jnp.minimum(behind, jax.random.randint(named_key(key, "window"), (rows,), 0, n))
            behind = jnp.where(jax.random.uniform(named_key(key, "sides"), (rows,)) < self.cloze, behind, 0)
        whole = jnp.concatenate([items, inputs["following"]], 1)
        items = jnp.take_along_axis(whole, behind[:, None] + jnp.arange(n), 1)
        place = place - behind
        asked = jnp.arange(n) == place[:, None]
        hidden, real = asked, asked | (items > 0)
        if key is not None:
            hidden = asked | (jax.random.uniform(named_key(key, "cloze"), items.shape) < self.masked)
        x = self.item(items)
        x = jnp.where(hidden[..., None], self.mask.astype(x.dtype), x)
        x = x + self.position[self.history + 1 - n :].astype(x.dtype)
        shapes: list[tuple[int, ...]] = [(rows, n, self.width)]
        for i in range(self.blocks):
            number = 1 if i == self.blocks - 1 else n
            shapes += [(rows, self.heads, number, n), (rows, number, self.width), (rows, number, self.width)]
        kept = multipliers(key, self.dropout, shapes)
        x = x * kept[0]
        for i, block in enumerate(self.layers):
            x = block(x, real, kept[3 * i + 1 : 3 * i + 4], place if i == self.blocks - 1 else None)
        return nn.gelu(self.top(x[:, 0]), approximate=False)

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
    cloze: Share = 1.0,
    limit: NotNegative = 0.02,
) -> Model:
    """`width` D, a multiple of `heads`; `masked` the share of the other items that training hides; `limit` of the
    uniform start of items, positions and mask.

    A sequence of at most L items, and a mask in place of the label. A block is x <- LN(x + attention(x)),
    x <- LN(x + W₂ GELU(W₁ x)), W₁ four times as wide; all real positions look at each other. The scores are
    E · GELU(W h + b) + bias, h the mask's vector, E the item table.

    Training predicts an item from both sides, in the share `cloze` of its examples: each training event is hidden once
    an epoch, between what came before it and what its user does next in the same update ("following"); each other item
    of the sequence is hidden with probability `masked`, anew in each step. Of n following items min(n, u) are read, u
    uniform in 0..L, so that a long sequence is seen in windows which end anywhere. The other examples read what came
    before alone, as a test does. The paper hides a share ρ of a sequence, and predicts every hidden item in one pass:
    an item is then predicted with probability ρ an epoch, here always, and one example has one label, as strategies and
    memories need it. No validation event, and none that another update trains on, is ever predicted; a user's first
    event is not, for it has no history.

    Deviations: the paper's weights all start in ±0.02; here dense layers have Linen's start. The paper trains each
    sequence once more with its last item hidden alone. Attention in both directions cannot share a run among prefixes
    (`training.sharing=prefix`) and computes padded histories.
    """
    if width % heads:
        raise UserError(f"model.width={width}: expected a multiple of model.heads={heads}")
    return Model(
        lambda sizes, inputs: BERT4Rec(
            sizes, inputs["history"].shape[0], width, blocks, heads, dropout, masked, cloze, limit
        ),
        ("history", "following"),
        {"item/embedding": "item", "item_bias": "item"},
        labels="item",
        looked_up=("position",),
    )
