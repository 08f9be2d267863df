"""Spectral regularisation: kernels whose largest singular value stays near one keep learning (Lewandowski et al. 2025).

ICLR 2025, arXiv 2406.06811.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from incremental.core.leaves import by_path, kernels
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Outputs, Params, Problem, Step
from incremental.domains import Count, NotNegative, checked
from incremental.errors import UserError


class Pair(NamedTuple):
    """Estimates of the leading singular vectors of one kernel."""

    left: Array  # [D_in]
    right: Array  # [D_out]


@checked
def spectral_norm(problem: Problem, *, weight: NotNegative = 0.001, exponent: Count = 2) -> Strategy:
    """Loss: weight · Σ_l (σ_l^k - 1)², σ_l the largest singular value of dense kernel l, k = `exponent`.

    σ = uᵀWv with u and v held fixed, so its gradient is uvᵀ. The vectors are those of a whole decomposition at each
    increment's start and follow the weights by one step of power iteration after each optimizer step. Only dense
    kernels are regularised: not id tables, whose size grows with the catalogue, nor biases and layer norms, for which
    the paper has terms of their own. State: D_in + D_out floats a kernel.
    """
    paths = kernels(problem)
    if not paths:
        raise UserError(
            "spectral_norm: the model has no dense kernel (matrix factorisation is id tables alone); choose a model "
            "such as sasrec, or leave the strategy out"
        )

    def init(learner: Learner) -> dict[str, Pair]:
        weights = by_path(learner.params)
        return {path: decomposed(weights[path]) for path in paths}

    def begin(state: dict[str, Pair], learner: Learner, data: Data, key: Array) -> tuple[dict[str, Pair], Learner]:
        del state, data, key
        return init(learner), learner

    def loss(state: dict[str, Pair], params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        weights = by_path(params)
        norms = jnp.stack([pair.left @ weights[path] @ pair.right for path, pair in state.items()])
        return weight * ((norms**exponent - 1.0) ** 2).sum()

    def record(state: dict[str, Pair], step: Step, key: Array) -> dict[str, Pair]:
        del key
        weights, moves = by_path(step.params), by_path(step.updates)
        return {path: followed(pair, weights[path] + moves[path]) for path, pair in state.items()}

    return Strategy(init=init, begin=begin, loss=loss, record=record)


def decomposed(kernel: Array) -> Pair:
    """The leading singular vectors."""
    left, _, right = jnp.linalg.svd(kernel, full_matrices=False)
    return Pair(left[:, 0], right[0])


def followed(pair: Pair, kernel: Array) -> Pair:
    """One step of power iteration towards the leading singular vectors of `kernel`; those of 0 stay as they are."""
    right = pair.left @ kernel
    right = jnp.where(right.any(), right / jnp.maximum(jnp.linalg.norm(right), 1e-30), pair.right)
    left = kernel @ right
    left = jnp.where(left.any(), left / jnp.maximum(jnp.linalg.norm(left), 1e-30), pair.left)
    return Pair(left, right)
