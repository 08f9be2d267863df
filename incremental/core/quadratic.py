"""The diagonal quadratic penalty that EWC and its kin share, and the importances they weigh it with."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.strategy import named_key
from incremental.core.types import Batch, Data, Learner, Params, Problem, stored
from incremental.errors import UserError

CHUNK = 8  # examples whose gradients are in memory at once
Labels = Literal["observed", "predicted", "sampled"]  # not "true", which YAML and Hydra read as a bool


def penalty(params: Params, anchor: Params, importance: Params) -> Array:
    """½ Σ_i F_i (θ_i - θ*_i)²."""
    terms = jax.tree.map(lambda p, a, f: (f * (p - a) ** 2).sum(), params, anchor, importance)
    return 0.5 * jnp.sum(jnp.stack(jax.tree.leaves(terms)))


def refuse(strategy: str, labels: str) -> None:
    """Refuses labels that there are not."""
    if labels not in get_args(Labels):
        raise UserError(f"strategies.{strategy}: labels={labels!r}: expected {', '.join(get_args(Labels))}")


def mean_over_examples(
    value: Callable[[Params, Batch, Array], Array],
    transform: Callable[[Array], Array],
    learner: Learner,
    data: Data,
    key: Array,
    samples: int,
    together: int = 1,
) -> Params:
    """(1/n) Σ_x transform(∂ value(θ, x) / ∂θ_i), elementwise: the mean over single examples' gradients.

    The n = `samples` examples are drawn uniformly with replacement from the increment's training rows. `value` gets the
    parameters, the row [1, ...] with its candidates, and the number of the draw [] int32. With `together` b > 1, x is a
    batch of b examples, `value` gets [b, ...] and n = `samples` / b, rounded up.
    """
    draws = -(-samples // together)
    index = jax.random.randint(key, (-(-draws // CHUNK), CHUNK, together), 0, jnp.maximum(data.size, 1))
    number = jnp.arange(index[..., 0].size).reshape(index.shape[:2])

    def of_example(params: Params, i: Array, n: Array) -> Array:
        rows = jax.tree.map(lambda leaf: leaf[i], stored(data.rows))
        return value(params, rows._replace(candidates=learner.catalogue.seen), n)

    def add(total: Params, chunk: tuple[Array, Array]) -> tuple[Params, None]:
        i, n = chunk
        grads = jax.vmap(jax.grad(of_example), (None, 0, 0))(learner.params, i, n)
        counted = (n < draws).astype(jnp.float32)
        sums = jax.tree.map(lambda g: jnp.einsum("n,n...->...", counted, transform(g)), grads)
        return jax.tree.map(jnp.add, total, sums), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, learner.params), (index, number))
    return jax.tree.map(lambda leaf: leaf / draws, total)


def fisher(
    problem: Problem, learner: Learner, data: Data, key: Array, samples: int, labels: Labels = "observed"
) -> Params:
    """The diagonal Fisher information: F_i = (1/n) Σ_x (∂ℓ(x, y) / ∂θ_i)², n = `samples` (`mean_over_examples`).

    ℓ is the head's exact loss over all candidates, without dropout. y by `labels`: "observed" is the example's own true
    label (the empirical Fisher); "predicted" the candidate with the highest score; "sampled" one draw from the softmax
    of the scores, whose mean over draws is the Fisher proper where ℓ is the full softmax's (Kunstner et al. 2019, arXiv
    1905.12558; van de Ven 2025, arXiv 2502.11756, compares them).
    """
    draws = named_key(key, "labels")

    def loss(params: Params, row: Batch, number: Array) -> Array:
        outputs = problem.apply(params, row.inputs)
        if labels != "observed":
            scores = jnp.where(learner.catalogue.seen, outputs.scores, -jnp.inf)
            chosen = (
                scores.argmax(1)
                if labels == "predicted"
                else jax.random.categorical(jax.random.fold_in(draws, number), scores)
            )
            row = row._replace(labels=chosen.astype(jnp.int32))
        return problem.loss(params, outputs, row)[0]

    return mean_over_examples(loss, jnp.square, learner, data, named_key(key, "fisher"), samples)
