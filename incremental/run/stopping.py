"""The best epoch of an update, kept beside the state where training may stop early, and there only.

A copy costs what the tables hold. So the state itself stands for the best epoch while it is that (`Fit.better`), and is
copied only before another epoch changes it: never where an update has one epoch, nor where nothing is validated.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from incremental.core.types import Learner, PyTree, State


class Best(NamedTuple):
    """The learner **and** the strategies' states after the best epoch so far."""

    learner: Learner
    strategy: PyTree


def started(state: State) -> Best:
    """The state's, in buffers of its own, for those of a state are donated."""
    return jax.tree.map(jnp.copy, Best(state.learner, state.strategy))


def better(best: Best, state: State) -> Best:
    """The state's, if its epoch is the best so far, in the buffers of the best one before."""
    return jax.tree.map(
        lambda old, new: jnp.where(state.fit.better, new, old), best, Best(state.learner, state.strategy)
    )


def restored(state: State, best: Best) -> State:
    """The state as its best epoch left it."""
    return state._replace(learner=best.learner, strategy=best.strategy)
