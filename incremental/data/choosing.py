"""Choosing events: a random share of each increment, and those whose ids are among others."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def share_of_each(increment: Ints, share: float, seed: int, name: int) -> Bools:
    """[N] bool: a random `share` of each increment's events, drawn from (seed, name, increment)."""
    chosen = np.zeros(len(increment), bool)
    for t in range(int(increment[-1]) + 1):
        first, last = np.searchsorted(increment, [t, t + 1])
        size = round((last - first) * share)
        draws = np.random.default_rng([seed, name, t]).choice(last - first, size, replace=False)
        chosen[first + draws] = True
    return chosen


def belongs(members: Bools, ids: Ints) -> Bools:
    """[N] bool: `members[ids]`, False for ids beyond the table."""
    return members[np.minimum(ids, len(members) - 1)] & (ids < len(members))
