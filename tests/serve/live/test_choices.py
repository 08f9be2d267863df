"""Promotion and rollback are records of the log; parts that die are started again."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from incremental.errors import UserError
from incremental.log.place import open_log
from incremental.serve.live import choices, cli, supervisor
from incremental.serve.live.cuts import cuts
from incremental.serve.live.settings import live, note, noted
from incremental.serve.live.tail import Tail


def folder_of(tmp_path: Path) -> Path:
    """A live folder with a champion of versions 0 to 3 and a challenger of 0 and 1."""
    folder = tmp_path / "live"
    for name, newest in (("champion", 3), ("replay", 1)):
        for number in range(newest + 1):
            (folder / "learners" / name / "versions" / f"{number:06d}").mkdir(parents=True)
        (folder / "learners" / name / "current").write_text(f"{newest}\n")
    note(live(folder=folder, log=f"{folder}/log.sqlite", cut=cuts()))
    open_log(f"{folder}/log.sqlite", create=True).close()
    return folder


def serves(folder: Path) -> tuple[str, int | None]:
    tail = Tail(open_log(f"{folder}/log.sqlite"), "")
    tail.read()
    tail.log.close()
    return choices.serving(folder / "learners", "champion", next(reversed(tail.choices.values()), None))


def test_the_newest_choice_serves_and_before_any_the_champion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], documented: Callable[[str, object], None]
) -> None:
    folder = folder_of(tmp_path)
    assert serves(folder) == ("champion", 3)
    for command, expected in (
        (["rollback"], ("champion", 2)),
        (["rollback"], ("champion", 1)),
        (["rollback", "--version", "0"], ("champion", 0)),
        (["promote", "replay"], ("replay", 1)),
        (["rollback"], ("replay", 0)),
        (["promote", "champion", "--version", "3", "--reason", "it was better"], ("champion", 3)),
    ):
        assert cli.main([command[0], str(folder), *command[1:]]) == 0
        assert serves(folder) == expected
    assert "champion serves from now on, version 3" in capsys.readouterr().out

    for arguments, situation in (
        (["promote", str(folder), "nobody"], "promoting a learner without a version"),
        (["promote", str(folder), "replay", "--version", "7"], "promoting a version that there is not"),
        (["promote", str(folder), "replay", "--reason", "x" * 1001], "promoting for a reason that is too long"),
        (["rollback", str(folder), "--version", "9"], "going back to a version that there is not"),
        (["rollback", str(folder), "--version", "3"], "going back to the version that serves"),
        (["rollback", f"{tmp_path}/x"], "going back in a folder that is no live folder"),
    ):
        assert cli.main(arguments) == 2
        documented(situation, capsys.readouterr().err.removeprefix("error: ").strip())
    assert serves(folder) == ("champion", 3)


def test_a_choice_may_be_given_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    note(live(folder=Path("live"), log="live/log.sqlite", cut=cuts()))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert noted(folder) == (str(folder / "log.sqlite"), "champion")
    assert cli.main(["rollback", str(folder)]) == 0
    assert serves(folder) == ("champion", 2)
    note(live(folder=folder, log="nats://a:1/live", cut=cuts()))
    assert noted(folder)[0] == "nats://a:1/live"


def test_the_first_version_has_none_before(tmp_path: Path, documented: Callable[[str, object], None]) -> None:
    learners = folder_of(tmp_path) / "learners"
    for now, situation in (
        (("champion", None), "going back before the first version"),
        (("champion", 0), "going back from the first version"),
    ):
        with pytest.raises(UserError) as error:
            choices.rollback(learners, now)
        documented(situation, error.value)
    assert choices.rollback(learners, ("champion", 2)).version == 1


def process(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def test_a_part_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner dies twice, once by its own refusal; then all are told to end, and do."""
    monkeypatch.setattr(supervisor, "PAUSES", (0.0,))
    monkeypatch.setattr(supervisor, "LOOK", 0.01)
    told, started, made = threading.Event(), [], []

    def spawn(part: str) -> "subprocess.Popen[bytes]":
        started.append(part)
        if started.count("learner:champion") == 3:
            told.set()
        dies = ("import os; os.kill(os.getpid(), 9)", "import sys; sys.exit(2)", "import time; time.sleep(60)")
        made.append(process(dies[started.count(part) - 1 if part == "learner:champion" else 2]))
        return made[-1]

    supervisor.kept(["server", "learner:champion"], spawn, told.is_set, needed=["server", "learner:champion"])
    assert started == ["server", *["learner:champion"] * 3]
    assert all(each.poll() is not None for each in made)


def test_parts_that_end_by_the_same_signal_have_not_failed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C reaches all processes of a terminal, here while the supervisor sleeps."""
    made, told = [process(""), process("import sys; sys.exit(2)")], threading.Event()

    def sleep(_: float) -> None:
        for each in made:
            each.wait()
        told.set()

    monkeypatch.setattr("incremental.serve.live.supervisor.time.sleep", sleep)
    parts = iter(made)
    supervisor.kept(["server", "learner:champion"], lambda _: next(parts), told.is_set, needed=["server"])
    assert capfd.readouterr().err == ""


def test_what_a_part_refuses_ends_the_loop_or_leaves_a_challenger_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "LOOK", 0.01)
    made = []

    def spawn(part: str) -> "subprocess.Popen[bytes]":
        pause = 0.1 if part == "server" else 0.0
        made.append(process(f"import sys, time; time.sleep({pause}); sys.exit(2)"))
        return made[-1]

    with pytest.raises(UserError, match="server: it cannot go on"):
        supervisor.kept(["server", "learner:other"], spawn, lambda: False, needed=["server"])
    assert "learner:other: it is left out" in capfd.readouterr().err
    assert all(each.poll() == 2 for each in made)


def test_a_loop_waits_for_the_parts_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Callable[[str, object], None]
) -> None:
    """A supervisor's parts hold the folder's lock as long as one of them lives, though it is gone."""
    sleeper = tmp_path / "part"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    monkeypatch.setattr("incremental.serve.live.supervisor.signal.signal", lambda *_: None)
    monkeypatch.setattr(supervisor, "LOOK", 0.01)
    made: list[subprocess.Popen[bytes]] = []

    def dies(names: list[str], spawn: supervisor.Spawn, *_: object, **__: object) -> None:
        """In place of `kept`: of a supervisor that was killed no part was told to end."""
        made.append(spawn(names[0]))

    monkeypatch.setattr(supervisor, "kept", dies)
    settings = live(folder=tmp_path / "live", log=f"{tmp_path}/live/log.sqlite", cut=cuts())
    supervisor.supervise(settings, [])
    monkeypatch.setattr(supervisor, "PATIENCE", 0.05)
    try:
        with pytest.raises(UserError) as error:
            supervisor.supervise(settings, [])
        documented("a second live loop in one folder", error.value)
        monkeypatch.setattr(supervisor, "PATIENCE", 30.0)
        threading.Timer(0.1, made[0].kill).start()
        supervisor.supervise(settings, [])
        assert len(made) == 2
    finally:
        for each in made:
            each.kill()
            each.wait()


def test_a_signal_that_comes_while_one_is_taken_stops_nothing() -> None:
    """As where Ctrl-C reaches the loop, and what has started it hands it on. Here one comes at each line."""
    code = (
        "import os, signal, sys; from incremental.serve.live.parent import told; ends = told()\n"
        "def line(*_):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return line\n"
        "sys.settrace(line)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "ends()\n"
        "sys.settrace(None)\n"
        "sys.exit(not ends())"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


def test_a_part_ends_with_a_supervisor_that_was_killed() -> None:
    part = (
        "import time; from incremental.serve.live.parent import follow; follow(); print('on', flush=True); "
        "time.sleep(60)"
    )
    middle = (
        "import os, subprocess, sys; os.environ['INCREMENTAL_SUPERVISOR'] = str(os.getpid()); "
        "subprocess.Popen([sys.executable, '-c', sys.argv[1]]); sys.stdin.read()"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", middle, part], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == b"on\n"
    supervisor.kill()
    begun = time.monotonic()
    assert supervisor.stdout.read() == b""  # until the part has ended too
    assert time.monotonic() - begun < 30
    supervisor.communicate()
