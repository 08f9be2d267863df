"""Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618)."""

import jax
from jax import Array

from incremental.core.negatives import drawn, margins, mean_over
from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs
from incremental.domains import Count, NotNegative, checked


@checked
def bpr(*, negatives: Count = 64, power: NotNegative = 0.0, shared: bool = True) -> Head:
    """-mean_j log σ(s_y - s_j) over `negatives` drawn items j ≠ y (uniform at power 0).

    The batch's examples have them together or, where they are not `shared`, each its own; the paper has one an
    example.
    """

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        margin, counts = margins(items, outputs, batch)
        return -mean_over(jax.nn.log_sigmoid(margin), counts)

    return Head(loss, drawn(negatives, power, shared=shared))
