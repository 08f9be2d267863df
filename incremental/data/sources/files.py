"""Files: from a path to bytes and text. What the system or a library says of them becomes a UserError here."""

import bz2
import codecs
import contextlib
import errno
import gzip
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import charset_normalizer
import polars as pl

from incremental.data import interactions
from incremental.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PATH = "data.source.path"
PACKED = ("", ".gz", ".zst", ".bz2", ".xz")  # what the name of a file of a known layout may end with
UNPACK = (  # the first bytes, the name, how to unpack
    (re.compile(rb"\x1f\x8b\x08"), "gzip", gzip.decompress),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd", zstd.decompress),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), "bzip2", bz2.decompress),
    (re.compile(rb"\xfd7zXZ\x00"), "xz", lzma.decompress),
)
OTHERS = (  # the first bytes of what is no table, and what to do
    (rb"PK\x03\x04", "a zip archive or a workbook; unpack it, or export the sheet as CSV"),
    (rb"\xd0\xcf\x11\xe0", "a workbook; export the sheet as CSV"),
    (rb"7z\xbc\xaf|Rar!\x1a|\x1f\x9d|\x04\x22\x4d\x18|.{257}ustar", "an archive; unpack it first"),
    (rb"ARROW1\x00|Obj\x01|SQLite format 3\x00|\x89HDF|\x93NUMPY|\x80[\x02-\x05][\x8c\x95c}\]]", "another format of "
     "tables; write it as CSV or Parquet"),
    (rb"PARE.*PARE\Z", "Parquet that is encrypted; write it without"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the data; fetch it (git lfs pull)"),
    (rb"\s*<(!doctype html|html|\?xml)", "a page of a website, not the data; download the file again"),
    (rb'\s*\[?\s*\{\s*"', "JSON; write it as CSV or Parquet"),
)  # fmt: skip
MARKS = (  # byte order marks; UTF-32's little one begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
SAMPLE = 8192  # bytes that an encoding is guessed from


class Text(NamedTuple):
    """A file's text with line ends as one line feed each, so that a line is a line of an editor."""

    content: str
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def at(path: Path | str, key: str = PATH, kind: str = "file or folder") -> Iterator[None]:
    """Whatever goes wrong at this path is a UserError that says what it is and which key names the path."""
    try:
        yield
    except FileNotFoundError as error:
        if os.path.islink(path):
            target = os.readlink(path)
            raise UserError(f"{path} is a link to {target}, which is not there; mend the link or set {key}") from error
        raise UserError(f"{path}: there is no such {kind}; set {key} to the {kind} with the data") from error
    except PermissionError as error:
        raise UserError(f"{path}: permission denied; ask for the right to read it, or set {key}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{Path(path).name[:40]}…: the name is too long for a file; correct {key}") from error
        if error.errno == errno.ENOTDIR:
            raise UserError(f"{path}: a part of this path is a file, not a folder; correct {key}") from error
        if error.errno == errno.ELOOP:
            raise UserError(f"{path}: its links lead in a circle; mend them or set {key}") from error
        raise UserError(f"{path} cannot be read: {error.strerror or error}; copy it to another place") from error
    except (ValueError, RuntimeError) as error:  # a NUL in a path; no home folder for ~
        raise UserError(f"{key} is {str(path)!r}, which is no path: {error}") from error


def path_to(path: str, *, folder: bool, key: str = PATH) -> Path:
    """The path if such a file (or folder) exists; else UserError that says which key to set."""
    kind, other = ("folder", "file") if folder else ("file", "folder")
    with at(path, key):
        found = local(path, key)
    with at(found, key, kind):
        is_folder = stat.S_ISDIR(found.stat().st_mode)
    if is_folder != folder:
        raise UserError(f"{found} is a {other}, expected a {kind}; set {key} to the {kind} with the data")
    return found


def local(path: str, key: str = PATH) -> Path:
    """The path on this machine; UserError for no path at all, which would be the working folder, and for an address."""
    if not path.strip():
        raise UserError(f"{key} is empty; set it to the path of the data (is a variable of the shell not set?)")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise UserError(f"{path} is an address, expected a path on this machine; download the data and set {key}")
    return Path(path).expanduser()


def beside(first: str, second: str, key: str) -> str:
    """The path of a second file, relative to the first one's folder; `key` names it."""
    with at(second, key):
        return str(Path(first).expanduser().parent / local(second, key))


def within(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder, compressed or not; None where there is none."""
    return next((folder / f"{name}{end}" for end in PACKED if os.path.lexists(folder / f"{name}{end}")), None)


def file_in(folder: Path, name: str) -> Path:
    """The same; UserError that says what the folder holds if it is not there."""
    found = within(folder, name)
    if found is None:
        present = sorted(path.name for path in listed(folder))
        raise UserError(
            f"{folder / name}: there is no such file; "
            f"{interactions.suggestion(name, present) if present else 'the folder is empty.'} "
            f"Set {PATH} to the folder with {name}."
        )
    return found


def listed(folder: Path) -> list[Path]:
    """What the folder holds, by name."""
    with at(folder):
        return sorted(folder.iterdir())


def content(path: Path, key: str = PATH) -> bytes:
    """The bytes of a file, unpacked if it is compressed; what it is, its first bytes say, not its name.

    Raises UserError for a file that cannot be read, that is broken, or that is known to be no table.
    """
    with at(path, key):
        data = path.read_bytes()
    for _ in range(2):  # some downloads are packed twice
        for magic, name, unpack in UNPACK:
            if magic.match(data):
                try:
                    data = unpack(data)
                except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError) as error:
                    raise UserError(
                        f"{path}: the {name} file is broken ({error}); download or copy it again"
                    ) from error
                break
    for first, what in OTHERS:
        if re.match(first, data, re.DOTALL | re.IGNORECASE):
            raise UserError(f"{path}: expected CSV or Parquet; this is {what}")
    return data


def parquet(path: Path, data: bytes) -> pl.DataFrame:
    """The table of a Parquet file's bytes, its columns in the types that they have there."""
    try:
        return pl.read_parquet(data)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: the Parquet file is broken ({reason}); write or copy it again") from error


def text(path: Path, data: bytes, *, encoding: str | None = None, old: bool = False) -> Text:
    """The text of a file's bytes: by its byte order mark, else in `encoding`, else in UTF-8.

    old: the data set is one of those from before UTF-8: what is not UTF-8 is read as cp1252, and said.
    Raises UserError, with the row and what to do, for bytes that are no such text.
    """
    if encoding is not None:
        try:
            "a".encode(encoding)
        except (LookupError, ValueError) as error:
            expected = "expected a name such as utf-16, cp1252 or gb18030, or null for UTF-8"
            raise UserError(
                f"data.source.encoding is {encoding!r}, which is no encoding of text; {expected}"
            ) from error
    mark, declared = next((m for m in MARKS if data.startswith(m[0])), (b"", encoding or "utf-8"))
    notes: tuple[str, ...] = ()
    try:
        decoded = _decoded(data[len(mark) :], declared)
    except UnicodeError as error:
        start = getattr(error, "start", 0) + len(mark)
        if mark or encoding:
            remedy = f"not {declared} text; save the file as UTF-8 or set data.source.encoding to its encoding"
            raise UserError(f"{path}, row {_row(data[:start], declared)}: {remedy}") from error
        if not old or b"\0" in data[:SAMPLE]:
            raise UserError(_advice(path, data, start)) from error
        try:
            decoded = _decoded(data, "cp1252")
        except UnicodeError:
            raise UserError(_advice(path, data, start)) from error
        notes = (f"{path}: not UTF-8, read as cp1252; if names look wrong, set data.source.encoding",)
    if encoding is not None and not mark and not _is_utf8(encoding) and _is_utf8_text(data):
        notes = (
            f"{path}: its bytes are UTF-8, but it is read as {encoding}; if names look wrong, leave "
            "data.source.encoding out, or save all files in one encoding",
        )
    if "\0" in decoded:
        start = len(decoded[: decoded.index("\0")].encode(declared))
        if encoding is None and not mark:
            raise UserError(_advice(path, data, start))
        row = _row(data[:start], declared)
        raise UserError(f"{path}, row {row}: a NUL character, so this is no text in {declared}; check the encoding")
    decoded = decoded.removeprefix("\ufeff")
    if "\r" in decoded:
        decoded = decoded.replace("\r\n", "\n").replace("\r", "\n")
    return Text(decoded, notes)


def _decoded(data: bytes, encoding: str) -> str:
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")) and data and b"\0" not in data:
        raise UnicodeError("no separator or line end of several bytes")  # two letters of ASCII are a character too
    decoded = data.decode(encoding)
    if encoding != "utf-8":
        decoded.encode()  # some codecs make what is no character
    return decoded


def _row(before: bytes, encoding: str) -> int:
    """The line that begins or goes on after these bytes."""
    head = before.decode(encoding, "replace")
    return head.count("\n") + head.count("\r") - head.count("\r\n") + 1


def _advice(path: Path, data: bytes, start: int) -> str:
    """What to do with a file that is not UTF-8 from byte `start` on."""
    wide = b"\0" in data[:SAMPLE]
    if wide or data[start : start + 1] == b"\0":
        names = _wide(data[:SAMPLE]) if wide else []
        if not names:
            row = _row(data[:start], "utf-8")
            return f"{path}, row {row}: a NUL character, which no text has; delete it, or set {PATH} to CSV or Parquet"
    else:
        names = _narrow(data[data.rfind(b"\n", 0, start) + 1 :][:SAMPLE])
    row = _row(data[:start], names[0] if wide else "utf-8")
    guess = f"it looks like {' or '.join(names)}" if names else "its encoding cannot be told"
    return (
        f"{path}, row {row}: not UTF-8 text; {guess}; set data.source.encoding={names[0] if names else 'NAME'}"
        f"{'' if names else ' (such as cp1251 or gb18030)'}, or save the file as UTF-8"
    )


def _wide(sample: bytes) -> list[str]:
    """The encoding with two or four bytes a character in which most characters are ASCII, if there is one."""
    likely: dict[str, int] = {}
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        decoded = sample[: len(sample) // 4 * 4].decode(name, "replace")
        if not {"\0", "\ufffd"} & set(decoded[:-1]):
            likely[name] = sum(character.isascii() for character in decoded)
    best = max(likely, key=lambda name: likely[name], default="")
    return [best] if likely.get(best, 0) * 40 > len(sample) else []  # some characters in ten: digits, separators


def _narrow(sample: bytes) -> list[str]:
    """At most three encodings in which the text makes sense."""
    if len(sample) == SAMPLE and b"\n" in sample:  # or it ends within a character
        sample = sample[: sample.rindex(b"\n")]
    best = charset_normalizer.from_bytes(sample).best()
    names = [name for name in best.could_be_from_charset if not _is_utf8(name)] if best is not None else []
    return [name.replace("_", "-") for name in sorted(names, key=lambda name: name != "cp1252")[:3]]


def _is_utf8_text(data: bytes) -> bool:
    """Whether the bytes have letters of more than one byte, and all are UTF-8."""
    if data.isascii():
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_utf8(name: str) -> bool:
    return codecs.lookup(name).name in {"utf-8", "utf-8-sig", "ascii", "utf-7"}
