"""A stream that grows by its parts and lets go of events that nobody reads any more.

Each part is made alone, by the ordinary way, and joined to what is there. What is read of the grown stream is what is
read of the stream that was made of all events at once.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from incremental.data.interactions import ARRAYS, Interactions, Kind, Side
from incremental.data.past import Summary, firsts, plus
from incremental.data.stream import Stream
from incremental.errors import UserError

BEHAVIOURS = 127  # int8 numbers them

Numbers = dict[str, dict[str, int]]
"""by kind, the number of each id"""


def joined(first: Stream, part: Stream, numbers: Numbers) -> Stream:
    """The stream that goes on with a part of later events, whose increments are numbered on and whose ids count from 1.

    Neither has roles; both have the same side tables, or none. `numbers` is filled here, once for all joins of a stream
    that grows: an id of a part that was tried before may have a number there that is wrong by now, and gets its own.
    """
    increment = np.concatenate([first.increment, part.increment])
    return replace(
        first,
        interactions=behind(first.interactions, part.interactions, numbers),
        increment=increment,
        heldout=np.concatenate([first.heldout, part.heldout]),
        validation=np.concatenate([first.validation, part.validation]),
    )


def behind(one: Interactions, other: Interactions, numbers: Numbers) -> Interactions:
    """The events of one log, and behind them those of the other, with the ids of the first log and new ones. What is
    known of an id (its title, its row of a side table) stays as the first log has it."""
    ids, names, new = dict[str, np.ndarray](), dict[str, list[str]](), dict[str, np.ndarray]()
    for kind in one.kinds:
        there = one.vocabulary(kind)
        known = numbers.get(kind) or {name: number for number, name in enumerate(there)}
        renamed, names[kind] = numbered(there, other.vocabulary(kind), known)
        new[kind] = np.flatnonzero(renamed >= len(there))  # places in the other log, in the order of their numbers
        numbers[kind] = known
        ids[kind] = np.concatenate([one.ids(kind), renamed[other.ids(kind)]])
    arrays: dict[str, Any] = {}
    for name in ("time", "fraction", "rating", "period", "line"):
        own, more = getattr(one, name), getattr(other, name)
        arrays[name] = None if own is None else np.concatenate([own, more])
    behaviours = one.behaviours
    if one.behaviour is not None and other.behaviour is not None:
        behaviours = tuple(dict.fromkeys((*one.behaviours, *other.behaviours)))
        if len(behaviours) > BEHAVIOURS:
            raise UserError(
                f"the events have {len(behaviours)} different types, at most {BEHAVIOURS} are possible; begin with a "
                "new log, and give live.types"
            )
        renamed = np.array([behaviours.index(name) for name in other.behaviours], np.int8)
        arrays["behaviour"] = np.concatenate([one.behaviour, renamed[other.behaviour]])
    titles = None
    if one.titles is not None and other.titles is not None:
        titles = [*one.titles, *(other.titles[place] for place in new["item"])]
    return replace(
        one,
        **arrays,
        titles=titles,
        side={
            name: Side(table.kind, np.concatenate([table.values, other.side[name].values[new[table.kind]]]))
            for name, table in one.side.items()
        },
        user=ids["user"],
        item=ids["item"],
        users=names["user"],
        items=names["item"],
        behaviours=behaviours,
        further={kind: Kind(ids[kind], names[kind]) for kind in one.further},
    )


def numbered(there: list[str], names: list[str], known: dict[str, int]) -> tuple[np.ndarray, list[str]]:
    """The number of each of the `names` int32, new ones counted on, and the vocabulary with them; "" is 0."""
    found, new = np.zeros(len(names), np.int32), list[str]()
    for place, name in enumerate(names[1:], 1):
        number = known.get(name, 0)
        if not (0 < number < len(there) and there[number] == name):
            number = known[name] = len(there) + len(new)
            new.append(name)
        found[place] = number
    return found, [*there, *new]


def released(stream: Stream, until: int) -> Stream:
    """The stream without events of the increments before `until`, which is one of its own, that increment `until` and
    later ones do not need: the last L of each user that are not held out stay, and what is between them.

    An update or a test may then read none of these increments; and a model must know all ids of their training events.
    """
    old, log, labels = stream.summary, stream.interactions, stream.label
    if until <= old.until:
        return stream
    last, kept = stream.bounds(until)[0], of_histories(stream, until)
    lost = log.user[:last][~kept & ~stream.heldout[:last]]
    kept = np.concatenate([kept, np.ones(len(stream.increment) - last, bool)])
    gone = plus(old.gone.astype(np.int64), lost)
    summary = Summary(
        until,
        stream.trained(until),
        stream.met(until),
        {kind: stream.number(kind, until - 1) for kind in log.kinds},
        {
            kind: firsts(each.ids[:last], labels[:last], old.fields.get(kind, labels[:0]), len(stream.labels))
            for kind, each in log.further.items()
        },
        gone.astype(np.int32),
    )
    arrays: dict[str, Any] = {name: own[kept] for name in ARRAYS if (own := getattr(log, name)) is not None}
    further = {name: Kind(kind.ids[kept], kind.names) for name, kind in log.further.items()}
    return replace(
        stream,
        interactions=replace(log, **arrays, further=further),
        increment=stream.increment[kept],
        heldout=stream.heldout[kept],
        validation=stream.validation[kept],
        summary=summary,
    )


def of_histories(stream: Stream, until: int) -> np.ndarray:
    """[events before `until`] bool: those that a history from there on may hold."""
    past = stream.prefix(until - 1)
    order, _, first = past._by_user
    visible = ~past.heldout[order]
    number: np.ndarray = np.cumsum(visible) - visible
    last = np.append(np.flatnonzero(np.diff(first)), len(first) - 1)  # the place of each user's last event
    end = np.repeat(last, np.diff(last, prepend=-1))
    # Under strict ties the next event may have the time of the last one, and then those of this time are no history.
    end = past._now[order[end]] if stream.ties == "strict" else end + 1
    behind = np.append(number, visible.sum())[end] - number  # visible ones from each place on
    found = np.empty(len(order), bool)
    found[order] = (behind < stream.history) | ((behind == stream.history) & visible)
    return found
