"""Herding: exemplars whose mean follows the mean of all (Welling 2009; iCaRL, Rebuffi et al. 2017, algorithm 4)."""

import jax
import jax.numpy as jnp
from jax import Array

EQUAL = 1.0 + 1e-5  # squared distances whose ratio is below this are equally good


def herd(vectors: Array, groups: Array, quota: Array) -> Array:
    """[N] bool: `quota` [G] int32 rows of each group, chosen greedily, all groups at once.

    In round k each group g with k <= quota_g takes, of its rows not yet taken, the one that minimises
    ‖μ_g - (Σ_taken φ + φ_x) / k‖, μ_g the mean of all its rows: the first of equally good ones, as two rows are in the
    first round, whose rounding must not decide. `vectors` φ [N, D], `groups` [N] int32. max(quota) rounds of
    O(N D + G D).
    """
    n, place = len(groups), jnp.arange(len(groups))
    sums = jnp.zeros((len(quota), vectors.shape[1]), vectors.dtype)
    sizes = jnp.zeros(len(quota), vectors.dtype).at[groups].add(1.0)
    mean = sums.at[groups].add(vectors) / jnp.maximum(sizes, 1.0)[:, None]

    def one(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        taken, total = carry
        wanted = (k + 1) * mean - total  # the row that would make the means equal
        open_ = ~taken & (k < quota)[groups]
        distance = jnp.where(open_, ((wanted[groups] - vectors) ** 2).sum(1), jnp.inf)
        least = jax.ops.segment_min(distance, groups, len(quota))
        best = jnp.where(open_ & (distance <= least[groups] * EQUAL), place, n)
        row = jnp.minimum(jax.ops.segment_min(best, groups, len(quota)), n)  # [G], n = none
        added = jnp.where((row < n)[:, None], vectors[jnp.minimum(row, n - 1)], 0.0)
        return taken | (row[groups] == place), total + added

    return jax.lax.fori_loop(0, quota.max(), one, (jnp.zeros(n, bool), sums))[0]


def highest(values: Array, groups: Array, quota: Array) -> Array:
    """[N] bool: the `quota` [G] int32 rows of each group with the highest `values` [N]."""
    order = jnp.lexsort((-values, groups))
    sizes = jnp.zeros_like(quota).at[groups].add(1)
    starts = jnp.cumsum(sizes) - sizes
    ranked = groups[order]
    return jnp.zeros(len(groups), bool).at[order].set(jnp.arange(len(groups)) - starts[ranked] < quota[ranked])
