"""Binary cross-entropy with negatives, SASRec's original loss (Kang & McAuley 2018, arXiv 1808.09781)."""

import jax
from jax import Array

from incremental.core.negatives import drawn, mean_over, scored
from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs
from incremental.domains import Count, NotNegative, checked


@checked
def bce(*, negatives: Count = 64, power: NotNegative = 0.0, shared: bool = True) -> Head:
    """-log σ(s_y) - mean_j log(1 - σ(s_j)) over `negatives` drawn items j ≠ y.

    The batch's examples have them together or, where they are not `shared`, each its own; the paper has one an example.

    On a stream: with uniform draws a score of 0, at about which a new item starts, is that of an item whose share of
    the labels is 1/n, n the items seen so far; a new one ranks above the many rare ones.
    """

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        positive, scores, counts = scored(items, outputs, batch)
        return -jax.nn.log_sigmoid(positive) - mean_over(jax.nn.log_sigmoid(-scores), counts)

    return Head(loss, drawn(negatives, power, shared=shared))
