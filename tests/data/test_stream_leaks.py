"""Nothing looks ahead, nothing reads what is held out."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incremental.data.stream import Stream
from tests.data.streams import (
    Event,
    assembled,
    histories_of,
    streams,
)


def inputs_of(stream: Stream, e: int) -> dict[str, Any]:
    """All that a row of event e may tell a model: never its own item, nor what comes later."""
    t = int(stream.increment[e])
    known = np.ones(100, bool)
    kinds = {
        "train": stream.training_examples([t], validation=False, inputs=("history",)),
        "validation": stream.training_examples([t], validation=True, inputs=("history",)),
        "test": stream.test_examples(t, heldout=False, trained_until=t, known={"item": known}, inputs=("history",)),
    }
    found: dict[str, Any] = {}
    for kind, rows in kinds.items():
        for place in np.flatnonzero(rows.event == e):
            log, start, stop = stream.seen_by(rows.event, heldout=True)
            found[kind] = (
                int(rows.user[place]),
                histories_of(stream, rows)[place],
                log[start[place] : stop[place]].tolist(),
            )
    return found


def swapped(stream: Stream, places: np.ndarray) -> Stream:
    """The stream with other items at these places; the numbering is left as it is."""
    item = stream.interactions.item.copy()
    item[places] = item[places] % 6 + 1
    return replace(stream, interactions=replace(stream.interactions, item=item, items=["", *"abcdefg"]))


def peeks(stream: Stream, e: int, *, ties: bool = True) -> bool:
    """Whether a row of event e shows anything of the items of e and of what follows, or with `ties` is of its time."""
    first = int(np.searchsorted(stream.interactions.time, stream.interactions.time[e])) if ties else e
    before = inputs_of(stream, e)
    after = inputs_of(swapped(stream, np.arange(first, len(stream.increment))), e)
    return any(before[kind] != after[kind] for kind in before.keys() & after.keys())


@given(streams, st.data())
def test_inputs_are_strictly_before_the_event(stream: Stream, data: st.DataObject) -> None:
    assert not peeks(stream, data.draw(st.integers(0, len(stream.increment) - 1)), ties=stream.ties == "strict")


def test_an_order_within_a_time_shows_what_else_is_there() -> None:
    events = [Event(0, i % 3, int(i == 4), False, False, int(i == 3)) for i in range(8)]
    assert not any(peeks(assembled(events), e) for e in range(8))
    for ties in ("file", "item", "hash"):
        told = assembled(events, ties)
        assert [peeks(told, e) for e in range(8)] == [e not in (0, 3) for e in range(8)]
        assert not any(peeks(told, e, ties=False) for e in range(8))


class Including(Stream):
    """A planted leak: histories end with the event itself."""

    def past(self, events: Any, visible: Any, by_run: bool = False) -> Any:
        return np.concatenate([super().past(events, visible, by_run)[:, 1:], events[:, None]], axis=1)


class Ahead(Stream):
    """A planted leak: what a user has seen is taken from the whole stream."""

    def seen_by(self, events: Any, *, heldout: bool) -> Any:
        del heldout
        user, item = self.interactions.user, self.interactions.item
        parts = [item[user == u] for u in user[events]]
        ends = np.cumsum([len(part) for part in parts]).astype(np.int32)
        return np.concatenate(parts), ends - [len(part) for part in parts], ends


@pytest.mark.parametrize("leaky", [Including, Ahead])
def test_a_planted_look_ahead_is_found(leaky: type[Stream]) -> None:
    events = [Event(0, i % 3, int(i == 4), False, False) for i in range(8)]
    sound = assembled(events)
    assert not any(peeks(sound, e) for e in range(8))
    planted = leaky(**{field.name: getattr(sound, field.name) for field in fields(sound)})
    assert all(peeks(planted, e) for e in range(1, 8))


@given(streams)
def test_what_is_held_out_reaches_no_training_row(stream: Stream) -> None:
    other = swapped(stream, np.flatnonzero(stream.heldout))
    every = range(len(stream))
    for validation in (False, True):
        for history in (False, True):
            one = stream.training_examples(every, validation=validation, inputs=("history",) * history)
            two = other.training_examples(every, validation=validation, inputs=("history",) * history)
            for a, b in zip(vars(one).values(), vars(two).values(), strict=True):
                np.testing.assert_array_equal(a, b)
            own, others = (of.seen_by(rows.event, heldout=False) for of, rows in ((stream, one), (other, two)))
            for a, b in zip(own, others, strict=True):
                np.testing.assert_array_equal(a, b)
    events = stream.training_events(every)
    assert not stream.heldout[events].any()
    np.testing.assert_array_equal(stream.interactions.item[events], other.interactions.item[events])
