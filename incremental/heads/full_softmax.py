"""Full softmax: the cross-entropy over every candidate."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.problem import Head, Items
from incremental.types import Batch, Outputs


def cross_entropy(outputs: Outputs, batch: Batch) -> Array:
    """[B]: log Σ_{j in candidates} exp(s_j) - s_y."""
    scores = outputs.scores
    masked = scores
    if batch.candidates is not None:
        masked = scores + jnp.where(batch.candidates, 0.0, -jnp.inf)
    # Written out, and the label found by comparison instead of a gather: forward and backward are then one fused pass
    # over [B, V] each; `jax.nn.logsumexp` and a gather's scatter cost a third more.
    highest = jax.lax.stop_gradient(masked.max(1))
    normaliser = highest + jnp.log(jnp.exp(masked - highest[:, None]).sum(1))
    label = jnp.arange(scores.shape[1]) == batch.labels[:, None]
    return normaliser - jnp.where(label, scores, 0.0).sum(1)


def full_softmax() -> Head:
    """-log softmax(s)_y over the candidates."""

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        del items
        return cross_entropy(outputs, batch)

    return Head(loss)
