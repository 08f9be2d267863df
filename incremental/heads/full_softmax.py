"""Full softmax: the cross-entropy over every candidate."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs


def cross_entropy(outputs: Outputs, batch: Batch) -> Array:
    """[B]: log Σ_{j in candidates} exp(s_j) - s_y."""
    # As [V, B], so that the table's gradient, the scores' one [V, B] times [B, D], is a product without a transpose.
    scores = outputs.scores.T
    masked = scores
    if batch.candidates is not None:
        masked = scores + jnp.where(batch.candidates, 0.0, -jnp.inf)[:, None]
    # Written out instead of `jax.nn.logsumexp`, so that the backward pass is one fused pass over [V, B].
    highest = jax.lax.stop_gradient(masked.max(0))
    return highest + jnp.log(jnp.exp(masked - highest).sum(0)) - of_labels(scores, batch.labels)


@jax.custom_jvp
def of_labels(scores: Array, labels: Array) -> Array:
    """scores [V, B], labels [B] -> [B]: s_y.

    Read with a gather, and differentiated as a comparison with all of V: it fuses with the rest of the gradient, where
    a gather's scatter would be a pass of its own.
    """
    return jnp.take_along_axis(scores, labels[None], 0, mode="clip")[0]


@of_labels.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    scores, labels = primals
    chosen = jnp.arange(len(scores))[:, None] == labels
    return of_labels(scores, labels), jnp.where(chosen, tangents[0], 0.0).sum(0)


def full_softmax() -> Head:
    """-log softmax(s)_y over the candidates."""

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        del items
        return cross_entropy(outputs, batch)

    return Head(loss)
