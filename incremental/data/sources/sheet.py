"""A sheet: a table as it was read, which knows where each of its rows stands."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from incremental.data import interactions
from incremental.errors import UserError

SEPARATORS = {"\t": "a tab", "::": "'::'", ";": "';'", ",": "','", "|": "'|'", " ": "a blank"}
DATA = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?|\d{4}-\d\d-\d\d.*|\d\d?[./]\d\d?[./]\d{4}.*")


class Sheet(NamedTuple):
    """A file, or several that are read as one: a column a field, text unless the file itself has types."""

    frame: pl.DataFrame
    origin: str
    line: pl.Series | None = None  # the line of each row, int64, as an editor counts; None: rows count from 1
    file: pl.Series | None = None  # the file of each row, where there are several
    header: tuple[str, ...] = ()  # the header's fields as they are written; (): the names come from elsewhere
    separator: str = ""
    option: str = ""  # the config key that says the separator; "": the layout says it
    lacking: Mapping[str, str] = {}  # a column that one of several files lacks, and that file
    notes: tuple[str, ...] = ()
    inexact: Mapping[str, pl.Series] = {}  # a column of several types: bool [N], floats that are no exact id

    @property
    def place(self) -> str | pl.Series:
        """Where a row stands: the file, or each row's."""
        return self.origin if self.file is None else self.file


def lines(sheet: Sheet) -> pl.Series:
    """The line of each row, int64 [N]."""
    if sheet.line is not None:
        return sheet.line.alias("line")
    return pl.int_range(1, sheet.frame.height + 1, dtype=pl.Int64, eager=True).alias("line")


def require(sheet: Sheet, *columns: str, remedy: str = "Rename the column.", likely: str = "") -> None:
    """Raise UserError unless the sheet has the columns, each once and by a name that is no datum.

    `likely` is the name that a missing column probably has.
    """
    present = sheet.frame.columns
    for column in columns:
        if column in sheet.lacking:
            raise UserError(
                f"{sheet.lacking[column]}: column '{column}' is missing, which other files of {sheet.origin} have; "
                "the files of one log need the same columns; give one file, or a pattern that leaves this one out"
            )
        if column not in present:
            known = interactions.suggestion(column, [name for name in present if AGAIN not in name], likely=likely)
            raise UserError(f"{sheet.origin}: column '{column}' is missing; {known} {_doubt(sheet, column) or remedy}")
        if f"{column}{AGAIN}1" in present:
            raise UserError(f"{sheet.origin}: the header names '{column}' more than once; rename or delete one of them")
        if _is_value(column, sheet.header):
            raise UserError(f"{sheet.origin}: '{column}' cannot be a column's name. {_headerless(sheet)}")


def require_named(sheet: Sheet, likely: str = "", /, **columns: str | None) -> None:
    """The same for columns that the config names: config key = column (None: not used)."""
    for key, column in columns.items():
        if column is not None:
            require(sheet, column, remedy=f"Set data.source.{key} to the name of the column.", likely=likely)


TAB = "\\t"  # as it is written on a command line
AGAIN = "\0"  # between a name that a header repeats and the number of its repetition


def distinct(names: Sequence[str]) -> list[str]:
    """The names, each once: a second `a` becomes a name that nobody can ask for."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, -1) + 1
    count = dict.fromkeys(seen, 0)
    unique = []
    for name in names:
        unique.append(f"{name}{AGAIN}{count[name]}" if count[name] else name)
        count[name] += 1
    return unique


def _doubt(sheet: Sheet, column: str) -> str:
    """What may be wrong with the header as a whole: its separator, or that it is none; "" if nothing seems so."""
    whole = sheet.separator.join(sheet.header)
    for separator, called in SEPARATORS.items():
        names = [re.sub(r":\w+$", "", field.strip().strip('"')) for field in whole.split(separator)]
        if separator == sheet.separator or len(names) == 1 or (column not in names and len(sheet.header) > 1):
            continue
        between = f"The header's fields look separated by {called}"
        if not sheet.option:
            return f"{between}: put {SEPARATORS.get(sheet.separator, repr(sheet.separator))} between the fields."
        shown = separator.replace("\t", TAB)
        return f"{between}: set '{sheet.option}=\"{shown}\"'."
    return _headerless(sheet) if _is_data(sheet.header) else ""


def _headerless(sheet: Sheet) -> str:
    fields = ", ".join(repr(field) for field in sheet.header[:4])
    option = sheet.option == "data.source.separator"
    names = f", or name all {len(sheet.header)} columns as in 'data.source.columns=[user,item,time]' (data=columns)"
    return (
        f"The first line looks like data ({fields}), not like a header: if there is none, add a line with the names "
        f"above it{names if option else ''}."
    )


def _is_value(column: str, header: Sequence[str]) -> bool:
    """Whether a column's name is the first row's value: a date, a long number, or a number among others."""
    if not DATA.fullmatch(column) or not _is_data(header):
        return False
    many = 2 * sum(DATA.fullmatch(field.strip()) is not None for field in header) > len(header)
    return many or len(column) > 4  # a year may be the name of a column


def _is_data(header: Sequence[str]) -> bool:
    """Whether a header has fields that are numbers or dates, and does not merely count its columns.

    A nameless column before those that are counted is the numbers of the rows, which some programs write.
    """
    names = list(header[1:] if header and not header[0].strip() else header)
    counts = [[str(n + first) for n in range(len(names))] for first in (0, 1)]
    return any(DATA.fullmatch(name.strip()) for name in names) and names not in counts
