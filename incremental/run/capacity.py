"""Sizes in steps of one eighth, so that growing data and tables meet few compiled shapes."""

import jax
import jax.numpy as jnp

from incremental.core.program import Program
from incremental.core.types import PyTree, State


def capacity(n: int, least: int = 8) -> int:
    """The smallest of (8 + k) 2^m, k in 0..7, that is at least n and `least`: at most an eighth is unused.

    >>> [capacity(n) for n in (1, 8, 9, 17, 1000, 18_570)]
    [8, 8, 9, 18, 1024, 20480]
    """
    n = max(n, least)
    step = 1
    while 16 * step <= n:
        step *= 2
    return -(-n // step) * step


def grow(state: State, program: Program) -> State:
    """The state at the capacities of `program`: made anew with the run's own key, each old leaf copied into the
    leading corner. Right for moments, Fishers, anchors and memories without knowing where they are."""

    def widened(state: State) -> State:
        return jax.tree.map(into_corner, program.init(state.key), state)

    return jax.jit(widened)(state)


def into_corner(new: PyTree, old: PyTree) -> PyTree:
    """`old` copied over the leading corner of `new`."""
    if jnp.shape(new) == old.shape:  # `new` may be a Python number, where a strategy's `init` made one
        return old
    return new.at[tuple(slice(n) for n in old.shape)].set(old)
