"""The whole loop under kill -9: what it acknowledged is in the log, and its learners end as a run on the log does."""

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from incremental.log.place import open_log
from incremental.serve.live import versions
from tests.serve.live.test_learner import assert_law, cuts, overrides, settled
from tests.serve.live.test_process import Client, check, free_port

KILLS = 50  # of parts; the supervisor's come on top
SUPERVISORS = (15, 30, 45)  # kills of parts before one of the supervisor
MOST, SHORT = 8.0, 1.5  # seconds that a part has at most, see `Lives`; an update takes about one
COUNT = 50  # events of an increment
STARTS, LEARNS = "starts", ("trains", "saves", "publishes")
PATIENCE = 300.0  # seconds that the learners have at the end


class Shopper(Client):
    """A client that stands for 20 users and takes one of 60 items, often one behind the last one."""

    def event(self, n: int) -> dict[str, str]:
        draws = np.random.default_rng([n, *self.named.encode()])
        user, far = int(draws.integers(20)), int(draws.geometric(0.2))
        return {"event_id": f"{self.named}-{n}", "user": f"{self.named}{user}", "item": f"i{(n // 3 + far) % 60}"}


class Loop:
    """A live loop as a user starts it; what it prints is in `said`."""

    def __init__(self, given: list[str], folder: Path) -> None:
        self.given, self.said = given, folder / "said.txt"
        # what a kill leaves half written is in a cache of its own
        self.environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
        self.start()

    def start(self) -> None:
        """The supervisor, which starts its parts."""
        command = [sys.executable, "-m", "incremental.serve.live", *self.given]
        with self.said.open("a") as said:
            self.supervisor = subprocess.Popen(command, stdout=said, stderr=said, env=self.environment)

    def parts(self) -> dict[int, str]:
        """The supervisor's parts that run: process -> name."""
        assert self.supervisor.poll() is None, self.said.read_text()[-3000:]
        found = {}
        for process in Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children").read_text().split():
            with contextlib.suppress(OSError, ValueError):  # it has just ended, or is not yet what it will be
                command = Path(f"/proc/{process}/cmdline").read_text().split("\0")
                found[int(process)] = command[command.index("--part") + 1]
        return found


@contextmanager
def loop(given: list[str], folder: Path) -> Iterator[Loop]:
    """A loop, which ends cleanly."""
    made = Loop(given, folder)
    try:
        yield made
        made.supervisor.terminate()
        assert made.supervisor.wait(120) == 0, made.said.read_text()[-3000:]
    finally:
        made.supervisor.kill()  # its parts end with it
        made.supervisor.wait()


def doing(folder: Path, port: int, part: str, process: int) -> str:
    """What a part does now, as far as it can be seen from outside."""
    kind, _, name = part.partition(":")
    if kind == "server":
        try:
            ready = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=0.2).is_success
        except httpx.TransportError:
            ready = False
        return "serves" if ready else STARTS
    there = folder / "learners" / name
    try:
        about: dict[str, Any] = json.loads((there / "status.json").read_text())
    except FileNotFoundError:
        return STARTS
    if about["pid"] != process:
        return STARTS
    new = {"saves": (there / "checkpoint").glob("*tmp*"), "publishes": (there / versions.VERSIONS).glob(".*")}
    for does, made in new.items():
        with contextlib.suppress(FileNotFoundError):
            if any(each.stat().st_mtime > about["since"] for each in made):  # others are what a kill has left
                return does
    return str(about["doing"])


class Lives:
    """When parts are killed. A process dies uniformly in some seconds from its start, or from when it has done its work
    once (a server has taken an increment's events, a learner has published a version), or from when it learns."""

    def __init__(self, folder: Path, port: int, clients: list[Shopper]) -> None:
        self.folder, self.port, self.clients, self.draws = folder, port, clients, random.Random(0)
        self.lives: dict[int, tuple[str, int]] = {}
        self.due: dict[int, float] = {}

    def done(self, part: str) -> int:
        """How much was done by all processes of this part."""
        if part == "server":
            return sum(len(each.acknowledged) for each in self.clients) // COUNT
        return versions.newest(self.folder / "learners" / part.partition(":")[2]) or 0

    def over(self, process: int, part: str) -> str | None:
        """What a part does, if it is to be killed now."""
        now, done, does = time.monotonic(), self.done(part), doing(self.folder, self.port, part, process)
        if process not in self.lives:
            self.lives[process] = self.draws.choice(["start", "work", "learn", "learn"]), done
        kind, before = self.lives[process]
        learns = kind == "learn" and part != "server"
        if process not in self.due and (kind == "start" or (does in LEARNS if learns else done > before)):
            self.due[process] = now + self.draws.random() * (SHORT if learns else MOST)
        return does if now >= self.due.get(process, np.inf) else None


def chaos(made: Loop, lives: Lives) -> Counter[str]:
    """Kills parts at random moments, so often; what they were doing."""
    hit, killed, supervisors = Counter[str](), set[int](), [*SUPERVISORS]
    while len(killed) < KILLS:
        time.sleep(0.1)
        for process, part in made.parts().items():
            if process not in killed and (does := lives.over(process, part)) is not None:
                os.kill(process, 9)
                killed.add(process)
                hit[f"{part} {does}"] += 1
                print(f"{part} {does}", flush=True)
        if supervisors and len(killed) >= supervisors[0]:
            supervisors.pop(0)
            made.supervisor.kill()
            made.supervisor.wait()
            made.start()
    return hit


def recommended(port: int) -> dict[str, Any]:
    """An answer of the server, which may be starting again."""
    try:
        return dict(httpx.get(f"http://127.0.0.1:{port}/v1/recommend?user=a1").json())
    except httpx.TransportError:
        return {"version": None}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not say there which processes run")
def test_fifty_kills_of_any_part_change_nothing(tmp_path: Path) -> None:
    folder, port, over = tmp_path / "live", free_port(), threading.Event()
    challenger = "+live.challengers.finetune='~strategies.memory ~strategies.anchor'"
    sizes = [f"live.cut.count={COUNT}", f"live.cut.most={COUNT}", f"live.port={port}"]
    given = overrides(folder, challenger, *sizes)
    clients = [Shopper(name, port, over, pause=0.4) for name in "ab"]
    begun = time.monotonic()
    with loop(given, tmp_path) as made:
        for each in clients:
            each.start()
        hit = chaos(made, Lives(folder, port, clients))
        while sum(len(each.acknowledged) for each in clients) < 6 * COUNT:
            time.sleep(0.1)  # the base part, and some increments
        over.set()
        for each in clients:
            each.join()
        print(f"{sum(hit.values())} kills in {time.monotonic() - begun:.0f} s: {dict(hit)}")
        log, until = open_log(str(folder / "log.sqlite")), time.monotonic() + PATIENCE
        learners = [folder / "learners" / name for name in ("champion", "finetune")]
        while not all(settled(each, log, COUNT) for each in learners):
            assert time.monotonic() < until, made.said.read_text()[-3000:]
            made.parts()  # the supervisor runs; each of its parts may be between two lives
            time.sleep(0.5)
        newest = versions.newest(learners[0])
        while (found := recommended(port))["version"] != newest:
            assert time.monotonic() < until, found
            time.sleep(0.5)
        assert not found["fallback"]
    assert len(cuts(log)) - 1 == newest
    log.close()
    check(folder, clients)
    for name in ("champion", "finetune"):
        print(f"{name}: {assert_law(given, name)} increments, equal to the run on the log")
