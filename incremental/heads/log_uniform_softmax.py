"""Sampled softmax with log-uniform draws: items by frequency rank, as Zipf's law has them."""

import jax.numpy as jnp
from jax import Array

from incremental.core.negatives import drawn_by
from incremental.core.problem import Head
from incremental.core.types import Catalogue
from incremental.domains import Count, checked
from incremental.heads.sampled_softmax import sampled_cross_entropy


def log_uniform(catalogue: Catalogue) -> Array:
    """[V]: log((r + 2) / (r + 1)), r = 0, 1, … the rank of an item by its training events so far."""
    order = jnp.argsort(-jnp.where(catalogue.seen, catalogue.events, -1.0), stable=True)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))
    return jnp.log1p(1.0 / (rank + 1.0))


@checked
def log_uniform_softmax(*, negatives: Count = 256) -> Head:
    """`sampled_cross_entropy` with `negatives` draws by frequency rank, q_r = log((r + 2) / (r + 1)) / log(n + 1).

    The n items seen so far are ranked anew at the start of each increment.
    """
    return Head(sampled_cross_entropy, drawn_by(negatives, log_uniform))
