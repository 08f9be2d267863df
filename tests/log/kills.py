"""A writer that is killed at random moments, and its client, who sends again what was not acknowledged."""

import contextlib
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from incremental.log.place import open_log
from incremental.log.records import Event

WRITER = Path(__file__).with_name("writer.py")
ROOT = Path(__file__).parents[2]


def writer(place: str, *command: str) -> "subprocess.Popen[str]":
    """The process, once it has opened the log."""
    pipe = subprocess.PIPE
    line = [*command, sys.executable, str(WRITER), place]
    found = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env={"PYTHONPATH": str(ROOT)})
    assert found.stdout is not None
    assert found.stdout.readline() == "ready\n"
    return found


def acknowledged_under_kills(place: str, kills: int, seed: int, longest: float = 0.06) -> Iterator[str]:
    """The ids that a writer acknowledged, which was killed so often; its client sends again what was not."""
    draw = random.Random(seed)
    batches = (" ".join(f"b{n}-{i}" for i in range(draw.randint(1, 20))) for n in itertools.count())
    batch = next(batches)
    for left in range(kills, -1, -1):
        process = writer(place)
        assert process.stdin is not None
        assert process.stdout is not None
        until = time.monotonic() + draw.uniform(0.0, longest)
        if left:
            killer = threading.Timer(until - time.monotonic(), process.send_signal, [signal.SIGKILL])
            killer.start()
        while left or time.monotonic() < until:
            try:
                process.stdin.write(f"{batch}\n")
                process.stdin.flush()
            except BrokenPipeError:
                break
            if process.stdout.readline() != f"{batch}\n":
                break  # killed: the next process gets it once more
            yield from batch.split()
            batch = next(batches)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def check(place: str, acknowledged: list[str], kills: int) -> None:
    """Everything that was acknowledged is there once, in order; the rest is the batch that was on its way."""
    log = open_log(place)
    kept = [record.event_id for _, record in log.read(0, 10**6) if isinstance(record, Event)]
    log.close()
    assert len(acknowledged) > kills
    assert len(kept) == len(set(kept)), "twice"
    assert kept[: len(acknowledged)] == acknowledged
    assert len({one.partition("-")[0] for one in kept[len(acknowledged) :]}) <= 1, "invented"
