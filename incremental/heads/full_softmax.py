"""Full softmax: the cross-entropy over every candidate."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.problem import Head, Items
from incremental.types import Batch, Outputs


def cross_entropy(outputs: Outputs, batch: Batch) -> Array:
    """[B]: log Σ_{j in candidates} exp(s_j) - s_y."""
    scores = outputs.scores
    if batch.candidates is not None:
        scores = jnp.where(batch.candidates, scores, -jnp.inf)
    # A comparison instead of a gather: its gradient fuses with the softmax's, where a gather's is a scatter.
    label = jnp.arange(scores.shape[1]) == batch.labels[:, None]
    return jax.nn.logsumexp(scores, axis=1) - jnp.where(label, outputs.scores, 0.0).sum(1)


def full_softmax() -> Head:
    """-log softmax(s)_y over the candidates."""

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        del items
        return cross_entropy(outputs, batch)

    return Head(loss)
