"""GRU4Rec: a gated recurrent unit over the history (Hidasi et al. 2016, arXiv 1511.06939), one shared item table."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.core.embedding import Rows, uniform_rows
from incremental.core.lengths import by_length
from incremental.core.packing import Tokens
from incremental.core.problem import Model
from incremental.core.pure import pure
from incremental.core.spec import Sizes
from incremental.domains import Count, NotNegative, ShareBelow1, checked

STARTS = "kernel_init", "recurrent_kernel_init", "bias_init"


class Cell(nn.Module):
    """One step of the recurrence: padding leaves the carry as it was, a history's first event starts from 0."""

    width: int
    limit: float | None

    @nn.compact
    def __call__(self, carry: Array, step: tuple[Array, ...]) -> tuple[Array, Array]:
        """carry [B, D]; step: x [B, D], real [B] bool and, where several histories follow one another, first [B]."""
        x, real, *first = step
        for begins in first:
            carry = jnp.where(begins[:, None], 0.0, carry)
        starts = {} if self.limit is None else dict.fromkeys(STARTS, uniform_rows(self.limit))
        new, _ = nn.GRUCell(self.width, **starts)(carry, x)
        carry = jnp.where(real[:, None], new, carry)
        return carry, carry


class GRU4Rec(nn.Module):
    """Tables "item/embedding" [V, D], shared by input and output, and "item_bias" [V] where there is a `bias`."""

    sizes: Sizes
    width: int
    dropout: float
    limit: float
    cell_limit: float | None
    bias: bool

    def setup(self) -> None:
        self.item = Rows(self.sizes["item"], self.width, embedding_init=uniform_rows(self.limit))
        if self.bias:
            self.item_bias = self.param("item_bias", nn.initializers.zeros, (self.sizes["item"],))
        self.cell = nn.scan(Cell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)(
            self.width, self.cell_limit
        )

    def encode(self, tokens: Tokens, key: Array | None) -> Array:
        """[b, D] of b histories: a block begins a block earlier, where its first history may have begun."""
        length = tokens.item.shape[1]
        (kept,) = multipliers(key, self.dropout, [(*tokens.item.shape, self.width)])
        x, item, nth = (tokens.past(values) for values in (self.item(tokens.item) * kept, tokens.item, tokens.nth))
        _, states = self.cell(jnp.zeros((len(x), self.width), x.dtype), (x, item > 0, nth == 0))
        return tokens.ends(states[:, -length:]) * tokens.known[:, None]

    def last(self, history: Array, key: Array | None) -> Array:
        """[B, l] int32 -> [B, D]."""
        (kept,) = multipliers(key, self.dropout, [(*history.shape, self.width)])
        x = self.item(history) * kept
        carry, _ = self.cell(jnp.zeros((len(history), self.width), x.dtype), (x, history > 0))
        return carry

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"history": [B, L] int32, left-padded with 0} -> [B, D]."""
        if self.is_initializing():
            return self.last(inputs["history"], key)
        return by_length(pure(self, "last"), inputs["history"], key)

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, self.item_bias if self.bias else jnp.zeros(self.sizes["item"])


@checked
def gru4rec(
    *,
    width: Count = 64,
    dropout: ShareBelow1 = 0.2,
    limit: NotNegative = 0.05,
    cell_limit: NotNegative | None = None,
    bias: bool = True,
) -> Model:
    """`width` D of item vectors and of the recurrent state; `limit` of the uniform start of the item table; with `bias`
    each item's score has one.

    `cell_limit` is that of the uniform start of all weights and biases of the recurrence, 1/√D in PyTorch's `nn.GRU`;
    None: Flax's start, which is LeCun-normal for what enters, orthogonal for the state, and 0 for biases.
    """
    return Model(
        lambda sizes, _inputs: GRU4Rec(sizes, width, dropout, limit, cell_limit, bias),
        ("history",),
        {"item/embedding": "item", **({"item_bias": "item"} if bias else {})},
        labels="item",
        sequence="history",
    )
