"""The parts of a live loop as processes: a server, a learner for each name. One that dies is started again."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from incremental.errors import UserError
from incremental.log.place import open_log
from incremental.serve.live.beginning import begin
from incremental.serve.live.parent import SUPERVISOR, told
from incremental.serve.live.settings import Live, note

REFUSED = 2  # how a part ends that the user must mend
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before a part that died is started again, the last of them for ever
WELL = 60.0  # seconds after which a part has not died "again"
PATIENCE = 120.0  # seconds that parts have to end: an epoch, and a save
LOOK = 0.2
LOCK = ".lock"  # of a live folder

Spawn = Callable[[str], "subprocess.Popen[bytes]"]


class Part(NamedTuple):
    """A part that runs, or that waits to be started again.

    Attributes:
        process
        since: when it was started
        deaths: in a row
        due: when it is started again
        again: it has been started before
    """

    process: "subprocess.Popen[bytes]"
    since: float
    deaths: int = 0
    due: float | None = None
    again: bool = False


def supervise(live: Live, overrides: Sequence[str], base: str | None = None) -> None:
    """Runs server, champion and challengers until SIGTERM or SIGINT, which each of them gets.

    The log begins with the events of the run `base`. Raises UserError where a part has refused what it was given, and
    has said why; a challenger that refuses is left out.
    """
    live.folder.mkdir(parents=True, exist_ok=True)
    with alone(live.folder) as lock:
        run(live, overrides, base, lock)


def run(live: Live, overrides: Sequence[str], base: str | None, lock: int) -> None:
    """See `supervise`; each part has the folder's lock too."""
    with contextlib.closing(open_log(live.log, create=True)) as log:
        if base:
            print(f"{live.log}: begins with the {begin(Path(base), log, live.log):,} events of {base}", flush=True)
    note(live)
    ends = told()
    names = ["server", *(f"learner:{name}" for name in (live.champion, *live.challengers))]

    def spawn(part: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "incremental.serve.live", "--part", part, *overrides]
        return subprocess.Popen(command, env={**os.environ, SUPERVISOR: str(os.getpid())}, pass_fds=[lock])

    kept(names, spawn, ends, needed=names[:2])


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
    """The lock of a live folder, as a file's number; a UserError where it is not free after `PATIENCE`.

    The parts of a loop inherit it. So after a supervisor was killed, it is free once the last of them has ended, and
    the address and the learners' folders are free too.
    """
    until, said = time.monotonic() + PATIENCE, False
    with (folder / LOCK).open("a", encoding="utf-8") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise UserError(
                        f"{folder}: another live loop runs here, or a part of one that was killed; stop it first, or "
                        "choose another folder with live.folder=..."
                    ) from None
            if not said:
                print(f"{folder}: waits for the parts of another loop to end", flush=True)
            said = True
            time.sleep(LOOK)
        yield lock.fileno()


def kept(names: Sequence[str], spawn: Spawn, ends: Callable[[], bool], *, needed: Sequence[str]) -> None:
    """Keeps the parts running until it `ends`; see `supervise`.

    What a part refuses at its start is the configuration's mistake. What it refuses later, such as a full disk, may
    pass: it is started again, and the others go on.
    """
    parts = {name: Part(spawn(name), time.monotonic()) for name in names}
    try:
        while parts:
            time.sleep(LOOK)
            if ends():  # as parts that Ctrl-C has reached too do, which have not failed
                break
            for name, part in [*parts.items()]:
                now, code = time.monotonic(), part.process.poll()
                if code is None:
                    continue
                refused = code == REFUSED and not part.again and now - part.since < WELL
                if refused and name in needed:
                    raise UserError(f"{name}: it cannot go on, and says above why; nothing that was accepted is lost")
                if refused:
                    print(f"{name}: it is left out, and says above why", file=sys.stderr, flush=True)
                    del parts[name]
                elif part.due is None:
                    deaths = part.deaths + 1 if now - part.since < WELL else 1
                    pause = PAUSES[min(deaths, len(PAUSES)) - 1]
                    print(f"{name}: ended ({ended(code)}); starts again in {pause:g} s", file=sys.stderr, flush=True)
                    parts[name] = part._replace(deaths=deaths, due=now + pause)
                elif now >= part.due:
                    parts[name] = Part(spawn(name), now, part.deaths, again=True)
    finally:
        end([part.process for part in parts.values()])


def end(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Tells processes to end, and waits for them."""
    for each in processes:
        if each.poll() is None:
            each.terminate()
    until = time.monotonic() + PATIENCE
    for each in processes:
        try:
            each.wait(max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


def ended(code: int) -> str:
    """How a process ended, in words."""
    return f"status {code}" if code >= 0 else signal.Signals(-code).name
