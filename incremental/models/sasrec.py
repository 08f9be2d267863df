"""SASRec: self-attention over the history (Kang & McAuley 2018, arXiv 1808.09781), with the original code's block.

The block differs from a usual transformer's: queries are the layer-normalised input, keys and values the raw one; the
residual adds the normalised queries; there is no output projection unless one is asked for; the feed-forward reads and
adds back its normalised input. Padded positions are zeroed after each block. Only the last position scores items, so
the last block computes only that one.
"""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.core.embedding import Rows, uniform_rows
from incremental.core.packing import Tokens, by_tokens, padded
from incremental.core.problem import Model
from incremental.core.pure import pure
from incremental.core.spec import Sizes
from incremental.domains import Count, NotNegative, ShareBelow1, checked
from incremental.errors import UserError

Masks = Literal["own", "shared"]
Positions = Literal["right", "left"]


class Block(nn.Module):
    """Causal attention and feed-forward; `last` computes the ends of the histories only."""

    width: int
    heads: int
    output: bool = False
    deviation: float | None = None

    def dense(self, name: str, *, joint: bool = False) -> nn.Dense:
        """A layer [.., D] -> [.., D]; `joint`: it starts as one of three that are one matrix [D, 3 D], by Glorot."""
        if self.deviation is None:
            return nn.Dense(self.width, name=name)
        start = uniform_rows((6 / (4 * self.width)) ** 0.5) if joint else nn.initializers.normal(self.deviation)
        return nn.Dense(self.width, name=name, kernel_init=start)

    @nn.compact
    def __call__(self, x: Array, tokens: Tokens, kept: list[Array | float], *, last: bool) -> Array:
        """x [n, L, D], kept: dropout of attention, inner and outer -> [n, L, D], or [b, D] with `last`."""
        asked = asking(tokens, last)
        queries = nn.LayerNorm(epsilon=1e-8)(x[:, asked])

        def heads(values: Array) -> Array:
            return values.reshape(*values.shape[:2], self.heads, self.width // self.heads)

        q = heads(self.dense("query", joint=True)(queries))
        k = tokens.past(heads(self.dense("key", joint=True)(x)))
        v = tokens.past(heads(self.dense("value", joint=True)(x)))
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k) / jnp.sqrt(self.width / self.heads)
        weights = nn.softmax(jnp.where(tokens.allowed()[:, None, asked], logits, -1e9))
        real = tokens.item > 0
        weights = weights * real[:, None, asked, None] * kept[0]
        x = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(queries.shape)
        x = (self.dense("output")(x) if self.output else x) + queries
        if last:
            x, real = tokens.ends(x), tokens.known
        x = nn.LayerNorm(epsilon=1e-8)(x)
        inner = nn.relu(self.dense("inner")(x)) * kept[1]
        x = x + self.dense("outer")(inner) * kept[2]
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
    masks: Masks
    positions: Positions
    limit: float
    position_limit: float
    output: bool
    deviation: float | None

    def setup(self) -> None:
        items, places = uniform_rows(self.limit), uniform_rows(self.position_limit)
        if self.deviation is not None:
            items = places = nn.initializers.normal(self.deviation)
        self.item = Rows(self.sizes["item"], self.width, embedding_init=items)
        self.position = self.param("position", places, (self.history, self.width))
        self.layers = [Block(self.width, self.heads, self.output, self.deviation) for _ in range(self.blocks)]
        self.norm = nn.LayerNorm(epsilon=1e-8)

    def kept(self, tokens: Tokens, key: Array | None) -> list[Array | float]:
        """Dropout's multipliers: of the embeddings, then of attention, inner and outer layer of each block."""
        blocks, length = tokens.item.shape
        everywhere: tuple[int, ...] = (blocks, length, self.width)
        looked_at = tokens.past(tokens.item).shape[1]
        *early, last = range(self.blocks)
        inner = [everywhere for _ in early] + [(len(tokens.known), self.width)]
        asked = [len(range(length)[asking(tokens, i == last)]) for i in range(self.blocks)]
        attention = [(blocks, self.heads, queries, looked_at) for queries in asked]
        if self.masks == "own":
            shapes = [everywhere]
            for i in range(self.blocks):
                shapes += [attention[i], inner[i], inner[i]]
            return multipliers(key, self.dropout, shapes)
        path, weights, *inners = multipliers(key, self.dropout, [everywhere, attention[0], *inner])
        if isinstance(path, float) or isinstance(weights, float):
            return [1.0] * (3 * self.blocks + 1)
        sites: list[Array | float] = [path]
        for i in early:
            sites += [weights, inners[i], path]
        return [*sites, weights[:, :, -asked[last] :], inners[last], tokens.ends(path)]

    def encode(self, tokens: Tokens, key: Array | None) -> Array:
        """[b, D] of b histories."""
        length = tokens.item.shape[1]
        kept = self.kept(tokens, key)
        # Either way histories may come with less padding than L.
        right = self.positions == "right"
        position = self.position[self.history - length :][tokens.place] if right else self.position[tokens.nth]
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
        return by_tokens(pure(self, "encode"), inputs["history"], key)

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, jnp.zeros(self.sizes["item"])


@checked
def sasrec(
    *,
    width: Count = 64,
    blocks: Count = 2,
    heads: Count = 1,
    dropout: ShareBelow1 = 0.2,
    dropout_masks: Masks = "own",
    positions: Positions = "right",
    limit: NotNegative = 0.02,
    position_limit: NotNegative | None = None,
    output: bool = False,
    deviation: NotNegative | None = None,
) -> Model:
    """`width` D, a multiple of `heads`; `limit` of the uniform start of the item table, `position_limit` of that of the
    positions (None: the same). `positions` count from the "right", the last event being at L - 1, as in the original
    code, or from the "left", the first one being at 0: then an event's place stays what it was when others follow, and
    histories that are prefixes of one another may share a run (`training.sharing`).

    `dropout` has five sites in two blocks of equal sizes: the embeddings, the attention weights, and behind the inner
    and the outer layer of a feed-forward. `dropout_masks` "own": each draws its own mask. "shared": the embeddings and
    the outer layers of all blocks have one mask in a step, so that a coordinate of a position is dropped on the whole
    residual path or not at all; the attention weights of all blocks have another; each inner layer has its own. So do
    the sites of ADER's code (Mi et al. 2020, arXiv 2007.12000), where operations of one seed and shape draw alike.

    `output`: a linear layer behind the attention. `deviation` σ: item table, positions and linear layers start from
    N(0, σ²) in place of a uniform start and LeCun's, queries, keys and values from the uniform ±√(6 / 4D) of one matrix
    [D, 3D]. Both are of SASRec+ (Klenitskiy & Vasilev 2023, arXiv 2309.07602) as Gusak et al. have it (RecSys 2025,
    arXiv 2507.16289).
    """
    if width % heads:
        raise UserError(f"model.width={width}: expected a multiple of model.heads={heads}")
    for name, value, kinds in (("dropout_masks", dropout_masks, Masks), ("positions", positions, Positions)):
        if value not in get_args(kinds):
            raise UserError(f"model.{name}={value!r}: expected one of {', '.join(get_args(kinds))}")
    starts = limit, limit if position_limit is None else position_limit
    return Model(
        lambda sizes, inputs: SASRec(
            sizes,
            inputs["history"].shape[0],
            width,
            blocks,
            heads,
            dropout,
            dropout_masks,
            positions,
            *starts,
            output,
            deviation,
        ),
        ("history",),
        {"item/embedding": "item"},
        labels="item",
        looked_up=("position",),
        sequence="history" if positions == "left" else None,
    )
