"""A live loop that begins with what a run has seen: its events, and its items' titles, are the base part of the log."""

import time
from pathlib import Path

from incremental.app.bases import config_of, data_of
from incremental.data.interactions import Interactions
from incremental.data.kept import log_of
from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.log.records import LONGEST, LONGEST_TITLE, Cut, Event, Record, Title
from incremental.serve.recommend import one_line

BLOCK = 10_000  # events appended at once
PREFIX = "base:"  # of their ids


def begin(run: Path, log: Log, place: str) -> int:
    """Puts the events of a run's data into an empty log, as increment 0; returns how many of them it begins with.

    A log with a cut is left as it is, though events of its base part were taken out since. Without one it gets the rest
    of them: so a kill in between does no harm. Raises UserError for a log that does not begin with the run's first
    event, for ids that a log does not take, and for what is no run.
    """
    config_of(run)  # is it one
    known = log_of(data_of(run))
    further = [name for kind in known.further.values() for name in kind.names]
    names = (*known.users, *known.items, *known.behaviours, *further)
    if long := next((name for name in names if len(name) > LONGEST), ""):
        raise UserError(
            f"base={run}: the run's data has an id of {len(long):,} characters, {long[:20]!r}…, and a live log takes "
            f"at most {LONGEST}; give the data shorter ids, run it again, and give that run"
        )
    first = first_event(log)
    if first is not None and first != event(known, 0):
        raise UserError(
            f"base={run}: {place} has events already, which are not that run's; leave base out to go on with this log, "
            "or choose another folder with live.folder=..."
        )
    if (there := base_part(log)) is not None:
        return there
    until = 0
    for start in range(0, len(known), BLOCK):
        until = log.append(records(known, start, min(start + BLOCK, len(known))))[-1].offset
    log.append([Cut(0, until or log.last(), "end", time.time())])
    return len(known)


def first_event(log: Log) -> Event | None:
    """The first one of a log; None: it has none."""
    after = 0
    while block := log.read(after, BLOCK):
        for _, record in block:
            if isinstance(record, Event):
                return record
        after = block[-1][0]
    return None


def base_part(log: Log) -> int | None:
    """The events up to the first cut of a log; None: it has no cut."""
    number = after = 0
    while block := log.read(after, BLOCK):
        for _, record in block:
            if isinstance(record, Cut):
                return number
            number += isinstance(record, Event)
        after = block[-1][0]
    return None


def records(log: Interactions, first: int, last: int) -> list[Record]:
    """The events of a run's data from one to another, each item's title before its first event of these."""
    found: list[Record] = []
    named: set[int] = set()
    for n in range(first, last):
        item = int(log.item[n])
        if log.titles and item not in named:
            named.add(item)
            if title := one_line(log.titles[item]).strip()[:LONGEST_TITLE]:
                found.append(Title(log.items[item], title))
        found.append(event(log, n))
    return found


def event(log: Interactions, n: int) -> Event:
    """Event n of a run's data; a further kind of ids is a field of its name."""
    further = {name: kind.names[kind.ids[n]] for name, kind in log.further.items() if kind.ids[n]}
    kind = {} if log.behaviour is None else {"type": log.behaviours[log.behaviour[n]]}
    micro = int(log.time[n]) * 10**6 + int(log.fraction[n]) // 1000
    return Event(
        f"{PREFIX}{n}", log.users[log.user[n]], log.items[log.item[n]], time=micro / 1e6, fields=further, **kind
    )
