"""Generalised binary cross-entropy, gSASRec's loss (Petrov & Macdonald 2023, arXiv 2308.07192)."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.negatives import drawn, scored
from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs
from incremental.domains import Count, Share, checked


@checked
def gbce(*, negatives: Count = 256, calibration: Share = 0.75) -> Head:
    """-(β log σ(s_y) + Σ_j log(1 - σ(s_j))) / (k + 1) over k = `negatives` uniformly drawn items j ≠ y.

    β = α (t (1 - 1/α) + 1/α) with the share of negatives that are drawn α = k / (n - 1), n the items seen so far, and
    t = `calibration`: 0 is plain binary cross-entropy, at 1 the scores' sigmoids estimate probabilities without the
    overconfidence that sampling brings. α follows the catalogue from increment to increment. In the exact form every
    other candidate is a negative, and α = 1.

    On a stream: the loss brings a known item of share p of the labels to a score of about log(β n p / k), with the
    defaults -6 to -7 at p = 1/n. A new item starts at about 0, and ranks above all known ones until updates have drawn
    it often enough. The strategy `warm_rows` starts it at the known items' level; without it an update needs a learning
    rate, epochs and a patience that bring it there. The base part learns the level first, then the items' order.
    """

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        positive, scores, counts = scored(items, outputs, batch)
        alpha = jnp.float32(1.0)
        if batch.log_q is not None:  # log(k / n), the same for every item
            inverse = jnp.exp(-batch.log_q[0]) - 1.0 / negatives  # (n - 1) / k; of n = 1 rounding may leave it below 0
            alpha = jnp.minimum(1.0 / jnp.maximum(inverse, 0.0), 1.0)
        beta = alpha * (calibration * (1.0 - 1.0 / alpha) + 1.0 / alpha)
        others = jnp.where(counts, jax.nn.log_sigmoid(-scores), 0.0).sum(1)
        return -(beta * jax.nn.log_sigmoid(positive) + others) / (counts.sum(1) + 1)

    return Head(loss, drawn(negatives, 0.0))
