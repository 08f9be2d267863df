"""The server as a process: what it has acknowledged is in the log, however it ends."""

import gc
import multiprocessing
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from incremental.errors import UserError
from incremental.log.records import Event
from incremental.log.sqlite import SQLite
from incremental.serve.live.server import bound, run, serve
from incremental.serve.live.service import Settings
from tests.serve.live import small

# A child of a process that has imported everything starts at once, and can be killed like any other.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["incremental.serve.live.server"])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(folder: Path, port: int) -> Iterator[Any]:
    """A server's process that answers."""
    live = {"_target_": "incremental.serve.live.settings.live", "folder": str(folder), "port": port}
    live |= {"log": str(folder / "log.sqlite"), "cut": {"_target_": "incremental.serve.live.cuts.cuts"}}
    config = {"live": {**live, "access_log": "off"}, "data": {"history": 8, "source": {}}}
    process = PROCESSES.Process(target=run, args=(config,))
    process.start()
    try:
        until = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz").raise_for_status()
                break
            except httpx.TransportError:
                assert process.is_alive(), "the server has ended"
                assert time.monotonic() < until
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.join()


class Client(threading.Thread):
    """Sends events, each again and again until it is acknowledged; between them it pauses for so many seconds."""

    def __init__(self, name: str, port: int, over: threading.Event, pause: float = 0.0) -> None:
        super().__init__()
        self.named, self.port, self.over, self.pause = name, port, over, pause
        self.acknowledged: list[str] = []
        self.sent: set[str] = set()
        self.verdicts: Counter[str] = Counter()

    def event(self, n: int) -> dict[str, str]:
        """The client's event n."""
        return {"event_id": f"{self.named}-{n}", "user": self.named, "item": f"i{n % 7}"}

    def run(self) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=5) as client:
            number = 0
            while not self.over.is_set():
                events = [self.event(n) for n in range(number, number + 3)]
                self.sent |= {each["event_id"] for each in events}
                while not self.over.is_set():
                    try:
                        found = client.post("/v1/events", json=events)
                    except httpx.TransportError:
                        time.sleep(0.02)
                        continue
                    if found.status_code == 200:
                        self.acknowledged += [each["event_id"] for each in found.json()["verdicts"]]
                        self.verdicts.update(each["verdict"] for each in found.json()["verdicts"])
                        break
                    assert found.status_code in (429, 503), found.text
                number += 3
                self.over.wait(self.pause)


def chaos(folder: Path, kills: int, most: float) -> list[Client]:
    """Clients that send while the server is killed so many times, at random moments of up to `most` seconds."""
    port, over = free_port(), threading.Event()
    clients = [Client(f"c{n}", port, over) for n in range(2)]
    draws = random.Random(0)
    for n in range(kills + 1):
        with server(folder, port) as process:
            if n == 0:
                for each in clients:
                    each.start()
            time.sleep(0.1 + draws.random() * most)
            if n < kills:
                process.kill()
                continue
            over.set()
            for each in clients:
                each.join()
            process.terminate()
            process.join(30)
            assert process.exitcode == 0
    return clients


def check(folder: Path, clients: Sequence[Client]) -> None:
    """Each acknowledged event is in the log once, and none that nobody sent."""
    kept = Counter(
        record.event_id for _, record in SQLite(folder / "log.sqlite").read(0, 10**7) if type(record) is Event
    )
    assert set(kept.values()) == {1}
    for each in clients:
        assert each.acknowledged
        assert not set(each.acknowledged) - set(kept)
    assert set(kept) <= set().union(*(each.sent for each in clients))


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    port, over = free_port(), threading.Event()
    client = Client("c", port, over)
    with server(tmp_path, port) as process:
        client.start()
        while len(client.acknowledged) < 30:
            time.sleep(0.01)
        process.kill()
    over.set()
    client.join()
    check(tmp_path, [client])
    again = small.service(tmp_path, events=())
    with small.client(again) as here:
        assert here.get("/v1/recommend?user=c").json()["known_user"]
        events = [{"event_id": each, "user": "c", "item": "i0"} for each in client.acknowledged]
        found = here.post("/v1/events", json=events).json()["verdicts"]
    assert {each["verdict"] for each in found} == {"known"}


def test_an_address_that_is_taken_is_said(documented: Callable[[str, object], None]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError) as error:
            bound("127.0.0.1", port)
    documented("a live port that is taken", str(error.value).replace(str(port), "PORT"))


def test_what_is_there_at_the_start_is_no_work_for_collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that looks at all of it would stop requests for 0.16 s."""
    frozen: list[int] = []

    def begun(_server: object, sockets: list[socket.socket]) -> None:
        frozen.append(gc.get_freeze_count())
        sockets[0].close()

    monkeypatch.setattr("uvicorn.Server.run", begun)
    log = small.log(tmp_path)
    try:
        serve(Settings(tmp_path, "champion", port=free_port()), log, small.loader(tmp_path))
    finally:
        gc.unfreeze()
        log.close()
    assert frozen[0] > 10_000


@pytest.mark.slow
def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    check(tmp_path, chaos(tmp_path, 50, 1.0))
