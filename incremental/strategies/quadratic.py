"""The diagonal quadratic penalty that EWC and its kin share, and the Fisher information that EWC weighs it with."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.strategy import named_key
from incremental.types import Data, Learner, Params, Problem, stored

CHUNK = 8  # examples whose gradients are in memory at once


def penalty(params: Params, anchor: Params, importance: Params) -> Array:
    """½ Σ_i F_i (θ_i - θ*_i)²."""
    terms = jax.tree.map(lambda p, a, f: (f * (p - a) ** 2).sum(), params, anchor, importance)
    return 0.5 * jnp.sum(jnp.stack(jax.tree.leaves(terms)))


def fisher(problem: Problem, learner: Learner, data: Data, key: Array, samples: int) -> Params:
    """The diagonal empirical Fisher: F_i = (1/n) Σ_x (∂ℓ(x, y) / ∂θ_i)², true labels y, no dropout.

    Single-example gradients of the head's exact loss over all candidates, at n = `samples` examples drawn uniformly
    with replacement from the increment's training rows.
    """
    index = jax.random.randint(named_key(key, "fisher"), (-(-samples // CHUNK), CHUNK), 0, jnp.maximum(data.size, 1))

    def example_loss(params: Params, i: Array) -> Array:
        row = jax.tree.map(lambda leaf: leaf[i][None], stored(data.rows))
        row = row._replace(candidates=learner.catalogue.seen)
        return problem.loss(params, problem.apply(params, row.inputs), row)[0]

    def add(total: Params, chunk: tuple[Array, Array]) -> tuple[Params, None]:
        ids, counts = chunk
        grads = jax.vmap(jax.grad(example_loss), (None, 0))(learner.params, ids)
        squares = jax.tree.map(lambda g: jnp.einsum("n,n...->...", counts, g * g), grads)
        return jax.tree.map(jnp.add, total, squares), None

    counts = (jnp.arange(index.size) < samples).astype(jnp.float32).reshape(index.shape)
    zeros = jax.tree.map(jnp.zeros_like, learner.params)
    total, _ = jax.lax.scan(add, zeros, (index, counts))
    return jax.tree.map(lambda leaf: leaf / samples, total)
