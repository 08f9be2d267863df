"""When an update happens, on which data it trains and from which weights: data, not mathematics, so outside `make`."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from incremental.domains import Count, ShareBelow1, Whole, checked
from incremental.errors import UserError


class Plan(NamedTuple):
    """One update; without increments there is none.

    Attributes:
        increments: that it trains on
        newest: of these, whose validation part says when to stop: those that no update has trained on yet
        arrived: whose events the catalogue has not counted yet
        afresh
    """

    increments: range
    newest: range
    arrived: range
    afresh: bool


NOTHING = Plan(range(0), range(0), range(0), False)


class Update(NamedTuple):
    """The last `window` increments (None: all, 0: none after the base part), from the last weights or afresh."""

    window: int | None
    afresh: bool
    every: int = 1
    full_every: int = 0
    drop: float | None = None
    budget: int | None = None
    last: int | None = None

    @property
    def forgets(self) -> bool:
        """Whether any update starts afresh."""
        return self.afresh or self.full_every > 0

    def plan(self, t: int, updated: Sequence[int], quality: Mapping[int, float], spent: int) -> Plan:
        """The update at increment t; t = 0, the base part, is ordinary training for all.

        `updated` are the increments that updates happened at, the base part first; `quality` the prequential metric
        of each increment up to t, tested before its update; `spent` the examples trained since the base part.
        """
        if t == 0:
            return Plan(range(1), range(1), range(1), False)
        last = max(updated, default=0)
        over = self.last is not None and t > self.last
        if over or self.window == 0 or t - last < self.every or self._well(t, last, quality) or self._dear(t, spent):
            return NOTHING
        missed = range(last + 1, t + 1)
        full = self.full_every > 0 and len(updated) % self.full_every == 0
        if full or self.window is None:
            afresh = full or self.afresh
            return Plan(range(t + 1), missed, range(t + 1) if afresh else missed, afresh)
        # Increments that were let pass are trained on too.
        increments = range(max(min(t + 1 - self.window, last + 1), 0), t + 1)
        return Plan(increments, missed, increments if self.afresh else missed, self.afresh)

    def oldest(self, t: int, last: int) -> int:
        """The first increment that an update at t or later may train on, where the last one was at `last`; 0 where
        one may start afresh, as a model then forgets ids that it knew."""
        if self.window is None or self.forgets:
            return 0
        return max(min(t + 1 - self.window, last + 1), 0)

    def ahead(self, t: int, updated: Sequence[int]) -> Plan:
        """The update at t, as far as it is certain before t is there: none where results decide."""
        return NOTHING if self.drop is not None or self.budget is not None else self.plan(t, updated, {}, 0)

    def plans(self, number: int) -> list[tuple[int, Plan]]:
        """The updates of a stream of so many parts, by part, those too that the results may leave out."""
        always, found = self._replace(drop=None, budget=None), list[tuple[int, Plan]]()
        for t in range(number):
            plan = always.plan(t, [at for at, _ in found], {}, 0)
            if plan.increments:
                found.append((t, plan))
        return found

    def _well(self, t: int, last: int, quality: Mapping[int, float]) -> bool:
        """No drift: the metric is at most a share of `drop` below the first test after the last update."""
        if self.drop is None:
            return False
        now, first = quality[t], quality[last + 1]
        # Where no test event counted nothing was measured, and nothing says that all is well.
        return not (math.isnan(now) or math.isnan(first)) and now >= (1.0 - self.drop) * first

    def _dear(self, t: int, spent: int) -> bool:
        """More was spent than `budget` examples for each increment so far."""
        return self.budget is not None and spent >= self.budget * t


@checked
def update(
    *,
    window: Whole | Literal["all"] = 1,
    start: Literal["continue", "afresh"] = "continue",
    every: Count = 1,
    full_every: Whole = 0,
    drop: ShareBelow1 | None = None,
    budget: Count | None = None,
    last: Whole | None = None,
) -> Update:
    """`window`: 0 = static, 1 = finetune, n = a sliding window of n increments, "all" = everything so far.

    `every` n: only each n-th increment, on all that arrived since. `full_every` n: each n-th update trains on
    everything so far, afresh (0: none does). `drop`: only when drift is detected, the first metric of the evaluation
    having fallen by more than this share since the first test after the last update.
    `budget`: only while fewer examples were trained since the base part than `budget` for each increment so far; an
    update that has begun is finished, so that the last one may exceed it. `last`: none after this increment; with T - 1
    the stream ends with its last test, and not with an update that nothing tests.

    >>> [list(update(window=window).plan(4, [0, 1, 2, 3], {}, 0).increments) for window in (0, 1, 3, "all")]
    [[], [4], [2, 3, 4], [0, 1, 2, 3, 4]]
    """
    if window == 0 and (start == "afresh" or full_every):
        key = "start=afresh" if start == "afresh" else f"full_every={full_every}"
        raise UserError(f"update.{key} with update.window=0: a model that is never updated cannot start afresh")
    return Update(None if window == "all" else int(window), start == "afresh", every, full_every, drop, budget, last)
