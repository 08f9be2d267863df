"""A table in one file or in several: a folder, a glob, CSV or Parquet."""

import glob
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import polars as pl

from incremental.data import ids
from incremental.data.sources import delimited, files
from incremental.data.sources.sheet import Sheet, lines
from incremental.errors import UserError

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
NOTES = 5  # of the files of one log, which may be thousands


class Dialect(NamedTuple):
    """How text is to be read: the arguments of `delimited.delimited`."""

    separator: str
    header: Sequence[str] | None = None
    quoted: bool = False
    encoding: str | None = None
    name: Callable[[str], str] = str
    option: str = ""  # the config key that says the separator


def sheet(path: str, dialect: Dialect, key: str = files.PATH) -> Sheet:
    """The table at a path: a file, the files of a folder (and of folders in it), or those that a glob matches.

    Files whose names begin with `_` or `.` do not count, nor do those without rows. `year=2024` in a folder's name is
    a column of its files. Raises UserError that names the file, where none is there or one cannot be read.
    """
    found, root = _found(path, key)
    if root is None:
        one = _read(found[0], dialect, key)
        if not one.frame.height:
            raise UserError(f"{found[0]} is empty: it has no rows{' below its header' if one.frame.width else ''}")
        return one
    sheets = [_partitioned(_read(file, dialect, key), file, root) for file in found]
    filled = [one for one in sheets if one.frame.height]
    if not filled:
        raise UserError(f"{path}: its files are empty: none of the {len(found)} has a row; set {key} to the data")
    return _joined(filled, path)


def _found(path: str, key: str) -> tuple[list[Path], Path | None]:
    """The files at a path, and the folder that they are in if the path does not mean one file."""
    with files.at(path, key):
        given = files.local(path, key)
        if re.search(r"[*?\[]", path) and not (given.exists() or given.is_symlink()):
            return _matched(given, path, key)
    with files.at(given, key, "file"):
        is_folder = stat.S_ISDIR(given.stat().st_mode)
    if not is_folder:
        return [given], None
    found = _inside(given, key)
    if not found:
        raise UserError(f"{given}: the folder has no files to read; set {key} to the file or folder with the data")
    return found, given


def _matched(pattern: Path, path: str, key: str) -> tuple[list[Path], Path]:
    """The files that a pattern matches, also those of matched folders, and the folder that it begins with."""
    names = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    found = [
        file for one in names if not _is_hidden(one.name) for file in (_inside(one, key) if one.is_dir() else [one])
    ]
    if not found:
        raise UserError(f"{path}: no file matches; set {key} to a file, a folder or a pattern such as part-*.csv")
    fixed = re.split(r"[*?\[]", str(pattern))[0]
    return list(dict.fromkeys(found)), Path(fixed[: fixed.rfind("/") + 1] or ".")


def _inside(folder: Path, key: str, above: frozenset[Path] = frozenset()) -> list[Path]:
    """The files of a folder and of the folders in it, by name; a link to a folder above is not followed."""
    found = []
    with files.at(folder, key):
        above |= {folder.resolve()}
        for one in sorted(folder.iterdir()):
            if _is_hidden(one.name) or (one.is_dir() and one.resolve() in above):
                continue
            found += _inside(one, key, above) if one.is_dir() else [one]
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _read(file: Path, dialect: Dialect, key: str) -> Sheet:
    data = files.content(file, key)
    if data.startswith(b"PAR1"):
        return Sheet(files.parquet(file, data), str(file))
    if data and file.suffix.lower() in {".parquet", ".pq"}:
        raise UserError(f"{file}: not a Parquet file; write it again, or rename it to .csv if it is text")
    separator, header, quoted, encoding, name, option = dialect
    one = delimited.part(file, data, separator, header, quoted=quoted, encoding=encoding, name=name)
    return one._replace(option=option)


def _partitioned(one: Sheet, file: Path, root: Path) -> Sheet:
    """The sheet with a column for each `key=value` in the names of the folders between root and file."""
    levels = [part.split("=", 1) for part in file.relative_to(root).parts[:-1] if "=" in part]
    columns = {
        unquote(name): None if value == NO_VALUE else unquote(value)
        for name, value in levels
        if unquote(name) not in one.frame.columns
    }
    if not one.frame.height:
        return one
    return one._replace(
        frame=one.frame.with_columns(pl.lit(value, pl.String).alias(name) for name, value in columns.items())
    )


def _joined(sheets: list[Sheet], path: str) -> Sheet:
    """The sheets one below another; each row keeps its file and its line there."""
    names = pl.Enum([one.origin for one in sheets])
    lacking: dict[str, str] = {}
    present = {name for one in sheets for name in one.frame.columns}
    for one in sheets:
        for name in present - set(one.frame.columns):
            lacking.setdefault(name, one.origin)
    types = {name: {one.frame.schema.get(name) for one in sheets} - {None} for name in sorted(present)}
    several = [name for name, found in types.items() if len(found) > 1 and any(t.is_float() for t in found if t)]
    inexact = {name: pl.concat([_inexact(one, name) for one in sheets]) for name in several}
    try:
        frame = pl.concat([one.frame for one in sheets], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: its files have different types ({reason}); write them with the same ones") from error
    file = pl.concat([pl.repeat(one.origin, one.frame.height, dtype=names, eager=True) for one in sheets])
    line = pl.concat([lines(one) for one in sheets])
    first = sheets[0]
    notes = tuple(note for one in sheets for note in one.notes)
    if len(notes) > NOTES:
        notes = (*notes[:NOTES], f"{path}: {len(notes) - NOTES:,} more notes on its files")
    asked = first.header, first.separator, first.option
    return Sheet(frame, path, line, file.alias("file"), *asked, lacking, notes, inexact)


def _inexact(one: Sheet, name: str) -> pl.Series:
    """[N] bool: the floats of a column that are no exact id, which no one sees once they have another file's type."""
    found = None
    if name in one.frame.columns and one.frame.schema[name].is_float():
        found = ids.read(one.frame[name])
    return pl.repeat(False, one.frame.height, dtype=pl.Boolean, eager=True) if found is None else found.bad
