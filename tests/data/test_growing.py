"""A stream that grew by parts, and let go of events, is read like the one that was made of all events at once."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.core.spec import Sizes
from incremental.data.growing import Numbers, joined, numbered, of_histories, released
from incremental.data.interactions import Table
from incremental.data.past import NOTHING
from incremental.data.stream import Stream, make_stream
from incremental.data.text import hashed_words
from incremental.run.feed import Feed
from incremental.run.reading import field_of
from tests.data import streams

PARTS = 7
ALL = "history", "user"


def table(seed: int) -> Table:
    """120 events of 6 users, 20 items and 5 shops in seven parts. Three have one time; the last part begins within
    such a tie."""
    draws = np.random.default_rng(seed)
    n = np.arange(120)
    shops = [None if draw == 0 else f"shop{draw}" for draw in draws.integers(0, 6, 120)]
    frame = pl.DataFrame(
        {
            "user": [f"u{user}" for user in draws.integers(0, 6, 120)],
            "item": [f"i{item}" for item in draws.integers(0, 3 + n // 7)],
            "behaviour": np.array(["view", "buy", "cart"])[np.minimum(draws.integers(0, 3, 120), n // 50)],
            "time": n // 3,
            "period": np.where(n < 113, n // 3 * 3 * PARTS // 120, PARTS - 1),
            "shop": shops,
            "line": n,
        },
        schema_overrides={"time": pl.Int64, "period": pl.Int32, "shop": pl.String, "line": pl.Int64},
    )
    return Table(frame, "hand-made", kinds=("shop",))


def whole(given: Table, **rules: Any) -> Stream:
    return make_stream(source=given, cut=lambda log: (log.period, ()), history=4, **rules)  # type: ignore[arg-type, return-value]


def grown(given: Table, let_go: Any, **rules: Any) -> Stream:
    """The stream by parts; behind part t, `let_go(t)` is the increment before which events are let go of."""
    numbers: Numbers = {}
    made: Stream | None = None
    for t, part in enumerate(given.frame.partition_by("period", maintain_order=True)):
        own = whole(given._replace(frame=part, part=t > 0), **rules)
        if made is not None:  # what is tried and dropped leaves no trace
            joined(made, whole(given._replace(frame=part[len(part) // 2 :], part=True), **rules), numbers)
        made = own if made is None else joined(made, own, numbers)
        if t < PARTS - 1:
            made = released(made, let_go(t))
    assert made is not None
    return made


def of(stream: Stream, events: np.ndarray) -> list[Any]:
    """What places in a log stand for, -1 for none: its own numbers differ where events are gone."""
    log = stream.interactions
    columns = (log.user, log.item, log.time, log.further["shop"].ids, log.behaviour, stream.increment, log.line)
    return [np.where(events >= 0, column[events], -1).tolist() for column in columns if column is not None]


@pytest.mark.parametrize(
    "rules",
    [
        {"ties": "file"},
        {"ties": "strict", "heldout": 0.2},
        {"ties": "strict", "unseen_items": "drop", "minimum_history": 2, "heldout": 0.2},
    ],
)
@pytest.mark.parametrize("behind", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_comes_next_is_read_alike(rules: dict[str, Any], seed: int, behind: int) -> None:
    """Increments `until` to the last are whole; what is before them is histories."""
    given = table(seed)
    one, other = whole(given, **rules), grown(given, lambda t: max(t - behind, 0), **rules)
    until, last = max(PARTS - 2 - behind, 0), PARTS - 1
    assert other.summary.until == until
    assert len(other) == len(one) == PARTS
    assert (other.interactions.users, other.interactions.items) == (one.interactions.users, one.interactions.items)
    assert other.interactions.behaviours == one.interactions.behaviours
    assert other.interactions.vocabulary("shop") == one.interactions.vocabulary("shop")
    assert len(other.increment) < len(one.increment)
    for t in range(until, PARTS):
        for kind in ("user", "item", "shop"):
            assert other.number(kind, t) == one.number(kind, t)
        np.testing.assert_array_equal(other.trained(t), one.trained(t))
        np.testing.assert_array_equal(other.met(t), one.met(t))
        np.testing.assert_array_equal(field_of(other, "shop", t), field_of(one, "shop", t))
        for validation in (True, False, None):
            for by_run in (True, False):
                rule: Any = {"validation": validation, "inputs": ALL, "by_run": by_run}
                mine, its = one.training_examples([t], **rule), other.training_examples([t], **rule)
                assert (of(one, mine.event), of(one, mine.past)) == (of(other, its.event), of(other, its.past))
    items = np.flatnonzero(one.trained(last) > 0)
    rule = {
        "heldout": False,
        "trained_until": last - 1,
        "known": {"item": np.isin(np.arange(50), items)},
        "inputs": ALL,
    }
    mine, its = one.test_examples(last, **rule), other.test_examples(last, **rule)
    assert (of(one, mine.event), of(one, mine.past)) == (of(other, its.event), of(other, its.past))
    assert len(mine)


def test_titles_and_texts_are_those_of_the_whole_stream() -> None:
    """Some titles come with a later part than their items; they are no texts in either."""
    titles = {f"i{n}": f"tea number{n}" for n in range(0, 20, 2)}
    since = {item: place % PARTS for place, item in enumerate(titles)}
    given = table(0)._replace(text=titles, since=since)
    rules: Any = {"text": hashed_words(width=256), "ties": "file"}
    one, other = whole(given, **rules), grown(given, lambda t: t, **rules)
    assert one.interactions.titles == other.interactions.titles
    named = [title != "" for title in one.interactions.titles or []]
    assert 1 < sum(named) < len(titles)
    np.testing.assert_array_equal(one.interactions.side["text"].values.any(1), named)
    np.testing.assert_array_equal(other.interactions.side["text"].values, one.interactions.side["text"].values)
    # And so a program is given the same, though events of the newest items have been let go.
    program: Any = SimpleNamespace(sizes=Sizes(item=32), frozen=None, window=None)
    lone = released(one, PARTS - 1)
    lone = replace(lone, interactions=lone.interactions.prefix(0), increment=lone.increment[:0])
    lone = replace(lone, interactions=replace(lone.interactions, side=one.interactions.side))
    wanted = Feed(one).side(PARTS - 2, program, lambda tree: tree)["text"]
    np.testing.assert_array_equal(Feed(lone).side(PARTS - 2, program, lambda tree: tree)["text"], wanted)


def test_the_next_event_may_have_the_time_of_the_last_ones() -> None:
    """Its history is then what was before them all, which is not let go."""
    log = streams.table([(0, item) for item in range(5)], [1, 2, 3, 3, 3])
    stream = make_stream(source=log, cut=streams.cut_at([0, 0, 0, 0, 1]), history=2, validation=0.0)
    assert of_histories(stream, 1).tolist() == [True] * 4


def test_of_users_that_came_later_nothing_was_let_go() -> None:
    summary = NOTHING._replace(gone=np.array([0, 5], np.int32))
    assert summary.gone_of(np.array([1, 2, 3], np.int32)).tolist() == [5, 0, 0]


def test_an_id_of_a_part_that_was_only_tried_gets_its_own_number() -> None:
    known = {"": 0, "a": 1}
    assert numbered(["", "a"], ["", "tried", "a"], known)[0].tolist() == [0, 2, 1]
    numbers, there = numbered(["", "a"], ["", "b", "c"], known)
    assert (numbers.tolist(), there) == ([0, 2, 3], ["", "a", "b", "c"])
    numbers, there = numbered(there, ["", "c", "tried"], known)
    assert (numbers.tolist(), there) == ([0, 3, 4], ["", "a", "b", "c", "tried"])


@pytest.mark.parametrize("exclude_seen", [True, "earlier"])
def test_a_stream_that_lets_go_of_nothing_is_the_whole_stream(exclude_seen: Any) -> None:
    rules = {"exclude_seen": exclude_seen, "ties": "file", "heldout": 0.1}
    one, other = whole(table(3), **rules), grown(table(3), lambda _: 0, **rules)
    for name in ("increment", "heldout", "validation"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    for name in ("user", "item", "time", "fraction", "behaviour", "period", "line"):
        np.testing.assert_array_equal(getattr(other.interactions, name), getattr(one.interactions, name))
    tests = one.tested_on(PARTS - 1, heldout=False, trained_until=PARTS - 2)
    for mine, its in zip(one.seen_by(tests, heldout=True), other.seen_by(tests, heldout=True), strict=True):
        np.testing.assert_array_equal(mine, its)
