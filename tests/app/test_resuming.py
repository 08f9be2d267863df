"""Runs that stop, and what is left of them."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from incremental.app import experiment, rundir
from incremental.app.experiment import execute
from incremental.errors import UserError
from incremental.run import checkpoint
from incremental.run.progress import Paused, Progress
from tests.app.small import BOTH, Stopped, composed, only, stop_after_first_save

pytestmark = pytest.mark.usefixtures("one_program")


def test_a_run_stopped_after_saves_continues_bit_for_bit(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped five times: after the saves 1, 3, 4, 5 and 7."""
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    left, where = 0, set[tuple[int, bool]]()
    original = checkpoint.Checkpoints.save

    def stopping(self: Any, snapshot: Any) -> None:
        nonlocal left
        original(self, snapshot)
        left -= 1
        if left == 0:
            where.add((snapshot.progress.increment, snapshot.progress.begun))
            raise Stopped

    config = composed(tmp_path, *BOTH, "evaluation.matrix=true")
    monkeypatch.setattr(checkpoint.Checkpoints, "save", stopping)
    for saves in (1, 2, 1, 1, 2):
        left = saves
        with pytest.raises(Stopped):
            execute(config)
        assert not (only(tmp_path) / "summary.json").exists()
    assert where == {(0, True), (1, False), (1, True)}
    execute(config)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (finished, only(tmp_path))]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    assert [s["cost"]["examples"] for s in summaries[:1]] == [s["cost"]["examples"] for s in summaries[1:]]
    for name in ("evaluations.csv", "epochs.csv"):  # no row twice, none lost
        assert (finished / name).read_bytes() == (only(tmp_path) / name).read_bytes()


def test_saves_take_a_twentieth_of_the_time_and_the_first_and_the_last_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Increments of a second, each after an epoch of half of it, and saves of 0.18 s: one in four seconds."""
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    saved: list[tuple[int, bool]] = []

    class Saves:
        def save(self, snapshot: tuple[int, bool]) -> None:
            nonlocal now
            saved.append(snapshot)
            now += 0.18

    consume = experiment.saving([Saves()], 12)  # type: ignore[list-item]
    for t in range(12):
        for over in (False, True):
            now += 0.5
            consume(Paused(over, {0: Progress(t + over, not over)}, {0: (t, over)}.__getitem__))
    assert saved == [(0, True), (4, True), (8, True), (11, True)]


def test_a_corrupt_checkpoint_is_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(tmp_path)
    stop_after_first_save(monkeypatch)
    with pytest.raises(Stopped):
        execute(config)
    monkeypatch.undo()
    first = only(tmp_path) / "checkpoint" / "1"
    last = shutil.copytree(first, first.with_name("2"))
    for path in last.rglob("*"):
        if path.is_file():
            path.write_bytes(b"not a checkpoint")
    with pytest.raises(
        UserError, match=r"/2: the checkpoint cannot be read .*; move this folder away to go on from .* \(1\)"
    ):
        execute(config)
    last.rename(tmp_path / "away")
    broken = [path for path in first.rglob("*") if path.is_file()]
    for path in broken:
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint cannot be read .*; start a run of its own in another folder"):
        execute(config)
    assert all(path.read_bytes() == b"not a checkpoint" for path in broken)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after_first_save(monkeypatch)
    for window in (1, 2):
        with pytest.raises(Stopped):
            execute(composed(tmp_path / str(window), f"update.window={window}"))
    monkeypatch.undo()
    ours, other = only(tmp_path / "1"), only(tmp_path / "2")
    (ours / "checkpoint").rename(ours / "own")
    (other / "checkpoint").rename(ours / "checkpoint")
    with pytest.raises(UserError, match=r"made with update.window=2, .* says update.window=1; set it back"):
        execute(composed(tmp_path / "1", "update.window=1"))


def test_a_checkpoint_of_another_version_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(tmp_path)
    stop_after_first_save(monkeypatch)
    monkeypatch.setattr(checkpoint, "VERSION", 1)
    with pytest.raises(Stopped):
        execute(config)
    monkeypatch.undo()
    with pytest.raises(
        UserError, match=r"has the format of version 1, this code reads version 4; start a run of its own"
    ):
        execute(config)


def test_the_same_run_twice_at_once_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(tmp_path)
    refused: list[str] = []

    def again(self: Any, *args: Any) -> None:
        del self, args
        with pytest.raises(UserError, match="executed by another process") as error:
            execute(config)
        refused.append(str(error.value))
        raise Stopped

    monkeypatch.setattr(checkpoint.Checkpoints, "save", again)
    with pytest.raises(Stopped):
        execute(config)
    assert str(only(tmp_path)) in refused[0]


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Callable[[str, object], None]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(rundir.fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"\.lock: the file system has no locks \(No locks available\)") as error:
        execute(composed(tmp_path))
    documented("a file system without locks", error.value)


def test_a_full_disk_stops_with_the_last_checkpoint_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _path: Usage)
    with pytest.raises(UserError, match="disk is full"):
        execute(composed(tmp_path))
