"""OGD: updates orthogonal to gradients of past examples (Farajtabar et al. 2020, arXiv 1910.07104)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.strategy import Strategy
from incremental.core.types import Data, Learner, Params, Problem, stored
from incremental.domains import Count, checked

SPANNED = 1e-3  # a gradient with a smaller share outside the basis brings no direction


class Directions(NamedTuple):
    """An orthonormal basis of past gradients."""

    basis: Params  # leaves [directions, ...], 0 beyond the first `used`
    used: Array  # [] int32
    left_out: Array  # [] int32, gradients that found no room


@checked
def ogd(problem: Problem, *, directions: Count = 64, samples: Count = 16) -> Strategy:
    """An update keeps only its part orthogonal to the kept gradients: U ← U - Σ_r q_r (q_r · U), over all parameters.

    At each increment's end the loss gradients of `samples` single examples (the head's exact loss over all candidates,
    no dropout; uniform with replacement from the training rows) are orthonormalised by Gram-Schmidt and kept, while
    there are fewer than `directions`; later ones are counted in `left_out` and not protected. To first order the loss
    of those examples then stays as it was at their increment's end. The paper keeps gradients of the model's outputs
    (its OGD-GTL of the true label's logit alone) in place of the loss's. Projected are the updates, not the gradients:
    Adam scales and averages a gradient, which leads back into the protected space. The directions outlive a fresh start
    (update.start=afresh), and say nothing of the new weights: leave it out there. State: `directions` floats a
    parameter.
    """

    def outside(basis: Params, tree: Params) -> Params:
        """The part of `tree` that is orthogonal to the basis."""
        parts = jax.tree.map(lambda q, leaf: q.reshape(directions, -1) @ leaf.reshape(-1), basis, tree)
        along = jnp.sum(jnp.stack(jax.tree.leaves(parts)), 0)
        return jax.tree.map(lambda q, leaf: leaf - jnp.tensordot(along, q, 1), basis, tree)

    def init(learner: Learner) -> Directions:
        basis = jax.tree.map(lambda leaf: jnp.zeros((directions, *leaf.shape), leaf.dtype), learner.params)
        return Directions(basis, jnp.int32(0), jnp.int32(0))

    def updates(state: Directions, updates: Params, params: Params) -> Params:
        del params
        return outside(state.basis, updates)

    def end(state: Directions, learner: Learner, data: Data, key: Array) -> tuple[Directions, Learner]:
        def example_loss(params: Params, i: Array) -> Array:
            row = jax.tree.map(lambda leaf: leaf[i][None], stored(data.rows))
            row = row._replace(candidates=learner.catalogue.seen)
            return problem.loss(params, problem.apply(params, row.inputs), row)[0]

        def add(state: Directions, i: Array) -> tuple[Directions, None]:
            gradient = jax.grad(example_loss)(learner.params, i)
            # Twice: once leaves rounding errors of the order of the gradient, not of what is left.
            rest = outside(state.basis, outside(state.basis, gradient))
            length = optax.tree.norm(rest)
            fresh = length > SPANNED * optax.tree.norm(gradient)
            kept = fresh & (state.used < directions)
            slot = jnp.where(kept, state.used, directions)
            scale = jnp.where(fresh, length, 1.0)
            basis = jax.tree.map(lambda q, leaf: q.at[slot].set(leaf / scale, mode="drop"), state.basis, rest)
            return Directions(basis, state.used + kept, state.left_out + (fresh & ~kept)), None

        index = jax.random.randint(key, (samples,), 0, jnp.maximum(data.size, 1))
        state, _ = jax.lax.scan(add, state, index)
        return state, learner

    return Strategy(init=init, updates=updates, end=end, report=lambda state: {"left_out": state.left_out})
