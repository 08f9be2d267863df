"""Reading tabular files so that whatever is wrong with them is told with file, row and column."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from incremental.data import ids, interactions, times
from incremental.data.interactions import Table
from incremental.errors import UserError


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


def numbers(sheet: Sheet, column: str) -> pl.Series:
    """The column as float32 [N]; UserError for what is no number. NaN and infinity are left to `validate`."""
    values = sheet.frame[column]
    text = ids.text_of(values)
    if text is None and not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        raise UserError(interactions.no_type(sheet.origin, column, values.dtype, "numbers"))
    written = values if text is None else text.str.strip_chars()
    parsed = written.cast(pl.Float64, strict=False).cast(pl.Float32)
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
    time_unit: str | None = None,
    kinds: Mapping[str, str] = {},
) -> Table:
    """The Table of a sheet with one interaction a row; `kinds` are further kinds of ids and their columns.

    Raises UserError for missing columns and for values that cannot be read.
    """
    interactions.refuse_taken(kinds)
    require_named(sheet, user=user, item=item, time=time, rating=rating, behaviour=behaviour, **kinds)
    when, unit = moments(sheet, time, time_format=time_format, unit=time_unit)
    names = {"user": user, "item": item, "time": time, **kinds}
    columns = {"user": sheet.frame[user], "item": sheet.frame[item], "time": when["time"], "line": lines(sheet)}
    frame = pl.DataFrame(columns)
    if (when["fraction"] > 0).any():
        frame = frame.with_columns(when["fraction"])
    if time_unit == "period":
        frame = frame.with_columns(period=pl.col("time"))
    if rating is not None:
        frame = frame.with_columns(numbers(sheet, rating).alias("rating"))
        names["rating"] = rating
    if behaviour is not None:
        frame = frame.with_columns(sheet.frame[behaviour].alias("behaviour"))
        names["behaviour"] = behaviour
    frame = frame.with_columns(sheet.frame[column].alias(kind) for kind, column in kinds.items())
    notes: tuple[str, ...] = ()
    if unit not in (None, "s"):
        counts = f"{times.UNITS[unit][0]} since 1970, by its values"
        notes = (f"{sheet.origin}: column '{time}' counts {counts} (data.source.time_unit={unit})",)
    return Table(
        frame,
        sheet.origin,
        notes=notes,
        names=names,
        kinds=tuple(kinds),
        remedy=times.REMEDY if time_unit is None and time_format is None else None,
        counted=unit == "s",
    )


def titles(sheet: Sheet, item: str, text: str) -> dict[str, str]:
    """The first title of each item, by id; items without one are left out."""
    known, _ = interactions.identities(sheet.frame[item], sheet.origin, lines(sheet))
    words = ids.text_of(sheet.frame[text])
    if words is None:
        if not sheet.frame.schema[text].is_numeric():
            raise UserError(interactions.no_type(sheet.origin, text, sheet.frame.schema[text], "text"))
        words = sheet.frame[text].cast(pl.String)
    pairs = pl.DataFrame({"item": known, "text": words}).drop_nulls()
    pairs = pairs.unique("item", keep="first", maintain_order=True)
    return dict(zip(pairs["item"].to_list(), pairs["text"].to_list(), strict=True))


def moments(
    sheet: Sheet, column: str, *, time_format: str | None = None, unit: str | None = None
) -> tuple[pl.DataFrame, str | None]:
    """The column as times: time int64 and fraction int64 [N], as `Table` has them; and what its numbers were found to
    count (`incremental.data.times.read`). Raises UserError for what is no such time."""
    values = sheet.frame[column]
    found = times.read(values, form=time_format, unit=unit)
    if found is None:
        raise UserError(interactions.no_type(sheet.origin, column, values.dtype, "times"))
    _refuse(sheet, values, found.seconds.is_null(), found.expected)
    return pl.DataFrame({"time": found.seconds, "fraction": found.fraction}), found.unit


def _refuse(sheet: Sheet, values: pl.Series, bad: pl.Series, expected: str) -> None:
    interactions.refuse(bad, values, sheet.origin, lines(sheet), expected)
