"""The engine on a real NATS server that is killed, and one of three that is."""

import asyncio
import contextlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import StorageType, StreamConfig

from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.log.jetstream import Server
from incremental.log.messages import Messages
from incremental.log.place import open_log
from incremental.log.records import Event, Record, Served
from tests.log.servers import Nats, free_port

Told = Callable[[str, object], None]


def event(name: object) -> Event:
    return Event(f"{name}", "u", "i", time=1.0)


def ids(log: Log) -> list[str]:
    return [record.event_id for _, record in log.read(0, 10**6) if isinstance(record, Event)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Nats]]:
    """Starts a server by its name, and ends all of them at last."""
    servers: list[Nats] = []

    def started(name: str, *options: Any) -> Nats:
        servers.append(Nats(tmp_path / name, *options))
        return servers[-1]

    yield started
    for one in servers:
        one.kill()


@pytest.fixture
def server(start: Callable[..., Nats]) -> Nats:
    return start("one")


def send(log: Log, stop: threading.Event, acknowledged: list[str]) -> None:
    """Batches one after another; one that was refused is sent again."""
    number = 0
    while not stop.is_set():
        batch = [event(f"{number}-{place}") for place in range(5)]
        try:
            log.append(batch)
        except UserError:
            continue
        acknowledged += [one.event_id for one in batch]
        number += 1


def follow(log: Log, stop: threading.Event, seen: list[tuple[int, Record]]) -> None:
    """Reads on from where it is, as a learner does."""
    while not stop.is_set() or seen[-1][0] < log.last():
        with contextlib.suppress(UserError):
            seen += log.read(seen[-1][0] if seen else 0, 7, wait=0.05)


@contextlib.contextmanager
def busy(place: str) -> Iterator[list[str]]:
    """A client and a reader at work; gives the ids that were acknowledged so far, and checks what became of them."""
    stop, acknowledged, seen = threading.Event(), list[str](), list[tuple[int, Record]]()
    logs = [open_log(place, create=True) for _ in range(2)]
    client = threading.Thread(target=send, args=(logs[0], stop, acknowledged))
    reader = threading.Thread(target=follow, args=(logs[1], stop, seen))
    client.start()
    reader.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        client.join()
        reader.join()
        for log in logs:
            log.close()
    log = open_log(place)
    assert seen == log.read(0, 10**6)
    log.close()
    check(place, acknowledged)


def check(place: str, acknowledged: list[str]) -> None:
    """Everything that was acknowledged is there once, in order, and at most the batch that was on its way beside."""
    log = open_log(place)
    kept = ids(log)
    log.close()
    assert len(kept) == len(set(kept))
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) - len(acknowledged) in (0, 5)


def test_a_killed_server_loses_nothing_that_it_acknowledged(server: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("incremental.log.jetstream.ANSWER", 0.3)  # what is asked of a dead server has no answer
    place = f"nats://{server.address}/live"
    draw = random.Random(0)
    with busy(place) as acknowledged:
        for _ in range(3):
            progress(acknowledged, 25)
            time.sleep(draw.uniform(0.0, 0.02))
            server.kill()
            server.start()
        progress(acknowledged, 25)


def test_a_reader_that_leaves_out_a_message_is_not_a_log_without_it(server: Nats) -> None:
    """What is on its way to a reader is lost where a server of several goes; the reader then has what comes after."""
    broker = Server([server.address], "live", create=True)
    for n in range(4):
        broker.publish(b"%d" % n)
    assert broker.fetch(1, 1) == [b"1"]
    assert broker.reader is not None
    broker.reader = 0, broker.reader[1]  # messages 0 and 1 did not come
    assert broker.fetch(0, 4) == [b"0"]
    assert broker.fetch(1, 3) == [b"1", b"2", b"3"]
    broker.close()


def progress(acknowledged: list[str], more: int) -> None:
    """Returns once so many more events were acknowledged."""
    wanted, until = len(acknowledged) + more, time.monotonic() + 60.0
    while len(acknowledged) < wanted:
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.slow
def test_one_of_three_servers_is_killed_and_brought_back(start: Callable[..., Nats]) -> None:
    routes = [free_port() for _ in range(3)]
    servers = [start(f"n{n}", (routes[n], *routes[:n], *routes[n + 1 :])) for n in range(3)]
    place = f"nats://{','.join(one.address for one in servers)}/live"
    with busy(place) as acknowledged:
        for one in servers:  # one of them is the stream's leader
            progress(acknowledged, 50)
            one.kill()
            progress(acknowledged, 50)  # two of three are enough to go on
            one.start()
            time.sleep(2.0)  # it catches up before the next one goes
        progress(acknowledged, 50)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_an_append_is_on_disk_before_its_answer(tmp_path: Path, start: Callable[..., Nats]) -> None:
    """`sync_interval: always`: the server puts its file of messages on disk once an append, before the next one."""
    trace = tmp_path / "trace"
    server = start("one", (), ("strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(trace)))

    def synced() -> int:
        return sum("sync(" in line and ".blk" in line for line in trace.read_text(errors="replace").splitlines())

    log = open_log(f"nats://{server.address}/live", create=True)
    log.append([event("first")])
    for n in range(5):
        before = synced()
        log.append([event(f"{n}-{place}") for place in range(50)])
        assert synced() == before + 1
    log.close()


def do(server: Nats, work: Callable[[Any], Any]) -> None:
    """Something else than the log's code does this at the server."""

    async def all_of_it() -> None:
        client = await nats.connect(f"nats://{server.address}")
        await work(client.jetstream())
        await client.close()

    asyncio.run(all_of_it())


def read(place: str, create: bool) -> None:
    log = open_log(place, create=create)
    try:
        log.read(0, 10)
    finally:
        log.close()


def test_what_is_no_log_is_refused(server: Nats, documented: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(situation: str, name: str, *, create: bool = False) -> None:
        with pytest.raises(UserError) as error:
            read(f"nats://{server.address}/{name}", create)
        documented(situation, str(error.value).replace(server.address, "HOST:PORT"))

    refused("a stream of JetStream that is not there", "none")
    do(
        server,
        lambda js: js.add_stream(StreamConfig(name="old", subjects=["old"], max_age=60.0, storage=StorageType.MEMORY)),
    )
    refused("a stream that forgets", "old", create=True)
    do(server, lambda js: js.add_stream(StreamConfig(name="other", subjects=["other"], storage=StorageType.FILE)))
    do(server, lambda js: js.publish("other", b"hello"))
    refused("a stream with other messages", "other")
    do(server, lambda js: js.add_stream(StreamConfig(name="next", subjects=["next"], storage=StorageType.FILE)))
    do(server, lambda js: js.publish("next", b'{"version": 3}'))
    refused("a stream of another version", "next")
    do(server, lambda js: js.purge_stream("next"))
    do(server, lambda js: js.publish("next", b'{"version": 1, "records": []}'))
    refused("a stream whose first messages were deleted", "next")
    monkeypatch.setattr("incremental.log.jetstream.ANSWER", 0.2)
    server.kill()
    refused("a place where no server of NATS answers", "live")


def test_a_batch_beyond_a_message_is_sent_in_parts(server: Nats, documented: Told) -> None:
    log = open_log(f"nats://{server.address}/live", create=True)
    many = [Event(f"e{n}", "u" * 200, "i" * 200, time=1.0) for n in range(5000)]  # 2.3 MB
    assert [one.offset for one in log.append(many)] == [*range(1, 5001)]
    assert log.last() == 5000
    assert [record for _, record in log.read(0, 5000)] == many
    assert isinstance(log, Messages)
    log.broker.most = 1000
    with pytest.raises(UserError) as error:
        log.append([Event("long", "u", "i", time=1.0, served=Served("main", 1, ["x" * 256] * 5))])
    documented("a record that is too long for a message", str(error.value).replace(server.address, "HOST:PORT"))
    log.close()
