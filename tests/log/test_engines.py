"""What every engine of a log promises."""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.log.place import open_log
from incremental.log.records import Choice, Cut, Event, Record, Served, Title
from tests.log.kills import acknowledged_under_kills, check
from tests.log.servers import Kafka, Nats

RECORDS: list[Record] = [
    Event(
        "e1", "ann", "tea", time=1_700_000_000.25, fields={"shop": "north"}, served=Served("main", 3, ["tea", "pie"])
    ),
    Event("e2", "bob", "Äpfel\u2028\U0001f34e", time=1_700_000_010.000001, type="buy"),
    Choice("c1", "main", None, 1_700_000_011.0, "by hand"),
    Cut(0, 2, "count", 1_700_000_012.0),
    Event("e3", "ann", "pie", time=1_700_000_005.5),
    Title("pie", "Apple pie, 日本"),
]
Open = Callable[[], Log]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    server = Nats(tmp_path_factory.mktemp("nats") / "one")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture(params=["sqlite", "nats", "kafka"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one new log, as often as it is called: each time as a process of its own would."""
    logs: list[Log] = []
    place = str(tmp_path / "log.sqlite")
    if request.param != "sqlite":
        server, name = request.getfixturevalue(request.param), f"log{next(NUMBERS)}"
        place = f"{request.param}://{server.address}/{name}"
        if isinstance(server, Kafka):
            server.topic(name)

    def open_it() -> Log:
        logs.append(open_log(place, create=True))
        return logs[-1]

    yield open_it
    for log in logs:
        log.close()


def test_records_come_back_in_order_with_their_offsets(opened: Open) -> None:
    log = opened()
    assert log.last() == 0
    assert log.read(0, 10) == []
    first = log.append(RECORDS[:3])
    second = log.append(RECORDS[3:])
    assert [tuple(one) for one in first + second] == [(n, True) for n in range(1, 7)]
    for reader in (log, opened()):
        assert reader.read(0, 10) == [*enumerate(RECORDS, 1)]
        assert reader.read(0, 2) + reader.read(2, 2) + reader.read(4, 2) == [*enumerate(RECORDS, 1)]
        assert reader.read(6, 10) == []
        assert reader.last() == 6
    assert opened().read(3, 1) == [(4, RECORDS[3])]
    assert opened().last() == 6


def test_of_one_key_the_first_record_counts(opened: Open) -> None:
    """A retry, in the same batch, a later one, and by a process that knows nothing of the first."""
    log = opened()
    changed = Event("e1", "eve", "tea", time=1.0)
    assert [one.new for one in log.append([RECORDS[0], changed, RECORDS[1]])] == [True, False, True]
    assert [one.new for one in log.append([RECORDS[1], changed])] == [False, False]
    assert [one.new for one in opened().append([changed, RECORDS[4], RECORDS[0]])] == [False, True, False]
    assert [one.new for one in log.append([RECORDS[4]])] == [False]
    kept = [(1, RECORDS[0]), (2, RECORDS[1]), (3, RECORDS[4])]
    for reader in (log, opened()):
        assert reader.read(0, 10) == kept
        assert reader.read(1, 10) == kept[1:]
        assert reader.last() == 3


def test_a_batch_is_kept_whole_or_not_at_all(opened: Open) -> None:
    log = opened()
    for broken in (None, Event("e2", "", "tea", time=1.0)):  # neither could be read again
        with pytest.raises(ValueError, match="Expected"):
            log.append([RECORDS[0], broken])  # type: ignore[list-item]
    assert log.last() == 0
    assert log.append([]) == []
    assert log.append(RECORDS[:1]) == [(1, True)]


def test_a_reader_waits_for_the_next_record_and_no_longer(opened: Open) -> None:
    log, other = opened(), opened()
    start = time.monotonic()
    assert log.read(0, 10, wait=0.06) == []
    assert time.monotonic() - start >= 0.05
    writer = threading.Timer(0.05, other.append, [RECORDS[:2]])
    writer.start()
    assert log.read(0, 10, wait=30.0) == [*enumerate(RECORDS[:2], 1)]
    assert time.monotonic() - start < 15.0
    writer.join()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["nats", "kafka"])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(request: pytest.FixtureRequest, engine: str) -> None:
    """The log of SQLite has a faster one (test_sqlite.py)."""
    server = request.getfixturevalue(engine)
    if isinstance(server, Kafka):
        server.topic("killed")
    place = f"{engine}://{server.address}/killed"
    check(place, [*acknowledged_under_kills(place, 10, seed=2, longest=0.5)], 10)


def test_one_log_serves_a_reader_and_two_writers_at_once(opened: Open) -> None:
    """Of one process: each call is safe in any thread, and a reader that waits holds no writer up."""
    log = opened()

    def write(name: str) -> None:
        for n in range(10):
            log.append([Event(f"{name}{n}.{i}", "u", "i", time=1.0) for i in range(3)])

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    found: list[tuple[int, Record]] = []
    until = time.monotonic() + 60.0
    while len(found) < 60 and time.monotonic() < until:
        found += log.read(found[-1][0] if found else 0, 7, wait=1.0)
    for writer in writers:
        writer.join()
    assert [offset for offset, _ in found] == [*range(1, 61)]
    assert len({record.key for _, record in found}) == 60


def test_a_log_on_a_broker_without_its_client(
    monkeypatch: pytest.MonkeyPatch, documented: Callable[[str, object], None]
) -> None:
    monkeypatch.setitem(sys.modules, "nats", None)
    monkeypatch.delitem(sys.modules, "incremental.log.jetstream", raising=False)
    with pytest.raises(UserError) as error:
        open_log("nats://127.0.0.1:4222/live")
    documented("a log on a broker without the package that speaks to it", error.value)
