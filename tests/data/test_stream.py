"""A stream's rows against a naive reference."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.data.interactions import encode
from incremental.data.stream import Stream
from incremental.data.ties import Ties
from tests.data.streams import (
    histories_of,
    history_of,
    numbered,
    past_of,
    streams,
    table,
)


@pytest.mark.parametrize("ties", get_args(Ties))
def test_these_streams_are_encoded_as_all_are(ties: Ties) -> None:
    events = table([(1, 2), (0, 1), (1, 0), (0, 2), (2, 1), (1, 1)], [0, 1, 1, 1, 2, 2])
    one, other = numbered(events, ties), encode(events, ties)
    for name, own in vars(replace(one, line=other.line)).items():
        np.testing.assert_equal(own, getattr(other, name), name)
        assert getattr(own, "dtype", None) == getattr(getattr(other, name), "dtype", None)


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
