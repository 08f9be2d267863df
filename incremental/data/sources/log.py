"""A live log as a stream: what was served is an experiment.

The increments are those of the live run: a cut is a record of the log. Ids count by first appearance in it. The live
run makes its stream by the same function, so a replay has the same numbers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from incremental.data.interactions import Table
from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.engine import Log
from incremental.log.place import open_log
from incremental.log.records import Cut, Event, Title

BLOCK = 50_000  # records read at once
MICRO = 1_000_000  # microseconds in a second
MADE = "start incremental-serve on it, and send more events"


def log(*, path: str, kinds: Mapping[str, str] | None = None) -> Table:
    """Reads the sealed events of a log: those up to the last cut.

    path:  a file (SQLite), nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC
    kinds: further kinds of ids and the events' fields that hold them, e.g. {category: cat}; other fields are not read

    The text of an item is its title, if that is in the log before the end of the increment of the item's first event.
    Raises UserError for what is no log, a log without events, without a cut, of a base part or one item only, and for
    cuts that do not follow one another.
    """
    events, titles, cuts = sealed(path)
    made = table(Events(events, titles), cuts, origin=path, kinds=kinds or {})
    if not made.frame["period"][-1]:
        raise UserError(f"{path}: the log has its base part, but no increment has ended after it; {MADE}")
    if made.frame["item"].n_unique() == 1:
        only = made.frame["item"][0]
        raise UserError(f"{path}: every event has the item {only!r}, and a recommender needs two; send other events")
    return made


def sealed(path: str) -> tuple[list[tuple[int, Event]], list[tuple[int, Title]], list[Cut]]:
    """A log's events and titles with their offsets, and its cuts; UserErrors as `log` has them."""
    engine = open_log(path)
    try:
        events, titles, cuts = everything(engine)
    finally:
        engine.close()
    if not events:
        raise UserError(f"{path}: the log has no events; {MADE}")
    if not cuts:
        raise UserError(f"{path}: the log has {len(events):,} events, but no increment has ended; {MADE}")
    check(path, events, cuts)
    return events, titles, [cut for _, cut in cuts]


def everything(engine: Log) -> tuple[list[tuple[int, Event]], list[tuple[int, Title]], list[tuple[int, Cut]]]:
    """All events, titles and cuts of a log, with their offsets."""
    events: list[tuple[int, Event]] = []
    titles: list[tuple[int, Title]] = []
    cuts: list[tuple[int, Cut]] = []
    after = 0
    while block := engine.read(after, BLOCK):
        after = block[-1][0]
        for offset, record in block:
            if type(record) is Event:
                events.append((offset, record))
            elif type(record) is Title:
                titles.append((offset, record))
            elif type(record) is Cut:
                cuts.append((offset, record))
    return events, titles, cuts


def check(path: str, events: Sequence[tuple[int, Event]], cuts: Sequence[tuple[int, Cut]]) -> None:
    """A UserError unless the cuts are numbered in order, each ends with an event before it, and none is empty."""
    places = np.fromiter((offset for offset, _ in events), np.int64, len(events))
    start = 0
    for number, (offset, cut) in enumerate(cuts):
        last = int(np.searchsorted(places, cut.until, side="right"))
        if cut.number != number or cut.until >= offset or last <= start:
            raise UserError(
                f"{path}: the record at offset {offset} ends increment {cut.number} at offset {cut.until}; expected "
                f"the end of increment {number}, at an event after those of the increment before and before offset "
                f"{offset}. Two learners may have written to one log: take the log from a copy, and start one"
            )
        start = last


def micros(events: Events, n: int) -> np.ndarray:
    """[n] int64: the times of the first n events in microseconds."""
    return np.rint(np.array(events.times[:n], np.float64) * MICRO).astype(np.int64)


def table(events: Events, cuts: Sequence[Cut], *, origin: str, kinds: Mapping[str, str] = {}, clock: int = 0) -> Table:
    """The interactions of a log's sealed events: pure, and of the first cuts alone it makes the first rows.

    events: N; those after the last cut are left out, and noted
    cuts:   the ends of the increments 0, 1, …
    kinds:  as `log` has them
    clock:  the largest time of the events before, in microseconds

    The frame [N sealed]: user, item, behaviour (the event's type) and each kind, str; time int64 and fraction int64
    (seconds and nanoseconds), the largest time of the events so far, so that the order of arrival is the order of time;
    period int32, the number of the increment; line int64, the offset. Titles come in periods too.
    """
    sealed = events.until(cuts[-1].until) if cuts else 0
    offset, ends = np.array(events.offsets[:sealed], np.int64), np.array([cut.until for cut in cuts], np.int64)
    period = np.searchsorted(ends, offset, side="left")
    came = np.searchsorted(ends, [at for at, _ in events.titles.values()], side="left").tolist()
    micro = np.maximum.accumulate(np.maximum(micros(events, sealed), clock))
    frame = pl.DataFrame(
        {
            "user": events.users.words(sealed),
            "item": events.items.words(sealed),
            "behaviour": events.types.words(sealed),
            "time": micro // MICRO,
            "fraction": micro % MICRO * 1000,
            "period": period.astype(np.int32),
            "line": offset,
            **{kind: events.field(field, sealed) for kind, field in kinds.items()},
        }
    )
    notes: tuple[str, ...] = ()
    if rest := len(events) - sealed:
        notes = (f"{origin}: the last {rest:,} events are in no increment yet, and left out",)
    text = {item: title for item, (_, title) in events.titles.items()}
    since = dict(zip(text, came, strict=True))
    return Table(frame, origin, text, notes, kinds=tuple(kinds), words=True, since=since)
