"""Orthogonalised updates of dense kernels (after Muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.leaves import by_path, kernels, replaced
from incremental.core.strategy import Strategy
from incremental.core.types import Params, Problem
from incremental.errors import UserError

A, B, C = 3.4445, -4.7750, 2.0315  # Muon's quintic: five rounds bring singular values of 0.01 to 1 to about 0.7 to 1.2
ROUNDS = 5


def orthogonal_updates(problem: Problem) -> Strategy:
    """The update U = L S Rᵀ of each dense kernel becomes about L Rᵀ, as long as it was: all directions move alike.

    X_0 = U / |U|, X ← 3.4445 X - 4.7750 (XXᵀ) X + 2.0315 (XXᵀ)² X five times (a quintic Newton-Schulz iteration, whose
    singular values end between about 0.7 and 1.2), then |U| X / |X|, with Frobenius norms. Muon orthogonalises the
    momentum of the gradient and scales it by the kernel's shape; here the update may be any optimizer's, whose step
    size is kept (optimizer=sgd with momentum is nearest to Muon). Id tables, positions and vectors are left alone. No
    state.
    """
    paths = kernels(problem)
    if not paths:
        raise UserError(
            "orthogonal_updates: the model has no dense kernel (matrix factorisation is id tables alone); choose a "
            "model such as sasrec, or leave the strategy out"
        )

    def updates(state: tuple[()], updates: Params, params: Params) -> Params:
        del state, params
        moves = by_path(updates)
        return replaced(updates, {path: orthogonalised(moves[path]) for path in paths})

    return Strategy(updates=updates)


def orthogonalised(update: Array) -> Array:
    """[m, n] with about equal singular values, of the same Frobenius norm; 0 stays 0."""
    length = jnp.linalg.norm(update)
    x = update / jnp.where(length > 0, length, 1.0)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T

    def round_(_: Array, x: Array) -> Array:
        gram = x @ x.T
        return A * x + (B * gram + C * gram @ gram) @ x

    x = jax.lax.fori_loop(0, ROUNDS, round_, x)
    size = jnp.linalg.norm(x)
    x = x * (length / jnp.where(size > 0, size, 1.0))
    return x if wide else x.T
