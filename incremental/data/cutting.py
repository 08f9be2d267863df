"""Cutting: which increment each interaction of a stream belongs to.

A cut is a function from a stream to the increment of each of its events, int32 [N]: 0 is the base part, 1..T are the
increments, none of them empty; and to notes for the reader. It may look at the whole stream: its length and its last
day say where the cuts lie, not what is in between. The prefix law (no number may depend on what comes later) is a law
on streams that have been cut.

Increments follow the time, but for `leave_one_out`, whose parts overlap: `in_parts` then puts the events of a part
before those of the next. A user's own events keep their order.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl

from incremental.data.choosing import as_written, last_of, with_two
from incremental.data.interactions import Interactions, Kind
from incremental.domains import Count, InnerShare, checked
from incremental.errors import UserError

Cut = Callable[[Interactions], tuple[np.ndarray, tuple[str, ...]]]


@checked
def equal_counts(*, increments: Count = 10, base: InnerShare = 0.5) -> Cut:
    """The first `base` share of the events is the base part; then come increments of equal counts (± 1).

    Raises UserError for a share outside (0, 1) and for more increments than events after the base part.
    """

    def cut(stream: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
        start = max(math.floor(as_written(base) * len(stream)), 1)
        rest = len(stream) - start
        if rest < increments:
            raise UserError(
                f"data.cut.increments is {increments}, but only {rest} of the {len(stream)} events come "
                "after the base part; lower data.cut.increments or data.cut.base"
            )
        increment = np.zeros(len(stream), np.int32)
        increment[start:] = np.arange(rest) * increments // rest + 1
        return increment, ()

    return cut


@checked
def fixed_counts(*, base: Count | str, each: Count) -> Cut:
    """The first `base` events are the base part; then come increments of `each` events, the last one of what is left.

    base: a number of events; or a date as in `calendar`: the events before it

    Events that are added at the end change no increment but the last. Raises UserError if no event is left after the
    base part, or none is in it.
    """
    before = _seconds(base, "a number of events such as 100000") if isinstance(base, str) else 0

    def cut(stream: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
        if isinstance(base, str) and _of_periods(stream):
            raise UserError(
                f"data.cut.base is {base}, but the times are numbers of periods; give a number of events, or use "
                "data/cut=periods"
            )
        number = int((stream.time < before).sum()) if isinstance(base, str) else base
        if not number:
            first = datetime.fromtimestamp(int(stream.time[0]), UTC).replace(tzinfo=None)
            raise UserError(f"data.cut.base is {base}, and no event comes before; the first is of {first}")
        if len(stream) <= number:
            raise UserError(
                f"data.cut.base is {base}, and the stream has {len(stream)} events: none is left after the base part; "
                "lower data.cut.base"
            )
        return np.maximum((np.arange(len(stream)) - number) // each + 1, 0).astype(np.int32), ()

    return cut


@checked
def calendar(*, interval: str = "1w", base: InnerShare | str = 0.5) -> Cut:
    """One increment for each interval of the calendar (UTC; weeks begin on Monday) after the base part.

    interval: a number and a unit: m (minutes), h, d, w, mo, q (quarters) or y, such as 6h or 1mo
    base:     the base part ends with the interval in which this share of the events has arrived; or a date such as
              2024-01-31 (or 2024-01-31T12:30:00, UTC): it ends with the last interval that begins before. A share moves
              as events are added at the end, a date does not

    Intervals without events are merged with the one before, and noted. Raises UserError for an impossible
    argument, for times that are numbers of periods, and if no interval is left after the base part.
    """
    before = _seconds(base, "a share of the events such as 0.5") if isinstance(base, str) else 0
    if not re.fullmatch(r"[1-9]\d*(m|h|d|w|mo|q|y)", str(interval)):
        raise UserError(
            f"data.cut.interval is {interval!r}; expected a number and one of the units "
            "m, h, d, w, mo, q, y, such as 1w"
        )

    def cut(stream: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
        if _of_periods(stream):
            raise UserError(
                "data.cut is a calendar, but the times are numbers of periods; use data/cut=periods or data/cut=counts"
            )
        start = pl.from_epoch(pl.Series("time", stream.time), time_unit="s").dt.truncate(interval)
        number = start.rle_id().to_numpy().astype(np.int32)  # of non-empty intervals, from 0
        if isinstance(base, str):
            events = int((start.dt.epoch("s") < before).sum())
            if not events:
                raise UserError(f"data.cut.base is {base}, and no interval begins before; the first begins {start[0]}")
        else:
            events = math.ceil(as_written(base) * len(stream))
        last_of_base = number[events - 1]
        if number[-1] == last_of_base:
            raise UserError(
                f"no increment is left after cutting: the base part (data.cut.base={base}) and "
                f"the interval (data.cut.interval={interval}) take the whole stream, from {start[0]} to "
                f"{start[-1]}; lower one of them"
            )
        after = start.filter(number >= last_of_base)
        every = pl.datetime_range(after[0], after[-1], interval, eager=True)
        empty = np.setdiff1d(every.to_numpy(), after.to_numpy())
        notes: tuple[str, ...] = ()
        if len(empty):
            first = np.datetime_as_string(empty[0], "m")
            notes = (f"merged {len(empty)} intervals of {interval} without events, the first from {first} UTC",)
        return np.maximum(number - last_of_base, 0), notes

    return cut


@checked
def given_periods(*, base: Count = 1) -> Cut:
    """One increment for each period of the source after the first `base` periods, which are the base part.

    Missing period numbers are merged with the one before, and noted. Raises UserError for a source without
    periods, for periods that do not follow the time, and if no period is left after the base part.
    """

    def cut(stream: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
        if stream.period is None:
            raise UserError(
                "data.cut is given_periods, but the source has no periods; name their column in data.source.period "
                "(data=columns), or choose another cut, such as data/cut=counts or data/cut=weekly"
            )
        step = np.diff(stream.period)
        if (step < 0).any():
            event = int(np.argmax(step < 0)) + 1
            where = "" if stream.line is None else f" (row {stream.line[event]})"
            raise UserError(
                f"the given periods do not follow the time: event {event + 1:,} in time order{where} is of period "
                f"{stream.period[event]}, after one of period {stream.period[event - 1]}; correct the column of the "
                "periods (data.source.period) or of the times, or choose another cut (data/cut)"
            )
        kept = stream.period
        number = np.concatenate([[0], np.cumsum(np.diff(kept) > 0)])
        if number[-1] < base:
            raise UserError(
                f"no increment is left after cutting: {int(number[-1]) + 1} periods are there, and the base part takes "
                f"{base}; lower data.cut.base, or read more periods"
            )
        after = np.unique(kept[number >= base - 1])
        empty = np.setdiff1d(np.arange(after[0], after[-1]), after)
        notes: tuple[str, ...] = ()
        if len(empty):
            notes = (f"merged {len(empty)} periods without events: {', '.join(map(str, empty))}",)
        return np.maximum(number - (base - 1), 0).astype(np.int32), notes

    return cut


@checked
def at_quantile(*, quantile: InnerShare = 0.9, increments: Count = 1) -> Cut:
    """The base part is what is not later than the `quantile` of all events' times (linear interpolation); then come
    increments of equal counts (± 1).

    Raises UserError where fewer events than increments come after.
    """

    def cut(stream: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
        increment = np.zeros(len(stream), np.int32)
        later = stream.time > np.quantile(stream.time, quantile)
        rest = int(later.sum())
        if rest < increments:
            raise UserError(
                f"data.cut.increments is {increments}, but only {rest} of the {len(stream)} events are later than the "
                f"quantile data.cut.quantile={quantile:g} of the times; lower one of them"
            )
        increment[later] = np.arange(rest) * increments // rest + 1
        return increment, ()

    return cut


def leave_one_out() -> Cut:
    """Each user's last event is increment 1, all others are the base part; so is the event of a user who has only one.

    Raises UserError where no user has two events.
    """

    def cut(stream: Interactions) -> tuple[np.ndarray, tuple[str, ...]]:
        last = last_of(stream.user, with_two(stream.user, np.ones(len(stream), bool)))
        if not last.any():
            raise UserError("data.cut is leave_one_out, but no user has two events; choose another cut (data/cut)")
        return last.astype(np.int32), ("leave-one-out: the base part has events that are later than others' tests",)

    return cut


def in_parts(log: Interactions, increment: np.ndarray) -> tuple[Interactions, np.ndarray]:
    """The log and its events' increments [N], each part behind the one before; ids count by first appearance there."""
    if (np.diff(increment) >= 0).all():
        return log, increment
    order = np.argsort(increment, kind="stable")
    names = ("time", "fraction", "rating", "period", "line")
    arrays = {name: own[order] for name in names if (own := getattr(log, name)) is not None}
    user, users = _anew(log.user[order], log.users)
    item, items = _anew(log.item[order], log.items)
    further = {name: Kind(*_anew(kind.ids[order], kind.names)) for name, kind in log.further.items()}
    if log.behaviour is not None:
        codes, behaviours = _anew(log.behaviour[order] + 1, ["", *log.behaviours])
        arrays |= {"behaviour": (codes - 1).astype(np.int8), "behaviours": tuple(behaviours[1:])}
    title = dict(zip(log.items, log.titles or [], strict=False))
    number = {name: place for place, name in enumerate(log.items)}
    made = replace(
        log,
        **arrays,
        user=user,
        users=users,
        item=item,
        items=items,
        further=further,
        titles=None if log.titles is None else [title[name] for name in items],
        law=None if log.law is None else log.law.take(order, np.array([number[name] for name in items[1:]])),
    )
    return made, increment[order]


def _anew(ids: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Ids [N] int32 from 1 (0: none) counted by first appearance, and their names."""
    there, first = np.unique(ids[ids > 0], return_index=True)
    there = there[np.argsort(first)]
    number = np.zeros(len(names), np.int32)
    number[there] = np.arange(1, len(there) + 1)
    return number[ids], ["", *(names[old] for old in there)]


def _of_periods(stream: Interactions) -> bool:
    """Whether the times are numbers of periods."""
    return stream.period is not None and bool((stream.time == stream.period).all())


def _seconds(date: str, otherwise: str) -> int:
    """A date, or a date and a time, in seconds since 1970; UTC where it does not say. It could be `otherwise` too."""
    try:
        time = datetime.fromisoformat(date)
    except ValueError:
        raise UserError(f"data.cut.base is {date!r}; expected {otherwise}, or a date such as 2024-01-31") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
