"""DIGINETICA as ADER's authors published it: one file a period, lines `session item` in time order."""

import re
from pathlib import Path

import polars as pl

from incremental.data import ids, interactions
from incremental.data.interactions import Table
from incremental.data.sources import files
from incremental.data.sources.delimited import delimited
from incremental.data.sources.sheet import lines
from incremental.domains import Count, checked
from incremental.errors import UserError

PERIOD = r"period_(\d+)\.txt(?:\.gz|\.zst|\.bz2|\.xz)?"


@checked
def diginetica(*, path: str, periods: Count | None = None, encoding: str | None = None) -> Table:
    """Read period_0.txt, period_1.txt, … of a folder. The time of an interaction is the number of its file.

    path:    the folder
    periods: only the first so many files are read; None: all
    encoding: of files that are not UTF-8 and have no byte order mark

    A user is a session within a period, "period:session": the protocol (Mi, Lin and Faltings, RecSys 2020)
    takes a session that straddles two periods as two. Raises UserError that names file, row and column for a
    missing folder, no such files, and a line without session or item.
    """
    folder = files.path_to(path, folder=True)
    found: dict[int, Path] = {}
    for file in files.listed(folder):
        if match := re.fullmatch(PERIOD, file.name):
            other = found.setdefault(int(match[1]), file)
            if other != file:
                raise UserError(f"{folder}: {other.name} and {file.name} are the same period; remove one of them")
    if not found:
        raise UserError(f"{folder}: there is no period_0.txt; set data.source.path to the folder with period_*.txt")
    names = pl.Enum([str(file) for file in found.values()])
    parts, notes = [], list[str]()
    lacking = [n for n in range(max(sorted(found)[:periods])) if n not in found]
    if lacking:
        notes.append(f"{folder}: {len(lacking)} files are not there, the first: period_{lacking[0]}.txt")
    for period in sorted(found)[:periods]:
        sheet = delimited(found[period], separator=" ", header=("session", "item"), encoding=encoding)
        notes += sheet.notes
        read = {}
        for column in ("session", "item"):
            values = sheet.frame[column]
            read[column], said = interactions.identities(values, sheet.origin, lines(sheet))
            notes += said
            none = ids.missing(read[column], words=False)
            interactions.refuse(none, values, sheet.origin, lines(sheet), "an id; lines are 'session item'")
        parts.append(
            pl.DataFrame(read).select(
                pl.format("{}:{}", pl.lit(str(period)), pl.col("session")).alias("user"),
                "item",
                pl.lit(period, pl.Int64).alias("time"),
                pl.lit(period, pl.Int32).alias("period"),
                lines(sheet),
                pl.lit(sheet.origin, names).alias("file"),
            )
        )
    return Table(pl.concat(parts), f"{folder}/period_*.txt", notes=tuple(notes))
