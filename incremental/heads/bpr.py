"""Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618)."""

import jax
from jax import Array

from incremental.core.negatives import drawn, mean_over, scored
from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs
from incremental.domains import Count, NotNegative, checked


@checked
def bpr(*, negatives: Count = 64, power: NotNegative = 0.0) -> Head:
    """-mean_j log σ(s_y - s_j) over `negatives` drawn items j ≠ y, shared by the batch (uniform at power 0)."""

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        positive, scores, counts = scored(items, outputs, batch)
        return -mean_over(jax.nn.log_sigmoid(positive[:, None] - scores), counts)

    return Head(loss, drawn(negatives, power))
