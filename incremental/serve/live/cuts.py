"""When an increment ends."""

from dataclasses import dataclass
from typing import Literal

from incremental.domains import Count, Positive, checked
from incremental.errors import UserError
from incremental.serve.live.drift import Make

Reason = Literal["count", "seconds", "drift"]


@dataclass(frozen=True)
class Cuts:
    """When an increment ends: at the first of these.

    Attributes:
        base: events of the base part
        count: events since the last cut; None: only the others end an increment
        seconds: since the last cut
        most: events of an increment, where the learner is behind
        drift: makes a detector, which watches the champion's score of each event since the last cut
        chunk: events that are scored at once
    """

    base: int = 1000
    count: int | None = 500
    seconds: float | None = None
    most: int = 20_000
    drift: Make | None = None
    chunk: int = 64

    def due(self, number: int, waiting: int, seconds: float, *, alarm: bool) -> tuple[int, Reason] | None:
        """How many of the `waiting` events are increment `number`, which is over, and why; None: it is not.

        `seconds` are those since the last cut, `alarm` is the detector's. Who is behind takes all that waits, up to
        `most`: so a slow learner makes longer increments.
        """
        if number == 0:
            return (min(waiting, max(self.most, self.base)), "count") if waiting >= self.base else None
        if waiting and alarm:
            return min(waiting, self.most), "drift"
        if waiting >= (self.most if self.count is None else self.count):
            return min(waiting, self.most), "count"
        if waiting and self.seconds is not None and seconds >= self.seconds:
            return waiting, "seconds"
        return None


@checked
def cuts(
    *,
    base: Count = 1000,
    count: Count | None = 500,
    seconds: Positive | None = None,
    most: Count = 20_000,
    drift: Make | None = None,
    chunk: Count = 64,
) -> Cuts:
    """`Cuts`, checked."""
    if count is not None and count > most:
        raise UserError(f"live.cut.count={count}: expected at most live.cut.most={most}")
    return Cuts(base, count, seconds, most, drift, chunk)
