"""What every command shares towards the shell: streams that never stop the work, and errors in one line."""

import codecs
import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from incremental.errors import UserError

ELSEWHERE = "choose another place (runs=… for runs, --to for an export, --html and --output for a report)"
REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and start the same command again: a run continues",
    errno.EDQUOT: "the quota of the disk is used up; free some space and start the same command again: a run continues",
    errno.EACCES: f"there is no right to read or write it; ask its owner for the right, or {ELSEWHERE}",
    errno.EPERM: f"there is no right to change it; ask its owner for the right, or {ELSEWHERE}",
    errno.EROFS: f"the file system is read-only; {ELSEWHERE}",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: f"a file is where a folder is needed; check the path, or {ELSEWHERE}",
    errno.EEXIST: f"a file is there already; {ELSEWHERE}",
    errno.EISDIR: "a folder is where a file is needed; check the path",
    errno.ELOOP: "the links lead in a circle; remove one of them",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n`",
    errno.EIO: "the device reports an error; check the disk",
}
"""what is wrong and what to do, by the system's number"""
GONE = (errno.EPIPE, errno.EIO)  # the reader has closed the pipe, or the terminal


class Lasting(io.FileIO):
    """The file of a stream, unbuffered. What it cannot write is lost, and the program goes on; `lost` says why."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = error
            return memoryview(data).nbytes


def enter() -> None:
    """The first thing that a command does: it reads names and files as UTF-8, and its streams last.

    In a locale of ASCII, as minimal containers have it, Python cannot even name a file beyond it. Then the command
    starts anew with Python's UTF-8 mode; what the terminal cannot show is replaced.
    """
    if ascii_only() and os.environ.get("PYTHONUTF8") != "1":
        anew = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{sys.stdout.encoding if sys.stdout else 'ascii'}:replace"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **anew})
    streams()


def ascii_only() -> bool:
    """Whether files' names can be ASCII only."""
    return codecs.lookup(sys.getfilesystemencoding()).name == "ascii"


def streams() -> None:
    """Makes the process's own output streams last: no closed pipe and no character that they lack is an error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the shell has closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):  # neither a test's nor a notebook's
            with contextlib.suppress(OSError, ValueError):  # it has no file
                raw = Lasting(stream.fileno(), "w", closefd=False)
                stream.flush()
                file = io.BufferedWriter(raw)
                setattr(
                    sys,
                    name,
                    io.TextIOWrapper(file, stream.encoding, "replace", line_buffering=stream.line_buffering),
                )


def lost() -> OSError | None:
    """Why something printed did not arrive, where somebody may miss it; a reader who is gone does not."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
        error = getattr(sys.stdout.buffer, "raw", None)
        if isinstance(error, Lasting) and error.lost and error.lost.errno not in GONE:
            return error.lost
    return None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Gives what the system refuses as a UserError with the path and what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(said(error)) from error
    except UnicodeEncodeError as error:
        raise UserError(
            f"{error.object!r}: {error.encoding} has no such character; start the command with PYTHONUTF8=1"
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("Could not determine home directory"):
            raise
        raise UserError("~: there is no home folder; set HOME, or write paths out") from error
    except FloatingPointError as error:
        raise UserError(f"debug=nan: {error}") from error
    except MemoryError as error:
        why = (str(error).splitlines() or ["MemoryError"])[0]
        raise UserError(
            f"out of memory ({why}): what is read does not fit into what is free; a size may be mistyped, else take "
            "fewer events or shorter histories (data.history)"
        ) from error
    except TypeError as error:
        if not (place := traced(error)):
            raise
        raise UserError(
            f"{place}: a value that is known only while the program runs is used in Python, as in `if`, `float()` or a "
            "function of numpy; compute with jax.numpy and jax.lax (jnp.where, jax.lax.cond)"
        ) from error


def traced(error: TypeError) -> str:
    """The file and line, such as a plugin's, that uses a traced value in Python; "" of another error, or where it is
    this package's line."""
    errors = getattr(sys.modules.get("jax"), "errors", None)
    kinds = ("ConcretizationTypeError", "TracerArrayConversionError", "TracerIntegerConversionError")
    if errors is None or not isinstance(error, tuple(getattr(errors, kind) for kind in kinds)):
        return ""
    folders = [
        Path(sys.modules[name].__file__ or "").parent
        for name in ("jax", "flax", "optax", "numpy")
        if name in sys.modules
    ]
    frames = traceback.extract_tb(error.__traceback__)
    last = next(each for each in reversed(frames) if not {*folders} & {*Path(each.filename).parents})
    return "" if Path(__file__).parent in Path(last.filename).parents else f"{last.filename}:{last.lineno}"


def said(error: OSError) -> str:
    """An error of the system in words: the path, what is wrong, what to do."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    what = REMEDIES.get(error.errno or 0) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    if error.errno == errno.ENOENT and path and (link := dangling(Path(path))):
        what = f"{link} is a link to {os.readlink(link)}, which is not there; copy what it links to (cp -L), or mend it"
    return f"{path}: {what}" if path else what


def dangling(path: Path) -> Path | None:
    """The link to nothing that a path is, or goes through."""
    return next((each for each in (path, *path.parents) if each.is_symlink() and not each.exists()), None)


@contextlib.contextmanager
def reported(speaker: str = "error") -> Iterator[None]:
    """Says in one line what the user can mend, and exits with 2."""
    streams()
    try:
        with translated():
            yield
    except UserError as error:
        print(f"{speaker}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; a run continues from its last checkpoint, by the same command", file=sys.stderr)
        raise SystemExit(130) from None
    if missing := lost():
        print(f"{speaker}: the work is done, but not all that was printed is written: {said(missing)}", file=sys.stderr)
        raise SystemExit(2) from None


def status(work: Callable[[], object], speaker: str = "error") -> int:
    """The exit status of a command's work: 0, or 2 once the mistake was said."""
    try:
        with reported(speaker):
            work()
    except SystemExit as stopped:
        return int(str(stopped.code))
    return 0


def path(text: str) -> Path:
    """A path that an option gives; a shell leaves the ~ of --to=~/x as it is."""
    return Path(text).expanduser()


@cache
def once(line: str) -> None:
    """A note on stderr, which is said once in a process however often it is given."""
    print(line, file=sys.stderr, flush=True)


def cache_folder() -> Path | None:
    """incremental/ in the user's cache folder; None, and a note, for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "incremental"
    except RuntimeError:
        once("note: there is no home folder, so nothing is kept between runs; set HOME or XDG_CACHE_HOME to keep it")
        return None
