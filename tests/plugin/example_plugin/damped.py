"""Smaller steps in each later increment."""

from typing import Any

import jax
import jax.numpy as jnp

from incremental.core.strategy import Strategy
from incremental.core.types import Problem


def damped(problem: Problem, *, factor: float = 0.5) -> Strategy:
    """Updates of increment t are multiplied by factor^t. State: one float."""
    del problem

    def begin(state: Any, learner: Any, data: Any, key: Any) -> Any:
        del state, key
        return {"scale": jnp.float32(factor) ** data.increment}, learner

    def updates(state: Any, updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda leaf: state["scale"] * leaf, updates)

    return Strategy(init=lambda _learner: {"scale": jnp.float32(1.0)}, begin=begin, updates=updates)
