"""What the server knows of users is what a stream of the same log says of them."""

from pathlib import Path

import numpy as np

from incremental.data.cleaning import Cleaning, cleaning
from incremental.data.cutting import given_periods
from incremental.data.features import current, history
from incremental.data.sources import log as source
from incremental.data.stream import Stream, make_stream
from incremental.log.records import Choice, Cut, Event, Record
from incremental.log.sqlite import SQLite
from incremental.serve.live.people import People

KINDS = {"shop": "s"}
LENGTH = 4


def written(folder: Path, number: int = 300) -> SQLite:
    """A log of so many events of 7 users and 40 items, with cuts, late events and a choice."""
    draws = np.random.default_rng(0)
    log = SQLite(folder / "log.sqlite", create=True)
    for n in range(number):
        fields = {"s": f"s{draws.integers(3)}"} if draws.integers(2) else {}
        record: Record = Event(
            *(f"e{n}", f"u{draws.integers(7)}", f"i{draws.integers(40)}", f"t{draws.integers(3)}"),
            time=1e9 + n / 8 - int(draws.integers(5)),
            fields=fields,
        )
        log.append([record])
        if n == 150:
            log.append([Cut(0, 100, "count", 1e9), Choice("c", "champion", None, 1e9)])
    log.append([Cut(1, log.last(), "count", 1e9)])
    return log


def stream_of(log: SQLite, steps: Cleaning | None = None) -> Stream:
    return make_stream(
        source=source.log(path=str(log.path), kinds=KINDS),
        cut=given_periods(),
        history=LENGTH,
        ties="file",
        cleaning=steps,
        features={"shops": history(length=LENGTH, kind="shop")},
    )


def test_histories_and_numbers_are_those_of_the_stream(tmp_path: Path) -> None:
    log = written(tmp_path)
    stream, people = stream_of(log), People(log, LENGTH, KINDS)
    people.follow()
    assert people.names == stream.interactions.items
    assert list(people.users) == stream.interactions.users[1:]
    assert list(people.types) == list(stream.interactions.behaviours)
    users = np.array([0, *people.users.values()], np.int32)
    asked = [people.ask(name) for name in ["nobody", *people.users]]
    some = np.arange(38) % 19 > 0  # the model knows these items: more than L of the last 2 L
    for known in ({}, {"item": some}, {"item": some, "shop": np.array([True, True, True, False])}):
        theirs = stream.latest(users, known)
        ours_log, ours = people.examples(asked, len(users), known)
        for name in ("user", "history", "shops"):
            feature = stream.features[name]
            np.testing.assert_array_equal(feature.of(ours_log, ours), feature.of(stream.interactions, theirs), name)
        past = ours.past[ours.past >= 0]
        np.testing.assert_array_equal(ours_log.time[past], stream.interactions.time[theirs.past[theirs.past >= 0]])
    for number, each in enumerate(asked):
        assert set(each.had.tolist()) == set(stream.items_of(number).tolist() if number else [])
    assert current(kind="shop").input.kind == "shop"


def test_only_the_types_that_are_learnt_count_and_all_of_them_tell_the_time(tmp_path: Path) -> None:
    log = written(tmp_path)
    people, stream = People(log, LENGTH, only=("t1",)), stream_of(log, cleaning(behaviours=["t1"], missing="keep"))
    people.follow()
    assert list(people.types) == ["t1"]
    assert people.events == len(stream.interactions) < 300
    numbers = np.arange(1, 1 + len(people.users), dtype=np.int32)
    theirs, (ours_log, ours) = (
        stream.latest(numbers, {}),
        people.examples([people.ask(name) for name in people.users], len(numbers), {}),
    )
    past, their_past = ours.past[ours.past >= 0], theirs.past[theirs.past >= 0]
    np.testing.assert_array_equal(ours_log.time[past], stream.interactions.time[their_past])
    assert people.latest == stream.interactions.time[-1] + stream.interactions.fraction[-1] / 1e9


def test_memory_depends_on_users_and_items_and_not_on_events(tmp_path: Path) -> None:
    people = People(written(tmp_path), LENGTH, KINDS)
    people.follow()
    row = people.dtype.itemsize
    assert max(len(each.recent) for each in people.people) <= 4 * LENGTH * row
    for _ in range(2000):
        people._take(1000, Event("e", "u0", "i1", time=2e9))
    person = people.people[people.users["u0"]]
    assert len(person.had) <= 2 * 40 + 64
    assert len(person.recent) <= 4 * LENGTH * row


def test_cuts_say_what_was_learnt(tmp_path: Path) -> None:
    """Cut 0 ends at offset 100, and comes after 151 events; cut 1 seals all."""
    people = People(written(tmp_path), LENGTH)
    people.follow()
    assert [(each.number, each.until, each.events) for each in people.sealed] == [(0, 100, 100), (1, 302, 300)]
    assert people.learnt(100).events == 100
    assert people.learnt(301).events == 100
    assert people.learnt(50)[1:4] == (0, 0, people.first)
    assert people.sealed[1].latest == people.latest
    assert len(people.open[0]) == 0
    assert people.choice is not None


def test_what_others_write_is_followed(tmp_path: Path) -> None:
    log = written(tmp_path)
    people = People(log, LENGTH)
    people.follow()
    other = SQLite(log.path)
    (place,) = other.append([Event("late", "new", "i1", time=1.0)])
    people.follow(place.offset)
    assert people.ask("new").number == 8
