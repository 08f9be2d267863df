"""Choosing events: a random share of each increment, a sample of a test, those whose ids are among others."""

from collections.abc import Collection
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from incremental.data.interactions import Interactions

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def as_written(share: float) -> Fraction:
    """The share without what is lost in a float: 0.29 of 100 events are 29, where 0.29 * 100 is a little less.

    Its nine first digits count.
    """
    return Fraction(share).limit_denominator(10**9)


def first_of_each(increment: npt.NDArray[np.int32], share: float) -> npt.NDArray[np.bool_]:
    """[N] bool: the first ⌊share · n⌋ of the n events of each increment; `increment` [N] does not decrease."""
    _, first, number, n = np.unique(increment, return_index=True, return_inverse=True, return_counts=True)
    part = as_written(share)
    size = part.numerator * n // part.denominator
    found: npt.NDArray[np.bool_] = np.arange(len(increment)) - first[number] < size[number]
    return found


def share_of_each(increment: Ints, share: float, seed: int, name: int) -> Bools:
    """[N] bool: a random `share` of each increment's events, drawn from (seed, name, increment)."""
    chosen = np.zeros(len(increment), bool)
    for t in np.unique(increment).tolist():
        first, last = np.searchsorted(increment, [t, t + 1])
        size = round((last - first) * share)
        draws = np.random.default_rng([seed, name, t]).choice(last - first, size, replace=False)
        chosen[first + draws] = True
    return chosen


def with_two(user: Ints, inside: Bools) -> Bools:
    """[E] bool: the events `inside` whose user has two of them or more."""
    return inside & (np.bincount(user[inside], minlength=int(user.max()) + 1)[user] >= 2)


def last_of(user: Ints, inside: Bools) -> Bools:
    """[E] bool: each user's last event `inside`."""
    places = np.flatnonzero(inside)[::-1]
    found = np.zeros(len(user), bool)
    found[places[np.unique(user[places], return_index=True)[1]]] = True
    return found


class Sample(NamedTuple):
    """At most so many events of each test.

    Attributes:
        events
        seed: of the draws
    """

    events: int
    seed: int = 0

    def of(self, tests: Ints, t: int, first: int, last: int) -> Ints:
        """Of the tests [N], events `first` to `last` of increment t, those that are drawn, in their order.

        Each event of the increment draws a number, and the lowest are tested: of whatever tests a protocol leaves over
        it is a random sample, and what two of them have in common is tested in both.
        """
        draws = np.random.default_rng([self.seed, 3, t]).random(last - first)
        chosen = np.argsort(draws[tests - first], kind="stable")[: self.events]
        found: Ints = tests[np.sort(chosen)]
        return found


def occurring(log: Interactions, kinds: Collection[str], events: Ints) -> dict[str, Bools]:
    """[ids] bool: those of these kinds that the events have; what is no kind of ids is left out."""
    return {kind: np.bincount(log.ids(kind)[events], minlength=1) > 0 for kind in log.kinds if kind in kinds}


def belongs(members: Bools, ids: Ints) -> Bools:
    """[N] bool: `members[ids]`, False for ids beyond the table."""
    return members[np.minimum(ids, len(members) - 1)] & (ids < len(members))
