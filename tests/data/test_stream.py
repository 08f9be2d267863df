from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.data import cutting, features
from incremental.data.cleaning import cleaning
from incremental.data.features import Examples
from incremental.data.interactions import Interactions, Table, encode
from incremental.data.stream import Stream, make_stream
from incremental.data.ties import Ties, ordered
from incremental.errors import UserError
from tests import lab


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


@pytest.mark.parametrize("ties", get_args(Ties))
def test_these_streams_are_encoded_as_all_are(ties: Ties) -> None:
    events = table([(1, 2), (0, 1), (1, 0), (0, 2), (2, 1), (1, 1)], [0, 1, 1, 1, 2, 2])
    one, other = numbered(events, ties), encode(events, ties)
    for name, own in vars(replace(one, line=other.line)).items():
        np.testing.assert_equal(own, getattr(other, name), name)
        assert getattr(own, "dtype", None) == getattr(getattr(other, name), "dtype", None)


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


# -- against a naive reference --------------------------------------------------------------------------------------


@given(streams, st.data())
def test_training_rows(stream: Stream, data: st.DataObject) -> None:
    increments = data.draw(st.lists(st.integers(0, len(stream) - 1), unique=True).map(sorted))
    validation, history = data.draw(st.sampled_from([False, True, None])), data.draw(st.booleans())
    inputs = ("history", "following") if history else ()
    rows = stream.training_examples(increments, validation=validation, inputs=inputs)

    histories = {e: history_of(stream, e, lambda i: not stream.heldout[i]) for e in range(len(stream.increment))}
    expected = [
        e
        for e in range(len(stream.increment))
        if stream.increment[e] in increments
        and not stream.heldout[e]
        and validation in (None, stream.validation[e])
        and (not history or any(histories[e]))
    ]
    assert rows.event.tolist() == expected
    assert rows.user.tolist() == stream.interactions.user[expected].tolist()
    assert rows.label.tolist() == stream.interactions.item[expected].tolist()
    assert rows.increment.tolist() == stream.increment[expected].tolist()
    assert histories_of(stream, rows) == [histories[e] if history else [] for e in expected]
    if history and validation is False:  # what follows are the other examples that have the event in their past
        following = [[other for other in expected if e in past_of(stream, other)][: stream.history] for e in expected]
        assert rows.following is not None
        assert [[e for e in row if e >= 0] for row in rows.following.tolist()] == following
        assert (rows.following[:, 1:][rows.following[:, :-1] < 0] < 0).all()  # padding is behind
    else:
        assert rows.following is None
    assert {leaf.dtype for leaf in vars(rows).values() if leaf is not None} == {np.dtype(np.int32)}
    events = stream.training_events(increments)
    held = [e for e in range(len(stream.increment)) if stream.increment[e] in increments and not stream.heldout[e]]
    assert events.tolist() == held


@settings(max_examples=200)
@given(streams, st.data())
def test_test_rows(stream: Stream, data: st.DataObject) -> None:
    t = data.draw(st.integers(0, len(stream) - 1))
    until = data.draw(st.integers(-1, t))
    heldout, history = data.draw(st.booleans()), data.draw(st.booleans())
    names = len(stream.interactions.items)
    known = np.array(data.draw(st.lists(st.booleans(), min_size=1, max_size=names + 2)))
    rows = stream.test_examples(
        t, heldout=heldout, trained_until=until, known={"item": known}, inputs=("history",) * history
    )

    items = stream.interactions.item
    trained = {int(items[i]) for i in range(len(items)) if stream.increment[i] <= until and not stream.heldout[i]}

    def visible(i: int) -> bool:
        return bool(items[i] < len(known) and known[items[i]])

    met = {int(items[i]) for i in np.flatnonzero(~stream.heldout & (stream.increment <= until))}
    expected = []
    for e in np.flatnonzero(stream.increment == t).tolist():
        past = past_of(stream, e)
        if (
            (stream.heldout[e] or not heldout)
            and (stream.unseen_items == "miss" or int(items[e]) in trained)
            and not (stream.exclude_seen and any(items[i] == items[e] for i in past))
            and sum(int(items[i]) in met for i in past) >= stream.minimum_history
        ):
            expected.append(e)
    assert rows.event.tolist() == expected
    assert histories_of(stream, rows) == [
        history_of(stream, e, visible) if history else [] for e in rows.event.tolist()
    ]
    assert rows.label.tolist() == items[rows.event].tolist()


@given(streams, st.booleans(), st.data())
def test_seen_by(stream: Stream, heldout: bool, data: st.DataObject) -> None:
    t = data.draw(st.integers(0, len(stream) - 1))
    names = np.ones(len(stream.interactions.items), bool)
    rows = stream.test_examples(t, heldout=False, trained_until=t, known={"item": names})
    log, start, stop = stream.seen_by(rows.event, heldout=heldout)
    for e, first, last in zip(rows.event.tolist(), start, stop, strict=True):
        past = [i for i in past_of(stream, e) if heldout or not stream.heldout[i]]
        assert log[first:last].tolist() == stream.interactions.item[past].tolist()
    assert len(log) <= int(rows.event.max(initial=0)) + 1  # nothing later than the rows is handed out


@given(streams, st.data())
def test_bounds_and_prefix(stream: Stream, data: st.DataObject) -> None:
    t = data.draw(st.integers(0, len(stream) - 1))
    first, last = stream.bounds(t)
    assert np.flatnonzero(stream.increment == t).tolist() == list(range(first, last))
    short = stream.prefix(t)
    assert len(short) == t + 1
    assert len(short.interactions) == len(short.heldout) == len(short.validation) == last
    assert short.interactions.item.tolist() == stream.interactions.item[:last].tolist()
    known = np.ones(len(stream.interactions.items), bool)
    for a, b in (
        (part.training_examples(range(t + 1), validation=False, inputs=("history",)) for part in (short, stream)),
        (
            part.test_examples(t, heldout=False, trained_until=t - 1, known={"item": known}, inputs=("history",))
            for part in (short, stream)
        ),
    ):
        assert {k: np.asarray(v).tolist() for k, v in vars(a).items()} == {
            k: np.asarray(v).tolist() for k, v in vars(b).items()
        }


@given(streams, st.lists(st.booleans(), min_size=1, max_size=8))
def test_the_latest_history_and_all_items_of_a_user(stream: Stream, flags: list[bool]) -> None:
    known = np.array(flags)
    users = np.arange(1, len(stream.interactions.users), dtype=np.int32)
    latest = stream.latest(users, {"item": known})
    assert latest.user.tolist() == users.tolist()
    assert set(latest.event.tolist()) == {-1}
    assert not latest.label.any()
    for user, row in zip(users.tolist(), histories_of(stream, latest), strict=True):
        items = stream.interactions.item[stream.interactions.user == user].tolist()
        assert stream.items_of(user).tolist() == items
        visible = [item for item in items if item < len(known) and known[item]][-stream.history :]
        assert row == [0] * (stream.history - len(visible)) + visible


# -- nothing looks ahead, nothing reads what is held out ------------------------------------------------------------


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


# -- examples by hand -----------------------------------------------------------------------------------------------


def test_the_protocol_by_hand() -> None:
    pairs = [(0, 0), (1, 1), (0, 2), (0, 0), (1, 3), (0, 3), (1, 1)]
    cut = cut_at([0, 0, 0, 1, 1, 1, 1])
    events = make_stream(source=table(pairs), cut=cut, history=2, heldout=0.0, validation=0.0)
    known = np.array([False, True, True, True])  # item 4 (raw i3) came with increment 1
    rows = events.test_examples(1, heldout=False, trained_until=0, known={"item": known}, inputs=("history",))
    assert rows.event.tolist() == [3, 4, 5, 6]
    assert rows.label.tolist() == [1, 4, 4, 2]
    assert histories_of(events, rows) == [[1, 3], [0, 2], [3, 1], [0, 2]]  # event 4, of an unseen item, is taken out
    dropped = make_stream(
        source=table(pairs), cut=cut, history=2, heldout=0.0, validation=0.0, unseen_items="drop", exclude_seen=True
    )
    rows = dropped.test_examples(1, heldout=False, trained_until=0, known={"item": known}, inputs=("history",))
    assert len(rows) == 0  # two are of an unseen item, two repeat the user's own
    longer = make_stream(source=table(pairs), cut=cut, history=2, heldout=0.0, validation=0.0, minimum_history=2)
    rows = longer.test_examples(1, heldout=False, trained_until=0, known={"item": known})
    assert rows.event.tolist() == [3, 5]
    assert rows.past.shape == (2, 0)
    assert events.notes == ("a note",)


def test_an_update_may_stop_by_the_first_events_of_the_increment_after_it() -> None:
    """They are not tested, and train with their own increment; no strategy keeps them."""
    pairs = [(n % 2, n) for n in range(10)]  # 3 events of the base part, then 5, then 2
    events = make_stream(
        source=table(pairs), cut=cut_at([0] * 3 + [1] * 5 + [2] * 2), validation=0.5, validate_on="next"
    )
    assert np.flatnonzero(events.validation).tolist() == [3, 4, 8]
    assert "updates stop by the increment after them (data.validate_on=next): it uses the future" in events.all_notes
    for t, trained, validated, tested in ((0, [0, 1, 2], [3, 4], []), (1, [3, 4, 5, 6, 7], [8], [5, 6, 7])):
        assert events.trained_on(range(t, t + 1), validation=False).tolist() == trained
        assert events.trained_on(range(t, t + 1), validation=True).tolist() == validated
        assert not t or events.tested_on(t, heldout=False, trained_until=t - 1).tolist() == tested
    assert events.trained_on(range(2), validation=True).tolist() == [8]  # of what comes after them all
    assert events.trained_on(range(2, 3), validation=True).tolist() == []
    assert events.trained_on(range(0), validation=True).tolist() == []
    rows = events.training_examples(range(1, 2), validation=True)
    assert rows.label.tolist() == [9]


def test_a_validation_on_the_next_increment_reads_of_a_history_what_its_test_reads() -> None:
    """User 0 has items 0, 1, 2 and then, in the increment to come, the new 3, the known 1 and 4."""
    pairs = [(0, 0), (0, 1), (0, 2), (1, 2), (0, 3), (0, 1), (0, 4), (1, 4), (1, 0), (1, 1)]
    given: dict[str, Any] = {"source": table(pairs), "cut": cut_at([0] * 4 + [1] * 6), "validation": 0.5, "history": 4}
    events = make_stream(**given, validate_on="next")
    assert np.flatnonzero(events.validation).tolist() == [4, 5, 6]
    rows = events.training_examples(range(1), validation=True, inputs=["history"])
    known = {"item": np.bincount(events.label[:4], minlength=6) > 0}
    tested = make_stream(**given).test_examples(1, heldout=False, trained_until=0, known=known, inputs=["history"])
    assert histories_of(events, rows) == histories_of(events, tested)[:3] == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 2]]
    # Where all items are known there is nothing to leave out.
    events = make_stream(**given, validate_on="next", unseen_items="known")
    rows = events.training_examples(range(1), validation=True, inputs=["history"])
    assert histories_of(events, rows) == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 2]]


def test_what_was_had_in_the_tested_increment_may_stay_in_its_rankings() -> None:
    pairs = [(0, 0), (1, 1), (0, 2), (0, 3), (1, 4), (0, 5), (1, 6)]
    given: dict[str, Any] = {"source": table(pairs), "cut": cut_at([0, 0, 1, 1, 1, 2, 2]), "validation": 0.0}
    asked: Any = np.array([2, 3, 4, 5, 6], np.int32)
    found = {}
    for rule in (True, "earlier"):
        log, start, stop = make_stream(**given, exclude_seen=rule).seen_by(asked, heldout=True)
        found[rule] = [log[a:b].tolist() for a, b in zip(start, stop, strict=True)]
    assert found[True] == [[1], [1, 3], [2], [1, 3, 4], [2, 5]]
    assert found["earlier"] == [[1], [1], [2], [1, 3, 4], [2, 5]]


def test_items_of_heldout_events_alone_are_unseen() -> None:
    events = make_stream(
        source=table([(0, 0), (0, 1), (1, 2), (1, 1), (0, 2), (1, 3)]),
        cut=cut_at([0, 0, 0, 1, 1, 1]),
        heldout=0,
        validation=0,
        unseen_items="drop",
    )
    events = replace(events, heldout=np.array([False, False, True, False, False, False]))
    known = np.ones(5, bool)
    for until, kept in ((0, [3]), (1, [3, 4, 5]), (-1, [])):  # i2 is trained on in increment 1 only
        rows = events.test_examples(1, heldout=False, trained_until=until, known={"item": known})
        assert rows.event.tolist() == kept


def test_a_history_crosses_increments_and_holds_the_last_events() -> None:
    events = make_stream(
        source=table([(0, i) for i in range(6)]), cut=cut_at([0, 0, 1, 1, 2, 2]), history=3, heldout=0, validation=0
    )
    rows = events.training_examples([2], validation=False, inputs=("history",))
    assert histories_of(events, rows) == [[2, 3, 4], [3, 4, 5]]


@pytest.mark.parametrize(("length", "number"), [(1, 5), (2, 1), (4, 4), (4, 23), (9, 40)])
def test_histories_cut_by_runs_are_prefixes_of_one_another_and_none_is_lost(length: int, number: int) -> None:
    """One user's events in two increments; every window against its rule, counted by hand."""
    events = make_stream(
        source=table([(0, i) for i in range(number + 1)]),
        cut=cut_at([int(i > number // 2) for i in range(number + 1)]),
        history=length,
        heldout=0,
        validation=0,
    )
    increments = [*range(len(events))]

    def windows(of: list[int], by_run: bool, stream: Stream = events) -> list[list[int]]:
        rows = stream.training_examples(of, validation=False, inputs=("history",), by_run=by_run)
        return [[item for item in row if item] for row in histories_of(stream, rows)]

    separate, by_run = windows(increments, False), windows(increments, True)
    past = windows([0], True, events.prefix(0))  # nothing is read of what comes later
    assert past == by_run[: len(past)]
    items = events.interactions.item.tolist()
    turn, begins, expected = length - length // 4, 0, []
    for k in range(1, number + 1):  # k events before
        begins += turn * (k - begins > length)
        expected.append(items[begins:k])
    assert by_run == expected
    assert by_run[:length] == separate[:length]
    assert all(length // 4 < len(row) <= length for row in by_run[length:])
    later = windows(increments[-1:], True)  # an increment's windows are those of the whole stream
    assert later == by_run[-len(later) :]


# -- parts -------------------------------------------------------------------------------------------------------------


def test_held_out_and_validation_never_overlap() -> None:
    pairs = [(i % 7, i % 11) for i in range(400)]
    events = make_stream(source=table(pairs), cut=cutting.equal_counts(increments=3, base=0.25), heldout=0.3)
    assert not (events.heldout & events.validation).any()
    assert [int(events.heldout[slice(*events.bounds(t))].sum()) for t in range(4)] == [30] * 4
    assert events.validation.sum() > 0
    again = make_stream(source=table(pairs), cut=cutting.equal_counts(increments=3, base=0.25), heldout=0.3)
    np.testing.assert_array_equal(events.heldout, again.heldout)
    other = make_stream(source=table(pairs), cut=cutting.equal_counts(increments=3, base=0.25), heldout=0.3, seed=1)
    assert (events.heldout != other.heldout).any()


def test_a_stream_until_an_increment_is_its_prefix() -> None:
    pairs = [(i % 7, i % 11 + i // 100) for i in range(400)]
    protocol: dict[str, Any] = {"cut": cutting.equal_counts(increments=3, base=0.25), "heldout": 0.3}
    whole, short = make_stream(source=table(pairs), **protocol), make_stream(source=table(pairs), **protocol, until=2)
    assert len(short) == 3
    for field in fields(whole):
        one, other = getattr(short, field.name), getattr(whole.prefix(2), field.name)
        if field.name == "interactions":
            one, other = one.item, other.item
        if field.name == "features":
            one, other = short.spec, whole.prefix(2).spec
        np.testing.assert_equal(one, other, field.name)


def test_what_comes_later_moves_nothing_before_the_end() -> None:
    """With as many events, once they are cleaned, and the same last day."""
    rng = np.random.default_rng(0)
    head = [(int(u), int(i)) for u, i in zip(rng.integers(0, 30, 345), rng.integers(0, 100, 345), strict=True)]
    times = sorted(rng.integers(0, 30 * 86_400, 400).tolist())  # the last of them ends the stream
    tails = [[(30 + n % 5, base + n) for n in range(55)] for base in (0, 500)]  # known items; new ones alone
    cuts = cutting.equal_counts(increments=4, base=0.5), cutting.calendar(interval="1w", base=0.5)
    steps: dict[str, Any] = {"duplicates": "first", "minimum_rating": 2.0, "before": "1970-01-31"}
    for cut in cuts:
        for ties in ("strict", "item", "hash"):
            one, other = (
                make_stream(source=rated(head + tail, times), cut=cut, ties=ties, cleaning=cleaning(**steps), until=1)
                for tail in tails
            )
            assert len(one) == 2
            assert len(one.interactions) > 200
            for field in fields(one):
                if field.name in ("interactions", "cleaning", "notes", "features"):
                    continue
                np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name), field.name)
            assert one.spec == other.spec
            for name in ("user", "item", "time", "rating", "users", "items"):
                np.testing.assert_equal(getattr(one.interactions, name), getattr(other.interactions, name), name)


def rated(pairs: list[tuple[int, int]], times: list[int]) -> Table:
    made = table(pairs, times)
    return made._replace(frame=made.frame.with_columns(rating=pl.Series([3.0] * len(pairs), dtype=pl.Float32)))


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"k_core": 2}, "2-core"),
        ({"minimum_session": 2}, "sessions of at least 2"),
        ({"duplicates": "last"}, "duplicates: last"),
    ],
)
def test_a_cleaning_that_reads_on_is_refused_where_the_stream_ends_early(step: dict[str, Any], named: str) -> None:
    source = table([(i % 7, i % 11) for i in range(400)])
    protocol: dict[str, Any] = {"cut": cutting.equal_counts(increments=3), "cleaning": cleaning(**step)}
    assert len(make_stream(source=source, **protocol)) == 4
    with pytest.raises(UserError, match=rf"data\.until=2: the cleaning step '{named}' reads events after increment 2"):
        make_stream(source=source, **protocol, until=2)


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heldout": 1.0}, "heldout=1.0: expected a number >= 0 and < 1"),
        ({"heldout": -0.1}, "heldout=-0.1"),
        ({"validation": 1.5}, "validation=1.5: expected a number >= 0 and < 1"),
        ({"history": 0}, "history=0: expected a whole number >= 1"),
        ({"history": 3, "minimum_history": 4}, r"data\.minimum_history=4: expected 0 to data\.history=3"),
        ({"minimum_history": -1}, "minimum_history=-1: expected a whole number >= 0"),
        ({"unseen_items": "dropped"}, r"data\.unseen_items='dropped': expected miss, drop, listed or known"),
        ({"ties": "id"}, r"data\.ties='id': expected one of strict, file, item, hash"),
        ({"until": 2}, r"data\.until=2: expected an increment of the stream, 1 to 1"),
        ({"until": 0}, "until=0: expected a whole number >= 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_stream(source=table([(0, 0), (0, 1)]), cut=cut_at([0, 1]), **arguments)


def test_a_cut_may_end_early_and_cleaning_is_reported() -> None:
    pairs = [(0, 0), (0, 0), (0, 1), (1, 2), (1, 3), (1, 4)]
    events = make_stream(
        source=table(pairs), cut=lambda _: (np.array([0, 1], np.int32), ()), cleaning=cleaning(duplicates="first")
    )
    assert len(events) == 2
    assert events.interactions.items == ["", "i0", "i1"]
    assert [(step.removed, step.remaining) for step in events.cleaning] == [(1, 5)]


def test_an_event_without_an_id_of_a_kind_stays_history() -> None:
    """As in training: only ids that the model does not know take an event out of what was before."""
    table = lab.simulated()
    shop = pl.Series("shop", ["" if row % 2 else "a" for row in range(len(table.frame))])
    stream = lab.stream(table._replace(frame=table.frame.with_columns(shop), kinds=("shop",)))
    shops: Any = np.array([False, True])  # as a catalogue has them: id 0 is padding
    users = np.unique(stream.interactions.user)[:9]
    for known in ({"shop": shops}, {"shop": ~shops & False}):
        rows = stream.test_examples(1, heldout=False, trained_until=0, known=known, inputs=("history",))
        everything = stream.test_examples(1, heldout=False, trained_until=0, known={}, inputs=("history",))
        last, whole = stream.latest(users, known), stream.latest(users, {})
        same = np.array_equal(rows.past, everything.past), np.array_equal(last.past, whole.past)
        assert same == ((True, True) if known["shop"].any() else (False, False))
