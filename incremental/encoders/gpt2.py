"""GPT-2 (Radford et al. 2019): a decoder, whose tokens look at themselves and at what stands before them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.encoders.layers import Config, attention, feed_forward, norm


class Layer(nn.Module):
    """Attention and feed-forward, each reading normalised states and adding to the raw ones."""

    config: Config
    dropout: float

    @nn.compact
    def __call__(self, x: Array, allowed: Array, key: Array | None) -> Array:
        """x [N, L, D], allowed [N, 1, L, L] bool -> [N, L, D]."""
        n, length, _ = x.shape
        shapes = [(n, self.config.heads, length, length), x.shape, x.shape]
        looked, attended, fed = multipliers(key, self.dropout, shapes)
        read = norm(self.config, "attention_norm")(x)
        x = x + attention(self, self.config, read, allowed, looked) * attended
        return x + feed_forward(self, self.config, norm(self.config, "feed_forward_norm")(x)) * fed


class GPT2(nn.Module):
    """Parameters "words" and "positions" (tables), "layer_0" … "layer_{n-1}", and "norm"."""

    config: Config
    dropout: float = 0.0
    """rate at the embeddings, the attention and the two sums of a layer; may be traced"""
    remat: bool = False
    """with a key, in training: a layer's inner values are computed anew in the backward pass, not kept"""

    @nn.compact
    def __call__(self, ids: Array, mask: Array, key: Array | None = None) -> Array:
        """ids [N, L] int32, mask [N, L] bool (False = padding, behind the text) -> last states [N, L, D] float32.

        key=None is deterministic. Padded positions have states too, which mean nothing.
        """
        config, length = self.config, ids.shape[1]
        x = nn.Embed(config.vocabulary, config.width, name="words")(ids)
        x = x + nn.Embed(config.positions, config.width, name="positions")(jnp.arange(length))
        keys = [None] * (config.layers + 1) if key is None else list(jax.random.split(key, config.layers + 1))
        x = x * multipliers(keys[-1], self.dropout, [x.shape])[0]
        allowed = jnp.tri(length, dtype=bool) & mask[:, None, None]
        layer = nn.remat(Layer) if self.remat and key is not None else Layer
        for i in range(config.layers):
            x = layer(config, self.dropout, name=f"layer_{i}")(x, allowed, keys[i])
        return norm(config, "norm")(x).astype(jnp.float32)
