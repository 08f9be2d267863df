"""BERT (Devlin et al. 2019, arXiv 1810.04805) and the encoders of its build: RoBERTa, DistilBERT, MiniLM.

They differ in numbers alone: RoBERTa's positions begin at a later row, DistilBERT has no token types. The pooler is
left out: texts are pooled from the states.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.dropout import multipliers
from incremental.encoders.layers import Config, attention, feed_forward, norm


class Layer(nn.Module):
    """Attention and feed-forward, each added and then normalised."""

    config: Config
    dropout: float

    @nn.compact
    def __call__(self, x: Array, allowed: Array, key: Array | None) -> Array:
        """x [N, L, D], allowed [N, 1, 1, L] bool -> [N, L, D]."""
        n, length, _ = x.shape
        shapes = [(n, self.config.heads, length, length), x.shape, x.shape]
        looked, attended, fed = multipliers(key, self.dropout, shapes)
        x = norm(self.config, "attention_norm")(x + attention(self, self.config, x, allowed, looked) * attended)
        return norm(self.config, "norm")(x + feed_forward(self, self.config, x) * fed)


class Bert(nn.Module):
    """Parameters "words", "positions", "types" (tables), "norm", and "layer_0" … "layer_{n-1}"."""

    config: Config
    dropout: float = 0.0
    """rate at the embeddings, the attention and the two sums of a layer; may be traced"""
    remat: bool = False
    """with a key, in training: a layer's inner values are computed anew in the backward pass, not kept"""

    @nn.compact
    def __call__(self, ids: Array, mask: Array, key: Array | None = None) -> Array:
        """ids [N, L] int32, mask [N, L] bool (False = padding) -> states of the last layer [N, L, D] float32.

        key=None is deterministic. Padded positions have states too, which mean nothing.
        """
        config = self.config
        x = nn.Embed(config.vocabulary, config.width, name="words")(ids)
        places = jnp.arange(ids.shape[1]) + config.offset
        x = x + nn.Embed(config.positions + config.offset, config.width, name="positions")(places)
        if config.types:
            x = x + nn.Embed(config.types, config.width, name="types")(jnp.zeros(1, jnp.int32))
        x = norm(config, "norm")(x)
        keys = [None] * (config.layers + 1) if key is None else list(jax.random.split(key, config.layers + 1))
        x = x * multipliers(keys[-1], self.dropout, [x.shape])[0]
        layer = nn.remat(Layer) if self.remat and key is not None else Layer
        for i in range(config.layers):
            x = layer(config, self.dropout, name=f"layer_{i}")(x, mask[:, None, None], keys[i])
        return x.astype(jnp.float32)
