"""What is before what among events of one user at the same time."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from incremental.app.cli import config_folder
from incremental.data.cleaning import cleaning
from incremental.data.cutting import calendar
from incremental.data.features import before
from incremental.data.interactions import Table, encode
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.mind import mind
from incremental.data.sources.movielens import ratings_dat
from incremental.data.stream import Stream, make_stream
from incremental.data.ties import Ties

LOG = [("u", "9", 0), ("u", "30", 5), ("u", "x", 5), ("v", "30", 5), ("u", "4", 5), ("u", "30", 7)]
KNOWN = np.ones(9, bool)


def table(rows: list[tuple[str, str, int]]) -> Table:
    return Table(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), "log.csv")


def made(ties: Ties, log: list[tuple[str, str, int]] = LOG, **protocol: Any) -> Stream:
    """The cut lies within a tie."""
    cut = lambda events: (np.array([0, 0, 0, 1, 1, 1], np.int32)[: len(events)], ())  # noqa: E731
    settings = {"history": 3, "heldout": 0.0, "validation": 0.0, **protocol}
    return make_stream(source=table(log), cut=cut, ties=ties, **settings)


def told(stream: Stream) -> list[tuple[str, str, str]]:
    """(user, item, history) of each event, raw ids."""
    every = [
        stream.test_examples(t, heldout=False, trained_until=t, known={"item": KNOWN}, inputs=("history",))
        for t in range(len(stream))
    ]
    names, users = stream.interactions.items, stream.interactions.users
    return [
        (users[user], names[label], " ".join(names[i] for i in history if i))
        for rows in every
        for user, label, history in zip(rows.user, rows.label, before(stream.interactions.item, rows), strict=True)
    ]


STRICT = [
    ("u", "9", ""),
    ("u", "30", "9"),
    ("u", "x", "9"),
    ("v", "30", ""),
    ("u", "4", "9"),
    ("u", "30", "30 x 4"),
]


def test_histories_by_hand() -> None:
    assert told(made("strict")) == STRICT
    # As the file has it.
    file = ["", "9", "9 30", "", "9 30 x", "30 x 4"]
    assert told(made("file")) == [(user, item, past) for (user, item, _), past in zip(STRICT, file, strict=True)]
    # 4 is before 30, and numbers are before text.
    assert told(made("item")) == [
        ("u", "9", ""),
        ("u", "4", "9"),
        ("u", "30", "9 4"),
        ("v", "30", ""),
        ("u", "x", "9 4 30"),
        ("u", "30", "4 30 x"),
    ]


def test_what_a_user_has_had_is_strictly_before_too() -> None:
    pasts: dict[Ties, str] = {"strict": "9", "file": "9 30 x"}
    for ties, had in pasts.items():
        stream = made(ties)
        rows = stream.test_examples(1, heldout=False, trained_until=0, known={"item": KNOWN})
        log, start, stop = stream.seen_by(rows.event, heldout=True)
        assert " ".join(stream.interactions.items[i] for i in log[start[1] : stop[1]]) == had


def test_an_item_is_repeated_where_it_was_had_at_an_earlier_time() -> None:
    twice = [("u", "a", 0), ("u", "b", 1), ("u", "b", 1), ("u", "a", 1), ("v", "a", 1), ("u", "b", 2)]
    first: dict[Ties, list[int]] = {"strict": [0, 1, 2, 4], "file": [0, 1, 4]}
    for ties, kept in first.items():
        stream = made(ties, twice, exclude_seen=True)
        parts = [
            stream.test_examples(t, heldout=False, trained_until=t, known={"item": KNOWN}) for t in range(len(stream))
        ]
        assert [event for rows in parts for event in rows.event.tolist()] == kept


def test_the_least_history_counts_what_is_before() -> None:
    long_enough: dict[Ties, list[int]] = {"strict": [5], "file": [4, 5]}
    for ties, kept in long_enough.items():
        stream = made(ties, minimum_history=2)
        rows = stream.test_examples(1, heldout=False, trained_until=0, known={"item": KNOWN})
        assert rows.event.tolist() == kept


@pytest.mark.parametrize("ties", ["item", "hash"])
def test_the_order_of_the_file_says_nothing(ties: Ties) -> None:
    distinct = [(user, item, time) for user in "uv" for item in ("9", "10", "x", "7", "w") for time in (3, 4)]
    rng = np.random.default_rng(0)
    orders = [encode(table([distinct[i] for i in rng.permutation(len(distinct))]), ties) for _ in range(5)]
    read = [[(one.users[u], one.items[i]) for u, i in zip(one.user, one.item, strict=True)] for one in orders]
    if ties == "item":  # of two rows that share the item, the file's first one
        read = [[item for _, item in rows] for rows in read]
        assert read[0] == [item for item in ("7", "9", "10", "w", "x") for _ in "uv"] * 2
    assert all(rows == read[0] for rows in read)


def test_a_hash_is_drawn_anew_for_each_user_and_time() -> None:
    rows = [(str(user), item, time) for user in range(50) for time in range(20) for item in "ab"]
    drawn = encode(table(rows), "hash")
    names = np.array(drawn.items)[drawn.item]
    first: dict[tuple[int, int], str] = {}
    for user, time, item in zip(drawn.user.tolist(), drawn.time.tolist(), names, strict=True):
        first.setdefault((user, time), item)
    share = np.mean([item == "a" for item in first.values()])
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(len(first))  # four standard deviations


def test_how_many_events_are_concerned_is_noted_under_every_rule() -> None:
    said = "ties: of 4 events with an earlier one of their user 2 (50.0%) have the time of the last of these; "
    rules: dict[Ties, str] = {
        "strict": "they are no history of one another",
        "file": "the order of the file says which was before",
        "item": "the order of the item ids says which was before",
        "hash": "a hash of user, item and time says which was before",
    }
    for ties, rule in rules.items():
        assert made(ties).all_notes == (f"{said}{rule} (data.ties={ties})",)
    apart = made("strict", [(user, item, time) for time, (user, item, _) in enumerate(LOG)])
    assert apart.all_notes == ()


def test_the_files_order_breaks_ties_only_where_the_file_is_a_log_or_its_authors_read_it_so() -> None:
    rules = {file.stem: dict(OmegaConf.load(file)).get("ties") for file in (config_folder() / "data").glob("*.yaml")}
    assert {name for name, ties in rules.items() if ties == "file"} == {"amazon_games", "diginetica", "log", "rsc15"}
    assert {rules[name] for name in ("lastfm", "mind", "amazon_beauty", "movietweetings", "columns")} == {"strict"}


@pytest.mark.parametrize(
    ("name", "load", "steps", "share"),
    [
        ("lastfm-hetrec", lastfm, {"after": "2005-01-01", "duplicates": "first"}, 0.878),
        ("mind-sample", mind, {}, 0.875),
        ("movietweetings", ratings_dat, {}, 0.0),
    ],
)
def test_real_ties(name: str, load: Any, steps: Any, share: float, real_data: Path) -> None:
    source = load(path=str(real_data / name))
    found = {}
    rules: tuple[Ties, Ties] = ("file", "strict")
    for ties in rules:
        stream = make_stream(source=source, cut=calendar(interval="1d"), cleaning=cleaning(**steps), ties=ties)
        events = np.arange(len(stream.increment), dtype=np.int32)
        rows = stream._examples(events, np.ones(len(events), bool), past=True)
        order, _, first = stream._by_user
        past = stream._now[events]  # where what was before each ends; its last event is one place before
        last = order[np.maximum(past - 1, 0)]
        had = past > first[past]
        np.testing.assert_array_equal(rows.past[had, -1], last[had])
        found[ties] = (stream.interactions.time[last] == stream.interactions.time)[had].mean()
    assert round(float(found["file"]), 3) == share
    assert found["strict"] == 0


def test_events_that_are_there_twice_are_noted() -> None:
    """As where a folder has a file and its compressed copy."""

    def notes(number: int, twice: int, **more: list[int]) -> tuple[str, ...]:
        n = [*range(number), *range(twice)]
        frame = {"user": [i % 7 for i in n], "item": [i % 5 for i in n], "time": [10**9 + i for i in n]}
        return encode(Table(pl.DataFrame({**frame, **more}), "events.csv")).notes

    (_, note) = notes(150, 150)
    assert note.startswith("events.csv: 150 of 300 events are the same as another one, to the time; if events were")
    assert not [note for note in notes(500, 5) if "the same" in note]
    assert [note for note in notes(500, 6) if "the same" in note]
    assert not [note for note in notes(150, 150, behaviour=[0] * 150 + [1] * 150) if "the same" in note]
    periods = pl.DataFrame({"user": [1, 2] * 60, "item": [1, 2] * 60, "time": [0] * 120, "period": [0] * 120})
    assert not encode(Table(periods, "periods.csv")).notes
