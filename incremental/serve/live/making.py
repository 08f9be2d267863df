"""A live log as a stream, cut by cut: a run on the log makes the same of all of it, by the same node `data`."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from incremental.app import config as schema
from incremental.data import ids
from incremental.data.growing import Numbers, joined
from incremental.data.interactions import Interactions
from incremental.data.sources import log as source
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.records import Cut

LOG = "incremental.data.sources.log.log"
CUT = {"_target_": "incremental.data.cutting.given_periods", "base": 1}
NEXT = "incremental.data.task.next_item"
CLEANING = "incremental.data.cleaning.cleaning"
ALL = {"after": None, "before": None, "missing": "keep", "duplicates": "keep"}
"""of `data.cleaning` in a live loop: each event of a wanted type is one of the stream, as its server counts ids"""


class End(NamedTuple):
    """What an increment of the stream ends with.

    Attributes:
        cut: its number
        events: of the log, of all types, up to there, and behind it up to the last cut that ends no increment
        time: of the last of these
    """

    cut: int
    events: int
    time: float


class Made(NamedTuple):
    """What was made of a log's first events; once there is a stream, they are not needed again.

    Attributes:
        stream: None: there is none of the events so far
        ends: of its increments
        cuts: after which its events end
        events: of the log up to there
        clock: the largest time of these, in microseconds
    """

    stream: Stream | None = None
    ends: tuple[End, ...] = ()
    cuts: int = 0
    events: int = 0
    clock: int = 0


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
        if (targets := data.get("targets") or "all") != "all" or data.get("roles") is not None:
            key = "data.roles" if targets == "all" else f"data.targets={targets}"
            raise UserError(
                f"{key}: a live loop tests each event when it comes, and does not know which of a user's are to come; "
                "leave it out. A run on the log may have it"
            )
        task = (data.get("task") or {}).get("_target_", NEXT)
        if task != NEXT:
            raise UserError(
                f"data.task: {task} asks what users did with an item, and a live loop recommends items; leave it out"
            )
        cleaning = data.get("cleaning") or ALL
        if (target := cleaning.get("_target_", CLEANING)) != CLEANING:
            raise UserError(
                f"data.cleaning: {target} may read more than one increment, and a live loop has no more; give "
                f"{CLEANING}, as data=log has it"
            )
        for key, wanted in ALL.items():
            if (given := cleaning.get(key, "refuse" if key == "missing" else wanted)) != wanted:
                raise UserError(
                    f"data.cleaning.{key}={given}: the server of a live loop counts the ids of these events too; leave "
                    "it as data=log has it"
                )
        self.only = types_of(data)
        self.kinds = reads.get("kinds") or {}
        self.node = {key: value for key, value in data.items() if key not in ("source", "cut")}
        self.numbers: Numbers = {}

    def after(self, made: Made, events: Events, cuts: Sequence[Cut]) -> Made:
        """What the next events make up to the last of these cuts, which are the next ones, behind what was made."""
        n = events.until(cuts[-1].until)
        kept = np.isin(events.types.first(n), [*self.wanted(events)])
        if made.stream is None and not self.can(events, kept):
            return made
        clock = max(made.clock, int(source.micros(events, n).max(initial=0)))
        stream, ends = made.stream, made.ends
        if kept.any():
            stream, periods = self.grown(made, events, cuts)
            untils = [(cuts[period], events.until(cuts[period].until)) for period in periods]
            ends += tuple(End(cut.number, made.events + until, events.times[until - 1]) for cut, until in untils)
        if n:
            ends = (*ends[:-1], ends[-1]._replace(events=made.events + n, time=events.times[n - 1]))
        return Made(stream, ends, made.cuts + len(cuts), made.events + n, clock)

    def grown(self, made: Made, events: Events, cuts: Sequence[Cut]) -> tuple[Stream, list[int]]:
        """The stream with these events, and the places of the cuts that its new increments end with."""
        table = source.table(events, cuts, origin=self.place, kinds=self.kinds, clock=made.clock)
        table = table._replace(notes=(), part=made.stream is not None)
        first = 0 if made.stream is None else len(made.stream)
        part: Stream = schema.build(self.node, "data", source=table, cut=partial(increments, first))
        if ahead := [step.name for step in part.cleaning if step.uses_future]:
            raise UserError(
                f"data.cleaning: '{ahead[0]}' reads later events, which a live log has not yet; turn it off"
            )
        assert part.interactions.period is not None
        periods = np.unique(part.interactions.period).tolist()
        return part if made.stream is None else joined(made.stream, part, self.numbers), periods

    def wanted(self, events: Events) -> set[int]:
        """The numbers of the types that are wanted; 0 where no event has one of them."""
        return {events.types.number.get(name, 0) for name in self.only or events.types.number}

    def can(self, events: Events, kept: np.ndarray) -> bool:
        """Whether there is a stream of the first events, of which so many [n] are `kept`: it takes two items, and each
        type that is wanted."""
        items, types = (words.first(len(kept))[kept] for words in (events.items, events.types))
        return len(np.unique(items)) > 1 and (self.only is None or self.wanted(events) == set(types.tolist()))


def types_of(data: Mapping[str, Any]) -> set[str] | None:
    """The types of events that a node `data` wants, as the log has them; None: all."""
    only = (data.get("cleaning") or {}).get("behaviours")
    return {ids.normal(str(name)) for name in only} if only else None


def increments(first: int, log: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
    """What `given_periods` makes, of a base part alone too; counted from `first` on."""
    assert log.period is not None
    return (first + (np.diff(log.period, prepend=log.period[:1]) > 0).cumsum()).astype(np.int32), ()
