"""Small streams, drawn by hypothesis or made of events, and what was before an event, naively."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from hypothesis import strategies as st

from incremental.data import features
from incremental.data.features import Examples
from incremental.data.interactions import Interactions, Table
from incremental.data.stream import Stream
from incremental.data.ties import Ties, ordered


class Event(NamedTuple):
    user: int
    item: int
    step: int  # 1 begins a new increment
    heldout: bool
    validation: bool
    tick: int = 1  # 0 has the time of the event before


def table(pairs: list[tuple[int, int]], times: list[int] | None = None) -> Table:
    frame = pl.DataFrame(
        {
            "user": [f"u{user}" for user, _ in pairs],
            "item": [f"i{item}" for _, item in pairs],
            "time": list(range(len(pairs))) if times is None else times,
        }
    )
    return Table(frame, "events")


def numbered(table: Table, ties: Ties) -> Interactions:
    """What `encode` makes of a table that needs no check; the checks take most of its time."""
    frame = ordered(table.frame, ties)
    ids = {}
    for kind in ("user", "item"):
        names = ["", *dict.fromkeys(frame[kind])]
        ids[kind] = np.array([names.index(name) for name in frame[kind]], np.int32), names
    return Interactions(
        user=ids["user"][0],
        item=ids["item"][0],
        time=frame["time"].to_numpy(),
        fraction=np.zeros(len(frame), np.int32),
        rating=None,
        behaviour=None,
        period=None,
        users=ids["user"][1],
        items=ids["item"][1],
        titles=None,
        behaviours=(),
        notes=(),
    )


def cut_at(increment: list[int]) -> Callable[[Interactions], tuple[Any, tuple[str, ...]]]:
    return lambda events: (np.array(increment[: len(events)], np.int32), ("a note",))


def assembled(events: list[Event], ties: Ties = "strict", **protocol: Any) -> Stream:
    """The stream of these events. A first event of another item keeps the validation of the table content."""
    held = np.array([event.heldout for event in events])
    times = np.cumsum([event.tick for event in events]).tolist()
    return Stream(
        numbered(table([(event.user, event.item) for event in events], times), ties),
        np.cumsum([0] + [event.step for event in events[1:]]).astype(np.int32),
        held,
        np.array([event.validation for event in events]) & ~held,
        **{
            "history": 3,
            "exclude_seen": False,
            "unseen_items": "miss",
            "minimum_history": 0,
            "ties": ties,
            "features": {
                name: of(length=protocol.get("history", 3))
                for name, of in (("history", features.history), ("following", features.following))
            },
            **protocol,
        },
    )


flags = st.integers(0, 1)
event = st.builds(Event, st.integers(0, 3), st.integers(0, 5), flags, st.booleans(), st.booleans(), flags)
streams = st.builds(
    assembled,
    st.lists(event, min_size=2, max_size=30).filter(lambda events: len({e.item for e in events}) > 1),
    history=st.integers(2, 4),
    exclude_seen=st.booleans(),
    unseen_items=st.sampled_from(["miss", "drop"]),
    minimum_history=st.integers(0, 2),
    ties=st.sampled_from(["strict", "file", "item", "hash"]),
)


def past_of(stream: Stream, e: int) -> list[int]:
    """The events of the user of event e that are before it."""
    user, time = stream.interactions.user, stream.interactions.time
    return [i for i in range(e) if user[i] == user[e] and (stream.ties != "strict" or time[i] < time[e])]


def history_of(stream: Stream, e: int, visible: Callable[[int], bool]) -> list[int]:
    items = [int(stream.interactions.item[i]) for i in past_of(stream, e) if visible(i)][-stream.history :]
    return [0] * (stream.history - len(items)) + items


def histories_of(stream: Stream, rows: Examples) -> list[list[int]]:
    """The items of each example's past."""
    return features.before(stream.interactions.item, rows).tolist()
