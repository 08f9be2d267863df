"""The embedded engine under what happens to files: a killed writer, a full disk, a broken file, two processes."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.log.records import Cut, Event
from incremental.log.sqlite import SQLite
from tests.log.kills import acknowledged_under_kills, check, writer

Told = Callable[[str, object], None]
WRITER = Path(__file__).with_name("writer.py")
ROOT = Path(__file__).parents[2]


def event(name: object, size: int = 1) -> Event:
    return Event(f"{name}", "u" * size, "i", time=1.0)


def ids(log: Log) -> list[str]:
    return [record.event_id for _, record in log.read(0, 10**6) if isinstance(record, Event)]


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path, kills: int) -> None:
    place = str(tmp_path / "log.sqlite")
    check(place, [*acknowledged_under_kills(place, kills, seed=1)], kills)


def test_two_writers_and_the_retries_of_each(tmp_path: Path) -> None:
    """Each appends its own events and the other's, so that every one is sent twice."""
    place = tmp_path / "log.sqlite"
    logs = [SQLite(place, create=True) for _ in range(2)]
    written: list[list[bool]] = [[], []]

    def work(own: int) -> None:
        for n in range(20):
            for whose in (own, 1 - own):
                written[own] += [one.new for one in logs[own].append([event(f"{whose} {n} {i}") for i in range(3)])]

    threads = [threading.Thread(target=work, args=(own,)) for own in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = ids(logs[0])
    assert sorted(kept) == sorted(f"{whose} {n} {i}" for whose in range(2) for n in range(20) for i in range(3))
    assert sum(map(sum, written)) == len(kept)  # each was new once
    assert logs[0].last() == logs[1].last() == 120
    for log in logs:
        log.close()


def test_a_full_disk_keeps_none_of_a_batch_and_the_log_lives_on(tmp_path: Path, documented: Told) -> None:
    log = SQLite(tmp_path / "log.sqlite", create=True)
    log.append([event("first")])
    pages = log.database.execute("PRAGMA page_count").fetchone()[0]
    log.database.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(UserError) as error:
        log.append([event(n, 200) for n in range(100)])
    documented("an event for a log on a full disk", error.value)
    assert ids(log) == ["first"]
    log.database.execute("PRAGMA max_page_count = 1000000")  # some space was freed
    log.append([event(n, 200) for n in range(100)])
    assert len(ids(log)) == 101
    log.close()


def test_a_broken_file_is_named_and_not_written(tmp_path: Path, documented: Told) -> None:
    path = tmp_path / "log.sqlite"
    log = SQLite(path, create=True)
    log.append([event(n, 200) for n in range(200)])
    log.database.execute("UPDATE records SET body = x'7b7d' WHERE offset = 3")
    with pytest.raises(UserError) as error:
        log.read(0, 10)
    documented("a record that is none", error.value)
    log.close()
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3 : 2 * len(whole) // 3] = b"\xff" * (2 * len(whole) // 3 - len(whole) // 3)
    path.write_bytes(whole)
    log = SQLite(path)
    with pytest.raises(UserError) as error:
        log.read(3, 1000)
    documented("a log with a broken page", error.value)
    log.close()


def test_a_writer_waits_for_another_one_and_then_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Told
) -> None:
    monkeypatch.setattr("incremental.log.sqlite.BUSY", 0.1)
    one, other = (SQLite(tmp_path / "log.sqlite", create=True) for _ in range(2))
    one.database.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError) as error:
        other.append([event("a")])
    documented("a log that another process holds", error.value)
    assert other.read(0, 10) == []  # who reads does not wait
    one.database.execute("ROLLBACK")
    assert other.append([event("a")])[0].new
    for log in (one, other):
        log.close()


def test_another_programs_database_is_left_as_it_is(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE own (value INTEGER)")
    database.close()
    before = path.read_bytes()
    for create in (False, True):
        with pytest.raises(UserError, match="no log"):
            SQLite(path, create=create)
    assert path.read_bytes() == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_answer_comes_after_the_write_is_on_disk(tmp_path: Path) -> None:
    """Between the line that a writer reads and its answer the system is told to put the log on disk."""
    trace = tmp_path / "trace"
    calls = "trace=read,write,pwrite64,fsync,fdatasync"
    process = writer(str(tmp_path / "log.sqlite"), "strace", "-f", "-y", "-e", calls, "-s", "64", "-o", str(trace))
    answer, _ = process.communicate("one two\nthree\n")
    if process.returncode:
        pytest.skip("strace may not trace here")
    assert answer == "one two\nthree\n"
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    start = next(n for n, line in enumerate(lines) if " read(0" in line and "one two" in line)
    for batch in ("one two", "three"):
        end = next(n for n, line in enumerate(lines) if n > start and " write(1" in line and batch in line)
        between = lines[start:end]
        synced = [n for n, line in enumerate(between) if "sync(" in line and "log.sqlite-wal" in line]
        put = [n for n, line in enumerate(between) if "write64(" in line and "log.sqlite-wal" in line]
        assert put, batch
        assert synced, batch
        assert synced[-1] > put[-1], batch
        start = end


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, documented: Told) -> None:
    with pytest.raises(UserError) as error:
        SQLite(tmp_path / "none" / "log.sqlite", create=True)
    documented("a log in a folder that is not there", error.value)


def test_a_cut_is_one_record_whoever_writes_it(tmp_path: Path) -> None:
    """Two learners on one log: the second one is told that the increment has ended already."""
    log = SQLite(tmp_path / "log.sqlite", create=True)
    log.append([event("a"), event("b")])
    assert log.append([Cut(0, 1, "count", 2.0)])[0] == (3, True)
    assert log.append([Cut(0, 2, "count", 2.0)])[0] == (3, False)
    log.close()
