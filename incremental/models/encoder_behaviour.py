"""Which behaviour follows, as a text encoder reads it from the titles of the item in question and of a user's last."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.core.embedding import Rows, uniform_rows
from incremental.core.problem import LABELS, Model
from incremental.core.spec import Sizes
from incremental.core.types import Params
from incremental.domains import Count, Positive, ShareBelow1, Whole, checked
from incremental.encoders.layers import Config
from incremental.encoders.top import through, top
from incremental.errors import UserError


class Above(nn.Module):
    """The layers from `first` on."""

    config: Config
    first: int

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        return through(self.config, self.first, x, mask)


class EncoderBehaviour(nn.Module):
    """Table "item/embedding" [C, D] and "item_bias" [C], a behaviour a row; and the encoder's parameters."""

    sizes: Sizes
    width: int
    start: Callable[[Array], Params]
    """(key) -> the encoder's parameters"""
    pooled: Callable[[Params, Array], Array]
    """(those, tokens [B, T]) -> [B, D]"""
    dropout: float

    def setup(self) -> None:
        self.item = Rows(self.sizes.slots, self.width, embedding_init=uniform_rows(self.width**-0.5))
        self.item_bias = self.param("item_bias", nn.initializers.zeros, (self.sizes.slots,))

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"tokens" [B, T] int32, 1 + ids, 0 = none} -> [B, D]."""
        if self.is_initializing():
            for name, part in self.start(self.make_rng("params")).items():
                self.put_variable("params", name, part)
        own = {name: part for name, part in self.variables["params"].items() if name not in ("item", "item_bias")}
        hidden = self.pooled(own, inputs["tokens"])
        return hidden * multipliers(key, self.dropout, [hidden.shape])[0]

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, self.item_bias


@checked
def encoder_behaviour(
    *,
    path: str,
    tokens: Count = 80,
    layers: Count = 1,
    rank: Whole = 0,
    alpha: Positive = 16.0,
    merges: bool = False,
    dropout: ShareBelow1 = 0.1,
    remat: bool = False,
) -> Model:
    """The BERT-family encoder at `path` over rows of `tokens` T tokens: the titles of the item in question and of the
    user's last ones, one behind the other. For `data.task=behaviour` or `click`, and `data.text=tokens`.

    Its top `layers` are trained from where the checkpoint has them, or with a `rank` LoRA matrices in them
    (`incremental.encoders.top`, `merges` too); what is below is frozen, and an argument of the program's functions.
    `dropout` of the hidden vector. `remat`: the layers' inner values are computed anew in the backward pass, not kept.
    """
    own = top(path, layers, rank, alpha, merges)
    config = own.encoder.config
    layers_above = Above(config, own.first)  # within another module's method it would become a part of that
    if not 1 <= tokens <= config.positions:
        raise UserError(f"model.tokens={tokens}: expected 1 to {config.positions}, the encoder's positions")

    def of(frozen: Params) -> Model:
        def pooled(params: Params, tokens: Array) -> Array:
            ids, mask = jnp.maximum(tokens - 1, 0), tokens > 0
            dtype = next(
                leaf.dtype for leaf in jax.tree.leaves(params) if leaf.ndim > 1
            )  # of `training.precision`, which the frozen parts take too

            def above(params: Params, x: Array) -> Array:
                layers = own.whole(params, frozen["layers"])
                whole = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, layers)
                found: Array = layers_above.apply({"params": whole}, x, mask)
                return found

            below = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), frozen["below"])
            entering = own.below(below, ids, mask).astype(dtype)
            return own.encoder.pool((jax.checkpoint(above) if remat else above)(params, entering), mask)

        return Model(
            lambda sizes, _inputs: EncoderBehaviour(sizes, config.width, own.start, pooled, dropout),
            ("tokens",),
            {"item/embedding": LABELS, "item_bias": LABELS},
            {"tokens": (tokens,)},
            frozen=kept,
            given=of,
        )

    kept = {"below": own.frozen, "layers": own.pretrained if rank else {}}
    return of(kept)
