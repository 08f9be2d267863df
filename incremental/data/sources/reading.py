"""Reading tabular files so that whatever is wrong with them is told with file, row and column."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from incremental.data import interactions
from incremental.data.interactions import Table
from incremental.errors import UserError

# Formats of ISO 8601 that occur; several are tried because polars infers a single one from the first value.
ISO_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%+",
    "%Y-%m-%d %H:%M:%S%.f%:z",
)
UNITS = {  # name, and a second in each unit
    "s": ("seconds", 1),
    "ms": ("milliseconds", 1_000),
    "us": ("microseconds", 1_000_000),
    "ns": ("nanoseconds", 1_000_000_000),
}


class Sheet(NamedTuple):
    """A file as it was read: one column a field, text unless the file itself has types."""

    frame: pl.DataFrame
    origin: str
    first_line: int = 1  # the line of the first row, as an editor counts


def path_to(path: str, *, folder: bool, key: str = "data.source.path") -> Path:
    """The path if such a file (or folder) exists; else UserError that says which key to set."""
    found = Path(path).expanduser()
    kind = "folder" if folder else "file"
    if not found.exists():
        raise UserError(f"{found}: there is no such {kind}; set {key} to the {kind} with the data")
    if found.is_dir() != folder:
        other = "file" if folder else "folder"
        raise UserError(f"{found} is a {other}, expected a {kind}; set {key} to the {kind} with the data")
    return found


def file_in(folder: Path, name: str, key: str = "data.source.path") -> Path:
    """The file of that name in the folder; UserError that says what the folder holds if it is not there."""
    if not (folder / name).is_file():
        present = sorted(p.name for p in folder.iterdir())
        raise UserError(
            f"{folder / name}: there is no such file, {interactions.suggestion(name, present)} "
            f"Set {key} to the folder with {name}."
        )
    return folder / name


def decoded(path: Path) -> str:
    """The text of a file in UTF-8, or in Latin-1 where it is not UTF-8, as the older public data sets are."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def delimited(
    path: Path,
    *,
    separator: str,
    header: Sequence[str] | None = None,
    quoted: bool = False,
    text: str | None = None,
) -> Sheet:
    """Read a delimited file, every column as text, missing fields as null.

    header: the names of the columns of a file whose first line is data; None: the first line has them.
    quoted: whether fields may stand in double quotes.
    text:   the content, where the caller had to decode or change it.
    Raises UserError for an empty file, one that is not UTF-8, and for a row with too many fields.
    """
    data = path.read_bytes() if text is None else text.encode()
    data = data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
    if header is not None and data:
        data = separator.join(header).encode() + b"\n" + data
    if b"\n" not in data:
        raise UserError(f"{path} is empty: it has no interactions" + (" below its header" if data else ""))
    first_line = 2 if header is None else 1
    try:
        frame = pl.read_csv(
            io.BytesIO(data), separator=separator, infer_schema=False, quote_char='"' if quoted else None
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}{_trouble(data, separator, quoted, first_line - 2)}") from error
    return Sheet(frame, str(path), first_line)


def _trouble(data: bytes, separator: str, quoted: bool, shift: int) -> str:
    """What stops a delimited file from being read, with its row."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1 + shift
        return f", row {line}: not UTF-8 text; expected UTF-8, convert the file (iconv -f latin1 -t utf-8)"
    rows = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    fields = len(next(rows))
    for row in rows:
        if len(row) > fields:
            line = rows.line_num + shift
            return f", row {line}: {len(row)} fields, expected {fields}; check the separator and quotes"
    return ": the file cannot be read as delimited text; check the separator and quotes"


def require(sheet: Sheet, *columns: str, remedy: str = "Rename the column.") -> None:
    """Raise UserError unless the sheet has the columns."""
    present = sheet.frame.columns
    for column in columns:
        if column not in present:
            raise UserError(
                f"{sheet.origin}: column '{column}' is missing; {interactions.suggestion(column, present)} {remedy}"
            )


def require_named(sheet: Sheet, **columns: str | None) -> None:
    """The same for columns that the config names: config key = column (None: not used)."""
    for key, column in columns.items():
        if column is not None:
            require(sheet, column, remedy=f"Set data.source.{key} to the name of the column.")


def lines(sheet: Sheet) -> pl.Series:
    """The line of each row, int64 [N]."""
    first = sheet.first_line
    return pl.int_range(first, first + sheet.frame.height, dtype=pl.Int64, eager=True).alias("line")


def ids(sheet: Sheet, column: str) -> pl.Series:
    """The column as text, str [N]; whole floats (a nullable integer column in Parquet) lose their point."""
    values = sheet.frame[column]
    if not values.dtype.is_float():
        return values.cast(pl.String)
    values = values.fill_nan(None)
    _refuse(sheet, values, (values != values.floor()).fill_null(False), "whole numbers or text as an id")
    return values.cast(pl.Int64).cast(pl.String)


def numbers(sheet: Sheet, column: str) -> pl.Series:
    """The column as float32 [N]; UserError for what is no number. NaN and infinity are left to `validate`."""
    values = sheet.frame[column]
    parsed = _floats(values).cast(pl.Float32)
    _refuse(sheet, values, parsed.is_null(), "a number; correct it or delete the row")
    return parsed


def table(
    sheet: Sheet,
    *,
    user: str,
    item: str,
    time: str,
    rating: str | None = None,
    behaviour: str | None = None,
    time_format: str | None = None,
    time_unit: str = "s",
    kinds: Mapping[str, str] = {},
) -> Table:
    """The Table of a sheet with one interaction a row; `kinds` are further kinds of ids and their columns.

    Raises UserError for missing columns and for values that cannot be read.
    """
    interactions.refuse_taken(kinds)
    require_named(sheet, user=user, item=item, time=time, rating=rating, behaviour=behaviour, **kinds)
    frame = pl.DataFrame(
        {
            "user": ids(sheet, user),
            "item": ids(sheet, item),
            "time": seconds(sheet, time, time_format=time_format, unit=time_unit),
            "line": lines(sheet),
        }
    )
    names = {"user": user, "item": item, "time": time}
    if rating is not None:
        frame = frame.with_columns(numbers(sheet, rating).alias("rating"))
        names["rating"] = rating
    if behaviour is not None:
        frame = frame.with_columns(ids(sheet, behaviour).alias("behaviour"))
        names["behaviour"] = behaviour
    for kind, column in kinds.items():
        frame = frame.with_columns(ids(sheet, column).alias(kind))
        names[kind] = column
    return Table(frame, sheet.origin, names=names, kinds=tuple(kinds))


def titles(sheet: Sheet, item: str, text: str) -> dict[str, str]:
    """The first title of each item, by raw id; items without one are left out."""
    pairs = pl.DataFrame({"item": ids(sheet, item), "text": sheet.frame[text].cast(pl.String)}).drop_nulls()
    pairs = pairs.unique("item", keep="first", maintain_order=True)
    return dict(zip(pairs["item"].to_list(), pairs["text"].to_list(), strict=True))


def seconds(sheet: Sheet, column: str, *, time_format: str | None = None, unit: str = "s") -> pl.Series:
    """The column as seconds since 1970 (UTC), int64 [N], rounded down.

    Numbers are counts of `unit` ("s", "ms", "us" or "ns") since 1970. Text is read by time_format, or as
    numbers or ISO 8601 if that is None, whichever the first row is. Raises UserError for what is no such
    time.
    """
    if unit not in UNITS:
        raise UserError(f"data.source.time_unit is {unit!r}; expected one of {', '.join(UNITS)}")
    name, second = UNITS[unit]
    values = sheet.frame[column]
    if values.dtype.is_temporal() and values.dtype not in (pl.Time, pl.Duration):
        parsed, expected = values.dt.epoch("s"), "a time"
    elif values.dtype.is_numeric() or (time_format is None and _starts_with_number(values)):
        parsed, expected = _whole(values, second), f"a finite number of {name} since 1970"
    elif values.dtype != pl.String:
        raise UserError(f"{sheet.origin}: column '{column}' has the type {values.dtype}; expected times")
    else:
        formats = ISO_FORMATS if time_format is None else (time_format,)
        parsed = _moments(values.str.strip_chars(), formats)
        expected = (
            "a time such as 2024-01-31 or 2024-01-31T12:30:00 (or set data.source.time_format)"
            if time_format is None
            else f"a time of the form {time_format}"
        )
    _refuse(sheet, values, parsed.is_null(), expected)
    return parsed.cast(pl.Int64)


def _starts_with_number(values: pl.Series) -> bool:
    return values.dtype == pl.String and _floats(values.drop_nulls().head(1)).is_not_null().all()


def _floats(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    return values.cast(pl.Float64, strict=False)


def _whole(values: pl.Series, factor: int) -> pl.Series:
    """values / factor rounded down, int64, null where that is no finite number."""
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    if not values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        if not whole.has_nulls():
            return whole // factor  # exact, as a float of nanoseconds would not be
    return (values.cast(pl.Float64, strict=False) / factor).floor().cast(pl.Int64, strict=False)


def _moments(values: pl.Series, formats: Sequence[str]) -> pl.Series:
    """Seconds since 1970 by the first format that reads a value, int64, null where none does."""
    parsed = pl.repeat(None, len(values), dtype=pl.Int64, eager=True)
    for time_format in formats:
        missing = parsed.is_null()
        if not missing.any():
            break
        try:
            moment = values.str.to_datetime(time_format, strict=False).dt.epoch("s")
        except pl.exceptions.PolarsError as error:  # the format itself, whatever the values
            raise UserError(
                f"data.source.time_format is {time_format!r}, which is no complete format of a date or time; "
                "expected one such as %Y-%m-%d or %d/%m/%Y %H:%M"
            ) from error
        parsed = parsed.zip_with(~missing, moment)
    return parsed


def _refuse(sheet: Sheet, values: pl.Series, bad: pl.Series, expected: str) -> None:
    interactions.refuse(bad, values, sheet.origin, lines(sheet), expected)
