"""Sampled softmax with logQ correction."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.negatives import between, drawn, of_labels, scored
from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs
from incremental.domains import Count, NotNegative, checked
from incremental.heads.full_softmax import cross_entropy


def sampled_cross_entropy(items: Items, outputs: Outputs, batch: Batch) -> Array:
    """[B]: -s_y + log(exp(s_y) + Σ_{j drawn, j ≠ y} exp(s_j - log Q_j)), Q_j the expected number of draws of j.

    The sum is an unbiased estimate of the softmax's denominator (Bengio & Senécal 2008). The label is always present,
    so its own score is not corrected (Khrylchenko et al. 2025, arXiv 2507.09331). Their loss, w (log Σ_j exp(s_j -
    log Q_j) - s_y) with the sample weight w = 1 - p(y) held fixed and the label outside the sum, has this one's
    gradient, p(y) being estimated from the same draws. Without drawn negatives it is the full softmax.
    """
    if batch.negatives is None or batch.log_q is None:
        return cross_entropy(outputs, batch)
    if batch.negatives.ndim == 1:
        # As [N, B], which takes two thirds of the time of [B, N] on a CPU.
        positive = of_labels(items, outputs, batch)
        scores = between(items.table[batch.negatives], outputs.hidden) + items.bias[batch.negatives, None]
        counts, log_q = batch.negatives[:, None] != batch.labels, batch.log_q[:, None]
    else:
        positive, scores, counts = scored(items, outputs, batch)
        scores, counts, log_q = scores.T, counts.T, batch.log_q.T
    corrected = jnp.where(counts, scores - log_q, -jnp.inf)
    # Written out, so that the label's score need not be copied beside the others.
    highest = jax.lax.stop_gradient(jnp.maximum(corrected.max(0), positive))
    return highest + jnp.log(jnp.exp(positive - highest) + jnp.exp(corrected - highest).sum(0)) - positive


@checked
def sampled_softmax(*, negatives: Count = 256, power: NotNegative = 0.75) -> Head:
    """`sampled_cross_entropy` with `negatives` draws by (training events)^`power`; 0 is uniform."""
    return Head(sampled_cross_entropy, drawn(negatives, power))
