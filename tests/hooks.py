"""Three small strategies, each with one rarer hook: a key in `grads`, `scores`, `fit`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Params, Problem, Step


def noise(problem: Problem, *, scale: float = 0.01) -> Strategy:
    """g <- g + `scale` N(0, 1) where g is not 0; reports the norm of the last step's g. State: that norm.

    Noise on table rows of ids to come would move them: tables that grow would differ from tables with room for all.
    """
    del problem

    def grads(state: Any, grads: Params, params: Params, grad_fn: Any, batch: Batch, key: Any) -> Params:
        del state, params, grad_fn, batch
        return jax.tree.map(
            lambda g, n: g + jnp.where(g != 0, scale * n, 0.0), grads, optax.tree.random_like(key, grads)
        )

    def record(state: Any, step: Step, key: Any) -> Any:
        del state, key
        return optax.tree.norm(step.grads)

    return Strategy(lambda _learner: jnp.float32(0.0), grads=grads, record=record, report=lambda norm: {"norm": norm})


def error_memory(problem: Problem, *, weight: float = 3.0) -> Strategy:
    """An item's score <- s + `weight` e: e is how much oftener it occurred in the last update than the model said.

    e = mean of 1[label = i] - mean of p(i) over the update's examples, p the softmax over the items seen. State: e [V].
    """

    def end(state: Any, learner: Learner, data: Data, key: Any) -> tuple[Any, Learner]:
        del state, key
        rows = data.rows
        scores = jnp.where(learner.catalogue.seen, problem.apply(learner.params, rows.inputs).scores, -jnp.inf)
        real = jnp.where(rows.valid, 1.0, 0.0)[:, None] / jnp.maximum(rows.valid.sum(), 1)
        counts = jax.nn.one_hot(rows.labels, scores.shape[1])
        return ((counts - jax.nn.softmax(scores)) * real).sum(0), learner

    def scores(error: Any, scores: Any, inputs: dict[str, Any], training: bool) -> Any:
        del inputs
        return scores if training else scores + weight * error

    return Strategy(lambda learner: jnp.zeros(learner.catalogue.seen.shape), end=end, scores=scores)


def reptile(problem: Problem, *, rate: float = 0.5, epochs: int = 2) -> Strategy:
    """At an increment's end θ <- θ + `rate` (θ' - θ), θ' after `epochs` epochs of plain training from θ
    (Nichol et al. 2018, arXiv 1803.02999, one task)."""
    del problem

    def end(state: Any, learner: Learner, data: Data, key: Any, fit: Any) -> tuple[Any, Learner]:
        further = fit(learner.params, data, key, epochs=epochs)
        params = jax.tree.map(lambda old, new: old + rate * (new - old), learner.params, further)
        return state, learner._replace(params=params)

    return Strategy(end=end)
