"""GEM: no step against the gradient of any past increment (Lopez-Paz & Ranzato 2017, arXiv 1706.08840)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Memory, Params, Problem, stored
from incremental.domains import Count, NotNegative, checked
from incremental.memory import buffer

SWEEPS = 50  # of coordinate descent; a step whose constraints hold already makes none


class Episodes(NamedTuple):
    """Rows of past updates, each one's in slots of its own."""

    memory: Memory  # [increments * capacity]
    finished: Array  # [] int32, updates so far
    until: Array  # [] int32, the last increment that they trained on


@checked
def gem(problem: Problem, *, increments: Count = 10, capacity: Count = 64, margin: NotNegative = 0.5) -> Strategy:
    """The gradient nearest to g that raises the loss of none of the last `increments` updates' new examples.

    With G's rows G_k the gradients of the weighted mean data loss on the rows kept of update k: where Gg ≥ 0, g
    stays; otherwise g ← g + Gᵀv with v = argmin ½ vᵀGGᵀv + vᵀGg over v_k ≥ `margin`. That is the dual of
    min ½|z - g|² with Gz ≥ 0; a margin above 0, as in the paper, adds at least that share of each past gradient. So
    Gz ≥ 0, v ≥ margin and (v - margin)·Gz = 0. Solved by coordinate descent, 50 sweeps over the Gram matrix. As in
    A-GEM the promise is about gradients, not about what an optimizer with moments makes of them.

    At each update's end `capacity` of its rows of new increments, uniform without replacement, are kept (the paper
    keeps the last ones); when those of `increments` updates are, the oldest one's make room. State: increments ·
    capacity rows. Cost: a gradient for each past update, on all its kept rows, and `increments` · P floats while a step
    lasts.
    """

    def batch(state: Episodes, batch: Batch, key: Array) -> Batch:
        del key
        return batch._replace(memory=state.memory.rows)

    def grads(
        state: Episodes, grads: Params, params: Params, grad_fn: Callable[[Batch], Params], batch: Batch, key: Array
    ) -> Params:
        del state, params, key

        def projected(grads: Params) -> Params:
            slots = jax.tree.map(lambda leaf: leaf.reshape(increments, capacity, *leaf.shape[1:]), stored(batch.memory))
            past = jax.lax.map(grad_fn, slots)
            flat = [leaf.reshape(increments, -1) for leaf in jax.tree.leaves(past)]
            gram = jnp.sum(jnp.stack([leaf @ leaf.T for leaf in flat]), 0)
            along = jax.vmap(optax.tree.vdot, (0, None))(past, grads)
            v = jax.lax.cond((along < 0).any(), lambda: multipliers(gram, along, margin), lambda: jnp.zeros_like(along))
            return jax.tree.map(lambda g, leaf: g + jnp.tensordot(v, leaf, 1), grads, past)

        return jax.lax.cond(batch.memory.valid.any(), projected, lambda grads: grads, grads)

    def end(state: Episodes, learner: Learner, data: Data, key: Array) -> tuple[Episodes, Learner]:
        total = data.rows.labels.shape[0]
        own = (jnp.arange(total) < data.size) & data.rows.valid & (data.rows.increment > state.until)
        order = jnp.argsort(jnp.where(own, jax.random.uniform(key, (total,)), 2.0))
        place = jnp.arange(capacity)
        rows = jax.tree.map(lambda leaf: leaf[order[jnp.minimum(place, total - 1)]], stored(data.rows))
        rows = rows._replace(valid=place < own.sum())
        memory = buffer.write(state.memory, rows, state.finished % increments * capacity + place)
        return Episodes(memory, state.finished + 1, learner.increment), learner

    def init(learner: Learner) -> Episodes:
        del learner
        return Episodes(buffer.empty(problem.example, increments * capacity), jnp.int32(0), jnp.int32(-1))

    return Strategy(
        init=init,
        batch=batch,
        grads=grads,
        end=end,
    )


def multipliers(gram: Array, along: Array, margin: float | Array) -> Array:
    """[K] float32: argmin ½ vᵀ gram v + v·along over v ≥ margin; 0 where gram has a zero row (no rows kept)."""
    used = jnp.diagonal(gram) > 0

    def improve(n: Array, v: Array) -> Array:
        k = n % len(v)
        best = v[k] - (gram[k] @ v + along[k]) / jnp.where(used[k], gram[k, k], 1.0)
        return v.at[k].set(jnp.where(used[k], jnp.maximum(best, margin), 0.0))

    return jax.lax.fori_loop(0, SWEEPS * len(along), improve, jnp.zeros_like(along))
