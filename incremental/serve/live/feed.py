"""A live log as a feed: its stream grows, as `data=log` makes it, and its increments end as they are cut."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from incremental.app import config as schema
from incremental.data import ids
from incremental.data.choosing import Sample
from incremental.data.interactions import Interactions
from incremental.data.sources import log as source
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.records import Cut
from incremental.run.feed import Feed
from incremental.serve.live.cuts import Cuts
from incremental.serve.live.drift import Detector
from incremental.serve.live.tail import Tail

LOG = "incremental.data.sources.log.log"
CUT = {"_target_": "incremental.data.cutting.given_periods", "base": 1}
ALL = {"after": None, "before": None, "missing": "keep", "duplicates": "keep"}
"""of `data.cleaning` in a live loop: each event of a wanted type is one of the stream, as its server counts ids"""
WAIT = 0.1  # seconds between two looks at what is due


class Making:
    """Makes the stream of a log's sealed events, as a run on the log does: by the same node `data`."""

    def __init__(self, data: Mapping[str, Any], place: str) -> None:
        """A UserError where a run on the whole log would not have the same increments or would read later ones."""
        self.place = place
        reads = data.get("source") or {}
        if reads.get("_target_") != LOG:
            raise UserError(f"data.source: {reads.get('_target_')} reads no log; give data=log")
        if (cut := data.get("cut")) != CUT:
            raise UserError(
                f"data.cut={cut}: the increments of a live log are its records; leave it as data=log has it"
            )
        if data.get("until") is not None:
            raise UserError(f"data.until={data['until']}: a live log has no last increment; leave it out")
        cleaning = data.get("cleaning") or ALL
        for key, wanted in ALL.items():
            if (given := cleaning.get(key, "refuse" if key == "missing" else wanted)) != wanted:
                raise UserError(
                    f"data.cleaning.{key}={given}: the server of a live loop counts the ids of these events too; leave "
                    "it as data=log has it"
                )
        only = cleaning.get("behaviours")
        self.only = {ids.normal(str(name)) for name in only} if only else None
        self.kinds = reads.get("kinds") or {}
        self.node = {key: value for key, value in data.items() if key not in ("source", "cut")}

    def can(self, events: Events, n: int) -> bool:
        """Whether there is a stream of the first n events: it takes two items, and each type that is wanted."""
        items, types = events.items.first(n), events.types.first(n)
        wanted = [events.types.number.get(name, 0) for name in self.only or events.types.number]
        kept = np.isin(types, wanted)
        return len(np.unique(items[kept])) > 1 and (self.only is None or set(wanted) == set(types[kept].tolist()))

    def stream(self, events: Events, cuts: Sequence[Cut]) -> Stream:
        """The stream of the events up to the last cut."""
        table = source.table(events, cuts, origin=self.place, kinds=self.kinds)._replace(notes=())
        made: Stream = schema.build(self.node, "data", source=table, cut=periods)
        if ahead := [step.name for step in made.cleaning if step.uses_future]:
            raise UserError(
                f"data.cleaning: '{ahead[0]}' reads later events, which a live log has not yet; turn it off"
            )
        return made


def periods(log: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
    """What `given_periods` makes, of a base part alone too."""
    assert log.period is not None
    return (np.diff(log.period, prepend=log.period[:1]) > 0).cumsum().astype(np.int32), ()


def parts(stream: Stream) -> np.ndarray:
    """The number of the cut that each of the stream's increments ends with: one without events is none."""
    assert stream.interactions.period is not None
    return np.unique(stream.interactions.period)


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

    def look(self, tail: Tail) -> bool:
        """Whether there was an alarm since the last cut."""
        if self.rule.drift is None:
            return False
        number, size = len(tail.cuts), self.rule.chunk
        if number != self.number:
            self.number, self.done, self.alarm, self.detector = number, 0, False, self.rule.drift()
        ends = range(self.done + size, len(tail.events) - tail.sealed + 1, size)
        if self.alarm or not ends:
            return self.alarm
        # Each chunk as an increment of its own, behind what is sealed: its events have those before as their past.
        all_ends = range(size, ends[-1] + 1, size)
        offsets = [tail.events.offsets[tail.sealed + end - 1] for end in all_ends]
        borders = [Cut(number + i, offset, "end", 0.0) for i, offset in enumerate(offsets)]
        stream = self.making.stream(tail.events, [*tail.cuts, *borders])
        there = parts(stream)
        for end in ends:
            period = number + end // size - 1
            t = int(np.searchsorted(there, period))
            if t < len(there) and there[t] == period:  # else the chunk has no event of a type that is wanted
                assert self.detector is not None
                for value in self.score(stream, t, int(np.searchsorted(there, number)) - 1):
                    self.alarm |= self.detector.update(float(value))
            self.done = end
            if self.alarm:
                break
        return self.alarm


class Cutter:
    """Follows a log, and ends increments where it `writes`; the stream of what is sealed grows with the cuts.

    `enough` says whether the last increment of a stream can be trained on: else it becomes longer. `told` is called
    now and then while nothing happens; once `stopped` says so, nothing more is waited for.
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
    ) -> None:
        self.tail, self.rule, self.making, self.enough = tail, rule, making, enough
        self.writes, self.stopped, self.told = writes, stopped, told
        self.watch: Watch | None = None
        self.stream: Stream | None = None
        self.grown = 0  # cuts that the stream has
        self.few = 0  # waiting events that were not enough for an increment
        self.since = time.time()

    def until(self, t: int) -> bool:
        """Returns once increment t is complete, and the stream has it; False: stopped before."""
        while not self.stopped():
            if self.stream is not None and t < len(self.stream):
                return True
            self.tail.read(WAIT)
            if len(self.tail.cuts) == self.grown and self.writes:
                self.cut()
            if len(self.tail.cuts) > self.grown:
                there = self.stream is not None or self.making.can(self.tail.events, self.tail.sealed)
                made = self.making.stream(self.tail.events, self.tail.cuts) if there else None
                self.grow(made, len(self.tail.cuts))
            self.told()
        return False

    def cut(self) -> None:
        """Ends the increment, if it is due: the cut is in the log before anything is trained on it."""
        tail, number, waiting = self.tail, len(self.tail.cuts), len(self.tail.events) - self.tail.sealed
        since = tail.cuts[-1].time if tail.cuts else self.since
        behind = waiting >= (self.rule.count or self.rule.most)
        alarm = not behind and self.watch is not None and self.watch.look(tail)
        due = self.rule.due(number, waiting, time.time() - since, alarm=alarm)
        if due is None or waiting < self.few:
            return
        size, reason = (waiting, due[1]) if self.few else due
        cut = Cut(number, tail.events.offsets[tail.sealed + size - 1], reason, time.time())
        there = self.stream is not None or self.making.can(tail.events, tail.sealed + size)
        stream = self.making.stream(tail.events, [*tail.cuts, cut]) if there else None
        if stream is None or parts(stream)[-1] < number or not self.enough(stream):
            self.few = waiting + max(waiting // 8, 1)
            return
        tail.log.append([cut])
        while len(tail.cuts) == number:
            tail.read(WAIT)
        if tail.cuts == [*tail.cuts[:number], cut]:  # else another process was first, and its cut holds
            self.grow(stream, number + 1)

    def grow(self, stream: Stream | None, cuts: int) -> None:
        """The stream of so many cuts; None: there is none of their events yet."""
        self.stream, self.grown, self.few = stream, cuts, 0


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
        return self.cutter.tail.cuts[parts(self.stream)[t]]
