"""From the states of a text's tokens to one vector: the ways that checkpoints are trained with.

Each takes states [N, L, D] and mask [N, L] bool (tokens first, padding behind) to [N, D]; 0 for a row without tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

Pool = Callable[[Array, Array], Array]


def mean(states: Array, mask: Array) -> Array:
    """The mean over a text's tokens (Reimers & Gurevych 2019, arXiv 1908.10084)."""
    kept = mask[..., None].astype(states.dtype)
    return (states * kept).sum(1) / jnp.maximum(kept.sum(1), 1)


def mean_sqrt_len(states: Array, mask: Array) -> Array:
    """The sum over a text's n tokens, divided by √n."""
    kept = mask[..., None].astype(states.dtype)
    return (states * kept).sum(1) / jnp.sqrt(jnp.maximum(kept.sum(1), 1))


def weighted_mean(states: Array, mask: Array) -> Array:
    """Σ i s_i / Σ i over a text's tokens i = 1 … n (Muennighoff 2022, arXiv 2202.08904)."""
    weight = (mask * jnp.arange(1, mask.shape[1] + 1))[..., None].astype(states.dtype)
    return (states * weight).sum(1) / jnp.maximum(weight.sum(1), 1)


def highest(states: Array, mask: Array) -> Array:
    """The maximum over a text's tokens, of each number apart."""
    return jnp.where(mask[..., None], states, -jnp.inf).max(1, initial=-1e9) * mask.any(1, keepdims=True)


def first(states: Array, mask: Array) -> Array:
    """The state of a text's first token, which is BERT's [CLS]."""
    return states[:, 0] * mask[:, :1]


def last(states: Array, mask: Array) -> Array:
    """The state of a text's last token; with a decoder it has seen all the others."""
    at = jnp.maximum(mask.sum(1) - 1, 0)
    return jnp.take_along_axis(states, at[:, None, None], axis=1)[:, 0] * mask.any(1, keepdims=True)


@dataclass(frozen=True)
class Together:
    """Several ways, one behind the other: [N, parts · D]."""

    parts: tuple[Pool, ...]

    def __call__(self, states: Array, mask: Array) -> Array:
        return jnp.concatenate([part(states, mask) for part in self.parts], axis=1)
