"""The study's network: two hidden layers of ReLU units; its output layer is the item table, a class a row."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.problem import Model
from incremental.core.spec import Sizes

PIXELS, PADDED, MEAN, STD = 28, 32, 0.1000, 0.2752


def uniform(fan_in: int) -> Any:
    """U(-1/√fan_in, 1/√fan_in), for weights and biases alike: the start that the paper's framework gives a layer."""
    limit = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


class MLP(nn.Module):
    """The class c's score is hidden · table[c] + bias[c]."""

    sizes: Sizes
    width: int

    def setup(self) -> None:
        def dense(fan_in: int) -> nn.Dense:
            return nn.Dense(self.width, kernel_init=uniform(fan_in), bias_init=uniform(fan_in))

        self.first, self.second = dense(PADDED**2), dense(self.width)
        self.item = nn.Embed(self.sizes.slots, self.width, embedding_init=uniform(self.width))
        self.item_bias = self.param("item_bias", uniform(self.width), (self.sizes.slots,))

    def __call__(self, inputs: dict[str, Array], key: Array | None) -> Array:
        """{"image": [B, 784] uint8} -> [B, D]; padded to 32 × 32 and normalised here, for a memory keeps the bytes."""
        del key
        edge = (PADDED - PIXELS) // 2
        images = inputs["image"].reshape(-1, PIXELS, PIXELS).astype(jnp.float32) / 255
        images = (jnp.pad(images, ((0, 0), (edge, edge), (edge, edge))) - MEAN) / STD
        return nn.relu(self.second(nn.relu(self.first(images.reshape(-1, PADDED**2)))))

    def items(self) -> tuple[Array, Array]:
        return self.item.embedding, self.item_bias


def mlp(*, width: int = 400) -> Model:
    """`width` of both hidden layers."""
    return Model(
        lambda sizes, _inputs: MLP(sizes, width),
        ("image",),
        {"item/embedding": "item", "item_bias": "item"},
        {"image": (PIXELS**2,)},
    )
