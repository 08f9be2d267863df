"""The rules of a protocol, on streams made by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from incremental.data.stream import Stream, make_stream
from tests.data.streams import (
    cut_at,
    histories_of,
    table,
)


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


@pytest.mark.parametrize(("unseen", "kept"), [("miss", []), ("known", [3])])
def test_an_item_that_is_known_from_the_start_counts_in_a_history(unseen: Any, kept: list[int]) -> None:
    given: dict[str, Any] = {"source": table([(0, 0), (0, 1), (1, 2), (1, 0)]), "cut": cut_at([0, 0, 1, 1])}
    events = make_stream(**given, validation=0.0, minimum_history=1, unseen_items=unseen)
    assert events.tested_on(1, heldout=False, trained_until=0).tolist() == kept


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
    held = make_stream(
        source=table(pairs), cut=cut_at([0] * 3 + [1] * 7), heldout=0.8, validation=0.5, validate_on="next"
    )
    assert not (held.validation & held.heldout).any()


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
