"""The writer: acknowledged is on disk; a full queue is refused; a disk that is full ends nothing."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from incremental.errors import UserError
from incremental.log.engine import Unkept
from incremental.log.records import Event
from incremental.log.sqlite import SQLite
from incremental.serve.live.refused import Refused
from incremental.serve.live.writer import IDLE, Writer


class Slow(SQLite):
    """A log whose commits wait until they may go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, create=True)
        self.go, self.full = threading.Semaphore(0), False
        self.commits: list[int] = []

    def append(self, records: Any) -> Any:
        self.go.acquire(timeout=10)
        self.commits.append(len(records))
        if self.full:
            raise UserError("log.sqlite: database or disk is full")
        return super().append(records)


class Short(Slow):
    """A log that cannot keep the event e2."""

    def append(self, records: Any) -> Any:
        if any(each.event_id == "e2" for each in records):
            self.commits.append(-len(records))
            raise Unkept("live: a record of 2,000 bytes, and a message holds 1,000")
        return super().append(records)


def event(number: int) -> Event:
    return Event(f"e{number}", "u", "i", time=1.0)


def test_what_waits_is_committed_together_and_acknowledged_after(tmp_path: Path) -> None:
    log = Slow(tmp_path / "log")
    followed: list[int] = []
    writer = Writer(log, 100, followed.append)
    first = writer.submit([event(0)])
    while writer.length:  # it is being committed
        pass
    others = [writer.submit([event(n), event(0)]) for n in range(1, 6)]
    assert not first.done()
    log.go.release(2)
    assert [each.new for future in others for each in future.result(10)] == [True, False] * 5
    assert first.result(10) == [(1, True)]
    assert log.commits == [1, 10]
    assert max(followed) == log.last() == 6
    writer.close()


def test_a_full_queue_is_refused_and_what_it_has_is_kept(tmp_path: Path, documented: Any) -> None:
    log = Slow(tmp_path / "log")
    writer = Writer(log, 3)
    writer.submit([event(0)])
    while writer.length:
        pass
    kept = writer.submit([event(1), event(2)])
    with pytest.raises(Refused) as refused:
        writer.submit([event(3), event(4)])
    assert (refused.value.status, refused.value.response().headers["retry-after"]) == (429, "1")
    documented("a full queue of live events", refused.value)
    large = SQLite(tmp_path / "other", create=True)
    assert len(Writer(large, 3).submit([event(n) for n in range(9)]).result(10)) == 9  # none waits: it may be large
    log.go.release(5)
    writer.close()  # commits what waits
    assert [each.new for each in kept.result(0)] == [True, True]
    with pytest.raises(Refused, match="ending"):
        writer.submit([event(9)])


def test_a_full_disk_is_said_to_each_and_the_writer_lives_on(tmp_path: Path) -> None:
    log = Slow(tmp_path / "log")
    log.full = True
    log.go.release(10)
    writer = Writer(log, 10)
    with pytest.raises(Refused, match="disk is full") as refused:
        writer.submit([event(0)]).result(10)
    assert refused.value.status == 503
    time.sleep(3 * IDLE)  # the log can be read meanwhile, and that is no commit
    assert "disk is full" in str(writer.failure)
    log.full = False
    assert writer.submit([event(0)]).result(10) == [(1, True)]
    assert writer.failure is None
    writer.close()


def test_a_failure_that_nobody_met_again_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server that gets no events, because it is said to be broken, would stay so."""
    monkeypatch.setattr("incremental.serve.live.writer.TOLD", 0.0)
    log = Slow(tmp_path / "log")
    log.full = True
    log.go.release(10)
    writer = Writer(log, 10)
    with pytest.raises(Refused, match="disk is full"):
        writer.submit([event(0)]).result(10)
    until = time.monotonic() + 10
    while writer.failure is not None and time.monotonic() < until:
        time.sleep(IDLE)
    assert writer.failure is None
    writer.close()


def test_a_record_that_cannot_be_kept_fails_its_own_request_alone(tmp_path: Path, documented: Any) -> None:
    log = Short(tmp_path / "log")
    writer = Writer(log, 100)
    first = writer.submit([event(0)])
    while writer.length:
        pass
    others = {number: writer.submit([event(number)]) for number in (1, 2, 3)}
    log.go.release(10)
    assert [future.result(10)[0].new for future in (first, others[1], others[3])] == [True] * 3
    with pytest.raises(Refused) as refused:
        others[2].result(10)
    assert (refused.value.status, refused.value.after, writer.failure) == (413, None, None)
    documented("a live event that the log cannot keep", refused.value)
    assert log.commits == [1, -3, 1, -1, 1]
    writer.close()
