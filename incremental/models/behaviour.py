"""Which behaviour follows, from the texts of a user's last items and of the item in question."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.core.embedding import Rows, uniform_rows
from incremental.core.problem import LABELS, Model
from incremental.core.spec import Sizes
from incremental.domains import Count, ShareBelow1, checked


class Behaviour(nn.Module):
    """Table "item/embedding" [C, D] and "item_bias" [C], a behaviour a row; dense part "inner"."""

    sizes: Sizes
    width: int
    dropout: float

    def setup(self) -> None:
        self.inner = nn.Dense(self.width)
        self.item = Rows(self.sizes.slots, self.width, embedding_init=uniform_rows(self.width**-0.5))
        self.item_bias = self.param("item_bias", nn.initializers.zeros, (self.sizes.slots,))

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"past" [B, F], "asked" [B, F]} float32 -> [B, D]: relu(W [past, asked, √F past · asked]), F times alike."""
        past, asked = inputs["past"], inputs["asked"]
        both = past * asked * past.shape[-1] ** 0.5
        hidden = nn.relu(self.inner(jnp.concatenate([past, asked, both], axis=-1)))
        return hidden * multipliers(key, self.dropout, [hidden.shape])[0]

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, self.item_bias


@checked
def behaviour(*, features: Count = 256, width: Count = 64, dropout: ShareBelow1 = 0.2) -> Model:
    """`features` F, the numbers that `data.text` makes of a title; `width` D. For `data.task=behaviour` or `click`."""
    return Model(
        lambda sizes, _inputs: Behaviour(sizes, width, dropout),
        ("past", "asked"),
        {"item/embedding": LABELS, "item_bias": LABELS},
        {"past": (features,), "asked": (features,)},
    )
