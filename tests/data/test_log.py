"""A live log as a source: its cuts are the increments, and its beginning is the beginning of its stream."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incremental.data.cutting import given_periods
from incremental.data.kept import columns
from incremental.data.sources.log import log
from incremental.data.stream import Stream, make_stream
from incremental.data.text import hashed_words
from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.place import open_log
from incremental.log.records import Choice, Cut, Event, Record, Title
from incremental.log.sqlite import SQLite

Told = Callable[[str, object], None]
RECORDS: list[Record] = [
    Event("e1", "ann", "tea", time=1_700_000_000.25),
    Event("e2", "bob", "NA", time=1_700_000_010.0, type="buy", fields={"shop": "north", "page": "3"}),
    Choice("c1", "main", None, 1_700_000_011.0),
    Event("e3", "ann", "NA", time=1_700_000_005.5),  # sent late: it counts from when it came
    Cut(0, 4, "count", 1_700_000_012.0),
    Event("e4", "cid", "tea", time=1_700_000_020.000001),
    Event("e5", "bob", "pie", time=1_700_000_021.0, fields={"shop": "south"}),
    Cut(1, 7, "drift", 1_700_000_022.0),
    Event("e6", "ann", "jam", time=1_700_000_030.0),
    Cut(2, 9, "seconds", 1_700_000_031.0),
    Event("e7", "dot", "jam", time=1_700_000_040.0),
]


E1, E2, _, E3, _, E4, E5, _, E6 = RECORDS[:9]
TITLED: list[Record] = [
    *(E1, Title("tea", "Green tea"), E2, E3, Cut(0, 4, "count", 1.0)),
    *(E4, E5, Title("pie", "Apple pie"), Cut(1, 7, "count", 1.0)),
    *(E6, Title("jam", "Plum jam"), Title("jams", "Cherry jam"), Cut(2, 11, "count", 1.0)),
]


def written(path: Path, records: Sequence[Record] = RECORDS) -> str:
    made = open_log(str(path), create=True)
    made.append(records)
    made.close()
    return str(path)


def stream(path: str) -> Stream:
    return make_stream(source=log(path=path, kinds={"shop": "shop"}), cut=given_periods(), ties="file", history=5)


def test_the_stream_of_a_log(tmp_path: Path) -> None:
    made = stream(written(tmp_path / "log.sqlite"))
    found = made.interactions
    assert made.increment.tolist() == [0, 0, 0, 1, 1, 2]
    assert found.users == ["", "ann", "bob", "cid"]
    assert found.items == ["", "tea", "NA", "pie", "jam"]
    assert found.user.tolist() == [1, 2, 1, 3, 2, 1]
    assert found.item.tolist() == [1, 2, 2, 1, 3, 4]
    assert (found.time - 1_700_000_000).tolist() == [0, 10, 10, 20, 21, 30]  # a running maximum
    assert found.fraction.tolist() == [250_000_000, 0, 0, 1000, 0, 0]
    assert found.behaviours == ("interaction", "buy")
    assert found.further["shop"].ids.tolist() == [0, 1, 0, 0, 2, 0]
    assert found.line is not None
    assert found.line.tolist() == [1, 2, 4, 6, 7, 9]
    assert made.all_notes[0] == f"{tmp_path}/log.sqlite: the last 1 events are in no increment yet, and left out"


@pytest.mark.parametrize(("last", "increments"), [(8, 2), (10, 3)])
def test_a_log_cut_short_is_the_beginning_of_its_stream(tmp_path: Path, last: int, increments: int) -> None:
    """The second event's type, and the kind of ids, are there in the whole log only for the shortest one."""
    whole = stream(written(tmp_path / "whole.sqlite"))
    short = stream(written(tmp_path / "short.sqlite", RECORDS[:last]))
    assert len(short) == increments
    beginning = whole.prefix(increments - 1)
    for name, values in columns(beginning.interactions).items():
        np.testing.assert_array_equal(values, columns(short.interactions)[name], name)
    assert beginning.interactions.items == short.interactions.items
    assert beginning.interactions.users == short.interactions.users
    assert beginning.interactions.behaviours == short.interactions.behaviours
    assert beginning.interactions.further["shop"].names == short.interactions.further["shop"].names
    np.testing.assert_array_equal(beginning.increment, short.increment)
    np.testing.assert_array_equal(beginning.validation, short.validation)


def test_a_type_or_a_field_that_comes_later_changes_no_column(tmp_path: Path) -> None:
    plain: list[Record] = [
        Event("a", "u", "x", time=1.0),
        Cut(0, 1, "count", 2.0),
        Event("b", "u", "y", time=3.0),
        Cut(1, 3, "count", 4.0),
    ]
    more: list[Record] = [
        *plain,
        Event("c", "u", "y", time=5.0, type="buy", fields={"shop": "s"}),
        Cut(2, 5, "count", 6.0),
    ]
    short, whole = stream(written(tmp_path / "a", plain)), stream(written(tmp_path / "b", more))
    assert columns(short.interactions).keys() == columns(whole.interactions).keys()


def version_3(path: Path) -> str:
    written(path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 3")
    database.close()
    return str(path)


def foreign(path: Path) -> str:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE records (offset INTEGER)")
    database.close()
    return str(path)


def no_database(path: Path) -> str:
    path.write_text("user,item,time\n" * 100, encoding="utf-8")
    return str(path)


def halved(path: Path) -> str:
    written(path, [Event(f"e{i}", "u" * 200, f"i{i}", time=1.0) for i in range(100)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return str(path)


ONE: list[Record] = [Event("a", "u", "x", time=1.0), Event("b", "v", "x", time=1.0), Cut(0, 1, "count", 1.0)]
BAD: dict[str, Callable[[Path], str]] = {
    "a live log that is not there": str,
    "a log that is a folder": lambda path: str(path.parent),
    "a log that is another program's database": foreign,
    "a log that is no database": no_database,
    "a log of another version": version_3,
    "a log whose file ends early": halved,
    "a log without events": lambda path: written(path, []),
    "a log without a cut": lambda path: written(path, RECORDS[:4]),
    "a log with a base part only": lambda path: written(path, RECORDS[:5]),
    "a log of one item": lambda path: written(path, [*ONE, Cut(1, 2, "count", 1.0)]),
    "cuts of two learners in one log": lambda path: written(path, [*ONE, Cut(2, 2, "count", 1.0)]),
    "a log's place without a port": lambda _: "nats://here/events",
    "a log's place without a name": lambda _: "kafka://localhost:9092",
    "a log's place with a password": lambda _: "nats://ann:secret@localhost:4222/live",
    "a log of an unknown kind": lambda _: "redis://localhost:6379/events",
}


@pytest.mark.parametrize("situation", BAD)
def test_what_is_no_stream_of_a_log_is_refused(tmp_path: Path, situation: str, documented: Told) -> None:
    with pytest.raises(UserError) as error:
        stream(BAD[situation](tmp_path / "log.sqlite"))
    documented(situation, error.value)


def test_the_config_reads_it(tmp_path: Path) -> None:
    from incremental.app.config import build
    from tests.test_configs import composed

    values: dict[str, Any] = composed("data=log", f"data.source.path={written(tmp_path / 'log.sqlite')}")["data"]
    made = build({**values, "heldout": 0.0}, "data")
    assert len(made) == 3
    assert made.ties == "file"


def test_a_log_in_a_folder_that_cannot_be_written_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Told
) -> None:
    """An archive, or another user's: no file comes beside it, not even for a moment."""
    path = Path(written(tmp_path / "a log.sqlite"))
    monkeypatch.setattr("os.access", lambda *_: False)
    engine = open_log(str(path))
    assert len(engine.read(0, 100)) == len(RECORDS)
    assert [one.name for one in tmp_path.iterdir()] == ["a log.sqlite"]
    with pytest.raises(UserError) as error:
        engine.append(RECORDS)
    engine.close()
    documented("an event for a log that cannot be written", error.value)


def test_reading_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The file's bytes are part of a run's identity."""
    path = Path(written(tmp_path / "log.sqlite"))
    before = path.read_bytes()
    SQLite(path).close()
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["log.sqlite"]


def test_events_in_columns_say_what_the_events_said() -> None:
    shops = [None, "a", None, "b", "a", None]
    given = [
        (3 * n, Event(f"e{n}", f"u{n % 2}", f"i{n % 3}", time=float(n), fields={"shop": shop} if shop else {}))
        for n, shop in enumerate(shops, 1)
    ]
    kept = Events(given)
    for n in range(len(given) + 1):
        assert kept.users.words(n).to_list() == [event.user for _, event in given[:n]]
        assert kept.field("shop", n).to_list() == shops[:n]
        assert kept.field("price", n).to_list() == [None] * n
    assert [kept.until(offset) for offset in (0, 3, 5, 18, 99)] == [0, 1, 1, 6, 6]


def test_a_title_counts_from_the_increment_that_its_item_comes_in(tmp_path: Path) -> None:
    """The first title of jam comes behind its first event, before the end of that increment; that of pie behind it."""
    records = [*TITLED]
    made = stream(written(tmp_path / "log.sqlite", records))
    assert made.interactions.items == ["", "tea", "NA", "pie", "jam"]
    assert made.interactions.titles == ["", "Green tea", "", "", "Plum jam"]
    short = stream(written(tmp_path / "short.sqlite", records[:9]))
    assert short.interactions.titles == made.prefix(1).interactions.titles == ["", "Green tea", "", ""]
    records[-1] = Cut(2, 10, "count", 1.0)
    assert stream(written(tmp_path / "late.sqlite", records)).interactions.titles == ["", "Green tea", "", "", ""]


def test_texts_of_a_log_without_titles_are_empty_and_that_is_said(tmp_path: Path) -> None:
    """It is not refused: a live loop begins before the first title may come, and a run on its log is the same."""
    source = log(path=written(tmp_path / "log.sqlite"))
    made = make_stream(source=source, cut=given_periods(), ties="file", text=hashed_words(width=4))
    assert not made.interactions.side["text"].values.any()
    said = f"data.text: no item of {tmp_path}/log.sqlite has a title, so that all texts are empty"
    assert said in made.all_notes


def test_an_older_log_is_read_and_takes_titles(tmp_path: Path) -> None:
    """Whoever may write to it makes it one that older code refuses; a reader leaves it as it is."""
    path = Path(written(tmp_path / "log.sqlite"))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 1")
    database.close()
    before = path.read_bytes()
    stream(str(path))
    assert path.read_bytes() == before
    made = open_log(str(path), create=True)
    made.append([Title("tea", "Green tea")])
    made.close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
    database.close()
