"""The best epoch of an update, kept beside the state where training may stop early, and there only."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from incremental.core.types import Learner, PyTree, State


class Best(NamedTuple):
    """The learner **and** the strategies' states after the best epoch so far."""

    learner: Learner
    strategy: PyTree


def started(state: State) -> Best:
    """Before the first epoch: the start, in buffers of its own, for those of a state are donated."""
    return jax.tree.map(jnp.copy, Best(state.learner, state.strategy))


def better(best: Best, state: State) -> Best:
    """After a validation: the state's, if its epoch is the best so far."""
    return jax.tree.map(
        lambda old, new: jnp.where(state.fit.better, new, old), best, Best(state.learner, state.strategy)
    )


def restored(state: State, best: Best) -> State:
    """The state as its best epoch left it."""
    return state._replace(learner=best.learner, strategy=best.strategy)
