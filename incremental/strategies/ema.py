"""EMA: what is tested is the running mean of the weights (Polyak & Juditsky 1992, exponentially weighted)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.ids import Ids, nobody, rows_of, since, trained
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Data, Learner, Params, Problem, Step
from incremental.domains import Share, checked


class Average(NamedTuple):
    """The mean of the weights so far, and what is in it."""

    mean: Anchor
    total: Array  # [] float32, Σ_k decay^(n-k) over the steps k <= n
    known: Ids  # whose rows are in the mean


@checked
def ema(problem: Problem, *, decay: Share = 0.9) -> Strategy:
    """After step n, across increments: θ̄ = Σ_k decay^(n-k) θ_k / Σ_k decay^(n-k) over the weights after steps k <= n.

    That is the moving average with its bias corrected (Kingma & Ba 2015, arXiv 1412.6980, section 3): the first step's
    weights replace the random start. It runs as θ̄ <- θ̄ + (θ_n - θ̄) / s_n with s_n = decay s_(n-1) + 1. The rows of
    new ids enter it at an increment's start as they are then; put it after strategies that rewrite them. Only
    evaluation sees θ̄, and early stopping with it; training goes on from θ. Its `view` replaces those of the strategies
    before it. decay = 0 is off, 1 the mean of all steps. State: 1 float a parameter, 1 bool an id.
    """

    def init(learner: Learner) -> Average:
        return Average(Anchor(learner.params), jnp.float32(0.0), nobody(learner))

    def begin(state: Average, learner: Learner, data: Data, key: Array) -> tuple[Average, Learner]:
        del data, key
        known = trained(learner)
        rows = rows_of(problem, learner.params, since(known, state.known), others=False)
        mean = jax.tree.map(jnp.where, rows, learner.params, state.mean.params)
        return Average(Anchor(mean), state.total, known), learner

    def view(state: Average, params: Params, increment: Array, training: bool) -> Params:
        del increment
        return params if training else state.mean.params

    def record(state: Average, step: Step, key: Array) -> Average:
        del key
        total = decay * state.total + 1.0
        after = optax.apply_updates(step.params, step.updates)
        mean = jax.tree.map(lambda mean, now: mean + (now - mean) / total, state.mean.params, after)
        return state._replace(mean=Anchor(mean), total=total)

    return Strategy(init=init, begin=begin, view=view, record=record)
