"""What was before an event and after it, and what is left of increments whose events a stream has let go."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]


class Summary(NamedTuple):
    """What the increments before `until` came to. Of their events a stream may have only each user's last ones.

    Attributes:
        until: an increment; 0: all events are there
        trained: [labels] int64, their training events
        met: [W] bool, the users who have one
        numbers: the ids of each kind that occurred, padding included
        fields: [labels] int32 by further kind, the id at each label's first event that has one; 0: none has
        gone: [W] int32, the events of each user that were let go, without held-out ones
    """

    until: int
    trained: npt.NDArray[np.int64]
    met: npt.NDArray[np.bool_]
    numbers: Mapping[str, int]
    fields: Mapping[str, Ints]
    gone: Ints

    def gone_of(self, users: Ints) -> Ints:
        """[N] int32: `gone` of these users, of whom some may be later ones."""
        return np.where(users < len(self.gone), self.gone[np.minimum(users, len(self.gone) - 1)], 0)


NOTHING = Summary(0, np.zeros(1, np.int64), np.zeros(1, bool), {}, {}, np.zeros(1, np.int32))


def plus(old: npt.NDArray[np.int64], numbers: Ints) -> npt.NDArray[np.int64]:
    """[ids] int64: how often each number occurs, and the old counts of the first ones."""
    found = np.bincount(numbers, minlength=len(old))
    found[: len(old)] += old
    return found


def firsts(ids: Ints, labels: Ints, old: Ints, number: int) -> Ints:
    """[number] int32: the id at each label's first event [E] that has one, after the `old` ones; 0: none has."""
    found, there = np.zeros(number, np.int32), np.flatnonzero(ids)[::-1]
    found[labels[there]] = ids[there]  # of several the last one that is written stays, which is the first event's
    found[: len(old)] = np.where(old > 0, old, found[: len(old)])
    return found


def windows(log: Ints, start: Ints, end: Ints, length: int, gone: Ints | None = None) -> Ints:
    """[N, L] int32: the last L of each `log[start:end]`, the last one last; -1 where there are fewer.

    With `gone` [N], how many were before `start`: of k > L in all those from the s-th on, s = ⌈(k - L) / S⌉ S with
    S = L - ⌊L/4⌋: the last L/4 to L of them, and the same s for the next S - 1 events.
    """
    index = end[:, None] - length + np.arange(length)
    if gone is not None:
        turn = length - length // 4
        start = start - np.minimum(length - (end - start + gone), 0) // turn * turn - gone
    inside = index >= start[:, None]
    return np.where(inside, log[np.where(inside, index, 0)] if len(log) else -1, -1).astype(np.int32)


def after(events: Ints, end: Ints, user: Ints, length: int) -> Ints:
    """[N, L] int32: the next L of these `events` [N] of the same `user` [N] that have the event in their past, the next
    one first; -1 where there are fewer. `end` [N] orders them by user and time: where each one's past ends."""
    order = np.argsort(end, kind="stable")
    first = np.searchsorted(end[order], end, side="right")
    behind = np.searchsorted(user[order], user, side="right")
    index = first[:, None] + np.arange(length)
    inside = index < behind[:, None]
    return np.where(inside, events[order][np.where(inside, index, 0)], -1).astype(np.int32)
