"""The shell's part of every command: streams that last, and the system's errors in one line."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from incremental import shell
from incremental.errors import UserError

Documented = Callable[[str, object], None]
COMMAND = """
import os, sys
from incremental import shell
shell.enter()
with shell.reported():
    for number in range(3):
        print("\\xfc\\u2026\\xb1", number, flush=True)
        print(sys.getfilesystemencoding(), file=sys.stderr)
    open(os.environ["DONE"], "w").close()
"""


def command(done: Path, shape: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command that prints and then works, in a shell's line of this shape."""
    line = shape.format(command=f'"{sys.executable}" -c "$COMMAND"')
    path = os.pathsep.join(sys.path)
    full = {**os.environ, "COMMAND": COMMAND, "PYTHONPATH": path, "DONE": str(done), **environment}
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], env=full, capture_output=True, timeout=60)


@pytest.mark.parametrize("shape", ["{command} | head -1", "{command} | true", "{command} >&-", "{command} 2>&-"])
def test_the_work_is_done_whoever_reads(tmp_path: Path, shape: str) -> None:
    ran = command(tmp_path / "done", shape)
    assert ran.returncode == 0
    assert b"rror" not in ran.stderr
    assert (tmp_path / "done").exists()


def test_lost_lines_are_said_once_the_work_is_done(tmp_path: Path, documented: Documented) -> None:
    ran = command(tmp_path / "done", "{command} > /dev/full")
    assert ran.returncode == 2
    assert (tmp_path / "done").exists()
    *_, last = ran.stderr.decode().splitlines()
    documented("a table that is written to a full disk by the shell", last)


def test_a_terminal_of_ascii_is_shown_what_it_can(tmp_path: Path) -> None:
    ran = command(tmp_path / "dön", "{command}", LC_ALL="C", LANG="", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert (ran.returncode, ran.stdout) == (0, b"??? 0\n??? 1\n??? 2\n")
    assert ran.stderr.split() == [b"utf-8"] * 3  # names of files are UTF-8 all the same
    assert (tmp_path / "dön").exists()


def test_a_stream_replaces_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1") as latin:
        for name in ("stdout", "__stdout__"):
            monkeypatch.setattr(sys, name, latin)
        shell.streams()
        print("ü…\udcff")  # the last one is a byte of a name that is not UTF-8
        sys.stdout.flush()
    assert (tmp_path / "out").read_bytes() == b"\xfc??\n"


def told(error: OSError) -> str:
    """What a command says."""
    with pytest.raises(UserError) as said, shell.translated():
        raise error
    return str(said.value)


@pytest.mark.parametrize(
    ("number", "situation"),
    [
        (errno.ENOSPC, "a full disk"),
        (errno.EDQUOT, "a used-up quota"),
        (errno.EACCES, "a file without the right to it"),
        (errno.EROFS, "a read-only file system"),
        (errno.ENAMETOOLONG, "a file name that is too long"),
        (errno.ENOTDIR, "a file in place of a folder"),
        (errno.EEXIST, "a file where a folder is to be made"),
        (errno.ELOOP, "links in a circle"),
        (errno.EMFILE, "too many open files"),
    ],
)
def test_what_the_system_refuses_names_the_path_and_what_to_do(
    number: int, situation: str, tmp_path: Path, documented: Documented
) -> None:
    said = told(OSError(number, os.strerror(number), str(tmp_path / "file")))
    assert said.startswith(f"{tmp_path / 'file'}: ")
    assert ";" in said
    documented(situation, said)


def test_a_link_to_nothing_is_named(tmp_path: Path, documented: Documented) -> None:
    (tmp_path / "model").symlink_to("gone")
    for path in (tmp_path / "model", tmp_path / "model" / "config.json"):
        with pytest.raises(UserError) as said, shell.translated():
            path.read_bytes()
        assert "is a link to gone, which is not there; copy what it links to (cp -L)" in str(said.value)
        documented("a link to nothing", said.value)
    assert "is a link" not in told(FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "none")))


def test_other_refusals_are_told_too(documented: Documented) -> None:
    assert told(ConnectionError("the hub is away\nand more")) == "the hub is away"
    with pytest.raises(UserError) as said, shell.translated():
        "ü".encode("ascii")
    documented("a file name that the locale has no characters for", said.value)
    with pytest.raises(UserError) as said, shell.translated():
        raise RuntimeError("Could not determine home directory.")
    documented("a path from the home folder, without one", said.value)
    with pytest.raises(UserError) as said, shell.translated():
        raise MemoryError("Unable to allocate 745. GiB for an array with shape (100000000000,) and data type float64")
    documented("data that does not fit into memory", said.value)
    with pytest.raises(UserError, match=r"out of memory \(MemoryError\)"), shell.translated():
        raise MemoryError
    with pytest.raises(RuntimeError, match="a mistake of the code"), shell.translated():
        raise RuntimeError("a mistake of the code")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("if x > 0: pass", True),
        ("float(x)", True),
        ("np.asarray(x)", True),
        ("range(x)", True),
        ("np.linalg.norm(x)", True),
        ("x + 'a'", False),
    ],
)
def test_a_traced_value_in_python_is_told_by_its_line(
    tmp_path: Path, documented: Documented, line: str, told: bool
) -> None:
    def raised(file: Path) -> Exception:
        scope: dict[str, Any] = {"np": np}
        exec(compile(f"def hook(x):\n    {line}\n", file, "exec"), scope)
        with pytest.raises(Exception) as caught, shell.translated():
            jax.jit(scope["hook"])(1)
        return caught.value

    error = raised(tmp_path / "mine.py")
    assert isinstance(error, UserError) == told
    if told:
        documented("a plugin that asks in Python for a value of the running program", error)
        assert str(error).startswith(f"{tmp_path / 'mine.py'}:2: ")
    assert not isinstance(raised(Path(shell.__file__).parent / "own.py"), UserError)  # a fault of this package


def test_mistakes_end_with_two_and_a_stop_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert shell.status(lambda: open("/no/where"), "command") == 2  # noqa: SIM115
    assert capsys.readouterr().err == "command: /no/where: no such file or folder; check the path\n"
    assert shell.status(stopped) == 130
    assert "continues" in capsys.readouterr().err
    assert shell.status(io.BytesIO) == 0


def test_a_note_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("one", "two", "one"):
        shell.once(line)
    assert capsys.readouterr().err == "one\ntwo\n"
