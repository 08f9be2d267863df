"""The study's network: two hidden layers of ReLU units; its output layer is the item table, a class a row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.problem import Model
from incremental.core.spec import Sizes

START = 0.1  # the normal's standard deviation before it is cut at two of them, and each bias


def normal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """N(0, 0.1²), cut at ±0.2."""
    return START * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


class MLP(nn.Module):
    """The class c's score is hidden · table[c] + bias[c]."""

    sizes: Sizes
    width: int

    def setup(self) -> None:
        bias = nn.initializers.constant(START)
        self.first = nn.Dense(self.width, kernel_init=normal, bias_init=bias)
        self.second = nn.Dense(self.width, kernel_init=normal, bias_init=bias)
        self.item = nn.Embed(self.sizes.slots, self.width, embedding_init=normal)
        self.item_bias = self.param("item_bias", bias, (self.sizes.slots,))

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"image": [B, P] uint8} -> [B, D]; divided by 255 here, for a memory keeps the bytes."""
        del key
        return nn.relu(self.second(nn.relu(self.first(inputs["image"].astype(jnp.float32) / 255))))

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, self.item_bias


def mlp(*, width: int = 256) -> Model:
    """`width` of both hidden layers."""
    return Model(
        lambda sizes, _inputs: MLP(sizes, width),
        ("image",),
        {"item/embedding": "item", "item_bias": "item"},
    )
