"""A log as Parquet files, which are the same stream, and as a second log."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from incremental.data.cleaning import cleaning
from incremental.data.cutting import given_periods
from incremental.data.kept import columns as arrays
from incremental.data.sources.columns import columns
from incremental.data.sources.log import everything, log
from incremental.data.stream import make_stream
from incremental.errors import UserError
from incremental.log.engine import Written
from incremental.log.place import open_log
from incremental.log.records import Choice, Cut, Event, Record, Served, Title
from incremental.log.sqlite import SQLite
from incremental.serve.log import main

Told = Callable[[str, object], None]
START = 1_700_000_000.25
EVENTS = [
    Event(
        f"e{n}",
        f"u{n * 7 % 5}",
        "NA" if n % 6 == 0 else f"i{n * 5 % 11}",
        time=START + n - 2.5 * (n % 3) + n * 1e-6,
        type="buy" if n % 4 == 3 else "interaction",
        fields={"shop": f"s{n % 2}"} if n % 3 else {},
        served=Served("main", n, ["i1", "i2"]) if n % 5 == 0 else None,
    )
    for n in range(40)
]


@pytest.fixture
def place(tmp_path: Path) -> str:
    records: list[Record] = []
    for n in range(4):
        records += EVENTS[n * 10 : n * 10 + (10 if n < 3 else 4)]
        records += [Title("NA", "Nothing"), Title("i5", "The 5th")] if n == 0 else []
        records += [Title("i10", "Too late")] if n == 2 else []
        records += [Cut(n, len(records), "count", START + 100)] if n < 3 else []
    made = open_log(str(tmp_path / "log.sqlite"), create=True)
    made.append(records)
    made.close()
    return str(tmp_path / "log.sqlite")


def test_the_exported_files_are_the_same_stream(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "parts"
    assert main(["export", place, "--to", str(to)]) == 0
    assert capsys.readouterr().out == f"written: {to}/increment-000000.parquet to increment-000002.parquet, 3 files\n"
    read = columns(
        path=str(to),
        behaviour="behaviour",
        period="period",
        kinds={"shop": "fields.shop"},
        time_unit="us",
        text="title",
    )
    given = {"cut": given_periods(), "ties": "file", "cleaning": cleaning(missing="keep")}
    one, other = (make_stream(source=source, **given) for source in (read, log(path=place, kinds={"shop": "shop"})))  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.increment, other.increment)
    assert one.interactions.titles == other.interactions.titles
    assert one.interactions.titles[:3] == ["", "Nothing", "The 5th"]  # type: ignore[index]
    assert arrays(one.interactions).keys() == arrays(other.interactions).keys()
    for name, values in arrays(one.interactions).items():
        np.testing.assert_array_equal(values, arrays(other.interactions)[name], name)
    for kind in one.interactions.kinds:
        assert one.interactions.vocabulary(kind) == other.interactions.vocabulary(kind)
    assert one.interactions.behaviours == other.interactions.behaviours


def test_a_full_disk_is_named(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: object) -> int:
        assert isinstance(content, bytes)  # a view of a buffer, kept by the error, ends Python 3.12.1
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["export", place, "--to", str(tmp_path / "parts")]) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_the_exported_files_say_what_was_served_and_when_it_was_sent(tmp_path: Path, place: str) -> None:
    assert main(["export", place, "--to", str(tmp_path / "parts")]) == 0
    frame = pl.read_parquet(tmp_path / "parts" / "increment-000001.parquet")
    assert frame["event_id"].to_list() == [one.event_id for one in EVENTS[10:20]]
    assert frame["offset"].to_list() == [*range(14, 24)]
    assert frame["sent"].dt.epoch("us").to_list() == [round((one.time or 0) * 1e6) for one in EVENTS[10:20]]
    assert frame["time"].is_sorted()
    assert frame["version"].to_list()[:6] == [10, None, None, None, None, 15]
    assert frame["slate"].to_list()[5] == ["i1", "i2"]


def test_nothing_is_overwritten(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str], documented: Told
) -> None:
    for situation, command in {
        "an export over an export": ["export", place, "--to", str(tmp_path / "parts")],
        "a copy over a log": ["copy", place, str(tmp_path / "copy.sqlite")],
    }.items():
        assert main(command) == 0
        before = {one: one.read_bytes() for one in tmp_path.rglob("*.*") if one.is_file()}
        capsys.readouterr()
        assert main(command) == 2
        documented(situation, capsys.readouterr().err)
        assert before == {one: one.read_bytes() for one in tmp_path.rglob("*.*") if one.is_file()}


def test_a_copy_has_the_same_records_at_the_same_offsets(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("incremental.serve.log.BLOCK", 7)
    assert main(["copy", place, str(tmp_path / "copy.sqlite")]) == 0
    one, other = open_log(place), open_log(str(tmp_path / "copy.sqlite"))
    assert everything(one) == everything(other)
    assert one.last() == other.last() == 40
    one.close()
    other.close()


def test_a_part_of_a_copy_is_no_log(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "new" / "copy.sqlite"
    to.parent.mkdir()
    monkeypatch.setattr("incremental.serve.log.BLOCK", 7)
    written: list[int] = []

    def append(self: SQLite, records: list[Record]) -> list[Written]:
        if written:
            raise UserError("database or disk is full")
        written.append(len(records))
        return whole(self, records)

    whole = SQLite.append
    monkeypatch.setattr(SQLite, "append", append)
    assert main(["copy", place, str(to)]) == 2
    assert "disk is full" in capsys.readouterr().err
    assert written
    assert not [*to.parent.iterdir()]
    monkeypatch.undo()
    (to.parent / ".copy.sqlite.new").write_text("of a copy that was killed")
    assert main(["copy", place, str(to)]) == 0
    assert [one.name for one in to.parent.iterdir()] == ["copy.sqlite"]


def test_a_copy_without_a_user_has_the_cuts_where_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first increment is of this user alone, and the copy has no such increment."""
    users = ["x", "x", "a", "x", "b", "a", "x"]
    ends = {1: 0, 4: 1, 6: 2}  # after this event ends this increment
    records: list[Record] = []
    for n, user in enumerate(users):
        records.append(Event(f"e{n}", user, f"i{n}", time=START + n))
        if n in ends:
            records += [Choice(f"c{n}", "main", None, START), Cut(ends[n], len(records), "count", START)]
    made = open_log(str(tmp_path / "log.sqlite"), create=True)
    made.append(records)
    made.close()
    place, to = str(tmp_path / "log.sqlite"), str(tmp_path / "without.sqlite")
    assert main(["copy", place, to, "--without-user", " x ", "--without-user", "never"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["copied: 8 records", "left out: 4 events of user ' x '", "left out: 0 events of user 'never'"]
    with closing(open_log(to)) as copied:
        kept = [record for _, record in copied.read(0, 100)]
    assert [one.event_id for one in kept if isinstance(one, Event)] == ["e2", "e4", "e5"]
    assert [(one.number, one.until) for one in kept if isinstance(one, Cut)] == [(0, 3), (1, 6)]
    made_of = log(path=to).frame
    assert made_of["user"].to_list() == ["a", "b", "a"]
    assert made_of["period"].to_list() == [0, 0, 1]


def test_a_copy_with_titles_first_has_late_ones_as_texts(tmp_path: Path, place: str) -> None:
    to = str(tmp_path / "first.sqlite")
    assert main(["copy", place, to, "--titles-first", "--without-user", "u0"]) == 0
    with closing(open_log(to)) as copied, closing(open_log(place)) as whole:
        (events, titles, cuts), (_, their_titles, their_cuts) = everything(copied), everything(whole)
        assert copied.last() == len(events) + 3 + 3
    assert [offset for offset, _ in titles] == [1, 2, 3]
    assert [title for _, title in titles] == [title for _, title in their_titles]
    assert [cut.number for _, cut in cuts] == [cut.number for _, cut in their_cuts]
    given = {"cut": given_periods(), "ties": "file", "cleaning": cleaning(missing="keep")}
    one, other = (make_stream(source=log(path=each), **given).interactions for each in (to, place))  # type: ignore[arg-type]
    kept = np.array([other.users[user] != "u0" for user in other.user])
    np.testing.assert_array_equal(one.period, other.period[kept])  # type: ignore[index]
    assert dict(zip(one.items, one.titles or [], strict=True))["i10"] == "Too late"
    assert dict(zip(other.items, other.titles or [], strict=True))["i10"] == ""


def test_periods_of_a_column(tmp_path: Path, documented: Told) -> None:
    (tmp_path / "events.csv").write_text("user,item,time,week\na,x,1700000000,0\na,y,1700000001,last\n")
    with pytest.raises(UserError) as error:
        columns(path=str(tmp_path / "events.csv"), period="week")
    documented("a period that is no number", error.value)
    with pytest.raises(UserError) as error:
        columns(path=str(tmp_path / "events.csv"), period="week", time_unit="period")
    documented("periods twice", error.value)
