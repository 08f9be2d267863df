"""What the encoders' layers share: the numbers that describe them, the attention and the feed-forward part.

Every layer has the dense parts "query", "key", "value", "output" (attention), "inner" and "outer" (feed-forward), so
that adapters, projections and frozen parts are named alike in every family.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


def gelu(x: Array) -> Array:
    """x Φ(x) (Hendrycks & Gimpel 2016, arXiv 1606.08415); `nn.gelu` takes erfc, which is slower and no nearer here."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {  # by their names in checkpoints
    "gelu": gelu,
    "gelu_new": nn.gelu,
    "gelu_pytorch_tanh": nn.gelu,
    "gelu_fast": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
}


class Config(NamedTuple):
    """The numbers of an encoder."""

    vocabulary: int
    """rows of the table of words"""
    width: int
    """D"""
    layers: int
    heads: int
    inner: int
    """width of the feed-forward part"""
    positions: int
    """the most tokens of a text"""
    activation: str
    """of `ACTIVATIONS`"""
    epsilon: float = 1e-12
    """of the layer normalisations"""
    offset: int = 0
    """rows of the table of positions that are left out (RoBERTa)"""
    types: int = 0
    """rows of the table of token types; all tokens are of type 0. 0: the family has none"""


def attention(module: nn.Module, config: Config, x: Array, allowed: Array, kept: Array | float) -> Array:
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762), within the compact method of `module`.

    x [N, L, D], allowed [N, 1, 1 or L, L] bool (who may look at whom), kept [N, H, L, L] (dropout) -> [N, L, D].
    """
    each = config.width // config.heads

    def part(name: str) -> Array:
        out = nn.Dense(config.width, name=name, parent=module)(x)
        return out.reshape(*x.shape[:2], config.heads, each)

    logits = jnp.einsum("nqhd,nkhd->nhqk", part("query"), part("key"), preferred_element_type=jnp.float32)
    # Finite, so that a row without tokens is no division of 0 by 0.
    weights = nn.softmax(jnp.where(allowed, logits * each**-0.5, -1e9)).astype(x.dtype) * kept
    looked_up = jnp.einsum("nhqk,nkhd->nqhd", weights, part("value"))
    return nn.Dense(config.width, name="output", parent=module)(looked_up.reshape(x.shape))


def feed_forward(module: nn.Module, config: Config, x: Array) -> Array:
    """[N, L, D] -> [N, L, D], within the compact method of `module`."""
    inner = nn.Dense(config.inner, name="inner", parent=module)(x)
    return nn.Dense(config.width, name="outer", parent=module)(ACTIVATIONS[config.activation](inner))


def norm(config: Config, name: str) -> nn.LayerNorm:
    """Layer normalisation, its variance from differences: the states of some checkpoints have means of hundreds."""
    return nn.LayerNorm(epsilon=config.epsilon, use_fast_variance=False, name=name)
