"""A live log as a feed: its stream grows, as `data=log` makes it, and its increments end as they are cut."""

import time
from collections.abc import Callable

import numpy as np

from incremental.data.choosing import Sample
from incremental.data.growing import released
from incremental.data.stream import Stream
from incremental.log.records import Cut
from incremental.run.feed import Feed
from incremental.serve.live.cuts import Cuts
from incremental.serve.live.drift import Detector
from incremental.serve.live.making import Made, Making
from incremental.serve.live.tail import Tail

WAIT = 0.1  # seconds between two looks at what is due
MANY = 30_000  # events that become increments at once, where a learner starts

Score = Callable[[Stream, int, int], np.ndarray]
"""(stream, increment, increment that the model is trained until) -> a number for each event that is tested"""


class Watch:
    """A detector on the champion's scores of the events since the last cut, chunk by chunk, before any training.

    A chunk is so many events from the last cut on. So all of it follows from the log and the model, and is the same
    after a kill: nothing of it is kept.
    """

    def __init__(self, rule: Cuts, making: Making, score: Score) -> None:
        self.rule, self.making, self.score = rule, making, score
        self.number, self.done, self.alarm = -1, 0, False
        self.detector: Detector | None = None

    def look(self, tail: Tail, made: Made) -> bool:
        """Whether there was an alarm since the last cut, up to which the stream was made; the tail has what comes
        behind."""
        if self.rule.drift is None:
            return False
        number, size = len(tail.cuts), self.rule.chunk
        if number != self.number:
            self.number, self.done, self.alarm, self.detector = number, 0, False, self.rule.drift()
        ends = range(self.done + size, len(tail.events) + 1, size)
        if self.alarm or not ends:
            return self.alarm
        # Each chunk as an increment of its own, behind what is sealed: its events have those before as their past.
        all_ends = range(size, ends[-1] + 1, size)
        borders = [Cut(number + i, tail.events.offsets[end - 1], "end", 0.0) for i, end in enumerate(all_ends)]
        grown = self.making.after(made, tail.events, borders)
        first = len(made.ends)
        there = {each.cut: t for t, each in enumerate(grown.ends) if t >= first}
        for end in ends:
            if (t := there.get(number + end // size - 1)) is not None:  # else it has no event of a type that is wanted
                assert self.detector is not None
                assert grown.stream is not None
                for value in self.score(grown.stream, t, first - 1):
                    self.alarm |= self.detector.update(float(value))
            self.done = end
            if self.alarm:
                break
        return self.alarm


class Cutter:
    """Follows a log, and ends increments where it `writes`; the stream of what is sealed grows with the cuts.

    `enough` says whether the last increment of a stream can be trained on: else it becomes longer. `told` is called
    now and then while nothing happens; once `stopped` says so, nothing more is waited for. `needed` says of an
    increment that is there from which one on events are still read: what is older is let go, but for histories.
    """

    def __init__(
        self,
        tail: Tail,
        rule: Cuts,
        making: Making,
        enough: Callable[[Stream], bool],
        *,
        writes: bool,
        stopped: Callable[[], bool] = lambda: False,
        told: Callable[[], None] = lambda: None,
        needed: Callable[[int], int] = lambda _t: 0,
    ) -> None:
        self.tail, self.rule, self.making, self.enough = tail, rule, making, enough
        self.writes, self.stopped, self.told, self.needed = writes, stopped, told, needed
        self.watch: Watch | None = None
        self.made = Made()
        self.grown = 0  # cuts that were looked at
        self.few = 0  # waiting events that were not enough for an increment
        self.since = time.monotonic()  # when the last of them was taken

    @property
    def stream(self) -> Stream | None:
        """None: there is none of the sealed events."""
        return self.made.stream

    @property
    def number(self) -> int:
        """The increments of the stream."""
        return len(self.made.ends)

    def until(self, t: int) -> bool:
        """Returns once increment t is complete, and the stream has it; False: stopped before."""
        while not self.stopped():
            if t < self.number:
                return True
            wait = WAIT
            while self.grown == len(self.tail.cuts) and self.tail.more(wait):
                wait = 0.0
            if self.grown == len(self.tail.cuts) and self.writes:
                self.cut()
            self.follow(1)
            self.told()
        return False

    def catch_up(self, number: int) -> None:
        """Reads what there is in the log, until the stream has so many increments."""
        while self.number < number and not self.stopped():
            most, tail = number - self.number, self.tail
            while (
                (cuts := len(tail.cuts) - self.grown) < most and (not cuts or len(tail.events) < MANY) and tail.more()
            ):
                pass
            if not self.follow(most):
                return

    def follow(self, most: int) -> bool:
        """The stream takes the next cuts of the log, at most so many; whether there were any."""
        last = min(self.grown + most, len(self.tail.cuts))
        if last == self.grown:
            return False
        self.grow(self.making.after(self.made, self.tail.events, self.tail.cuts[self.made.cuts : last]), last)
        return True

    def cut(self) -> None:
        """Ends the increment, if it is due: the cut is in the log before anything is trained on it."""
        tail, number, waiting = self.tail, len(self.tail.cuts), len(self.tail.events) - self.tail.sealed
        # The clock may have been set back since the cut, and the one that never is starts with the process.
        seconds = max(time.time() - tail.cuts[-1].time if tail.cuts else 0.0, time.monotonic() - self.since)
        behind = waiting >= (self.rule.count or self.rule.most)
        alarm = not behind and self.watch is not None and self.watch.look(tail, self.made)
        due = self.rule.due(number, waiting, seconds, alarm=alarm)
        if due is None or waiting < self.few:
            return
        size, reason = (waiting, due[1]) if self.few else due
        cut = Cut(number, tail.events.offsets[tail.sealed + size - 1], reason, time.time())
        made = self.making.after(self.made, tail.events, [*tail.cuts[self.made.cuts :], cut])
        if made.stream is None or made.ends[-1].cut < number or not self.enough(made.stream):
            self.few = waiting + max(waiting // 8, 1)
            return
        tail.log.append([cut])
        while len(tail.cuts) == number:
            tail.read(WAIT)
        if tail.cuts == [*tail.cuts[:number], cut]:  # else another process was first, and its cut holds
            self.grow(made, number + 1)

    def grow(self, made: Made, cuts: int) -> None:
        """What was made of so many cuts; events that it has are let go."""
        self.tail.events.drop(made.events - self.made.events)
        self.made, self.grown, self.few, self.since = made, cuts, 0, time.monotonic()
        if made.stream is not None:
            last = len(made.stream) - 1
            self.made = made._replace(stream=released(made.stream, min(self.needed(last), last)))


class LogFeed(Feed):
    """The feed of a cutter, which has the base part. `begins` is told of an increment that is trained next, and the cut
    that it ends with."""

    endless = True

    def __init__(
        self,
        cutter: Cutter,
        begins: Callable[[int, Cut], None],
        *,
        listed: bool = False,
        sample: Sample | None = None,
    ) -> None:
        assert cutter.stream is not None
        super().__init__(cutter.stream, listed=listed, sample=sample)
        self.cutter, self.begins = cutter, begins

    def wait(self, t: int) -> bool:
        """See `Feed`."""
        there = self.cutter.until(t)
        self.stream = self.cutter.stream or self.stream
        if there:
            self.begins(t, self.cut(t))
        return there

    def ahead(self, t: int) -> int:
        """Of what is to come, the last increment tells what arrays it will bring."""
        return min(t, len(self.stream) - 1)

    def cut(self, t: int) -> Cut:
        """What increment t ends with."""
        return self.cutter.tail.cuts[self.cutter.made.ends[t].cut]
