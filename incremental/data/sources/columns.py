"""The user's own CSV or Parquet file, with columns named in the config."""

from pathlib import Path

import polars as pl

from incremental.data.interactions import Table
from incremental.data.sources import reading
from incremental.errors import UserError

SUFFIXES = {".csv", ".tsv", ".txt", ".parquet", ".pq"}


def columns(
    *,
    path: str,
    user: str = "user",
    item: str = "item",
    time: str = "time",
    rating: str | None = None,
    behaviour: str | None = None,
    time_format: str | None = None,
    time_unit: str | None = None,
    separator: str = ",",
    items_path: str | None = None,
    items_id: str = "item",
    text: str | None = None,
    kinds: dict[str, str] | None = None,
) -> Table:
    """Read a table with one interaction a row.

    path:        a .csv (.tsv, .txt) file with a header, or a .parquet (.pq) file
    user … behaviour: the names of its columns; rating and behaviour are optional
    time_format: how text or numbers in the time column are to be read (strftime); None: as numbers or ISO 8601
    time_unit:   what numbers in the time column count: s, ms, us or ns since 1970, excel (days of a spreadsheet), or
                 period (the numbers of periods, for data.cut); None: found by their values. Without a unit and a format
                 times must be from 1990 to tomorrow
    separator:   between the fields of a CSV file
    items_path:  a second file with the items' titles, absolute or beside the first
    items_id:    its column with the item's id
    text:        its column with the title; without items_path a column of the first file
    kinds:       further kinds of ids and their columns, e.g. {category: cat}; an empty cell is no id

    Raises UserError that names file, row and column for a missing file or column and for unreadable values.
    """
    file = reading.path_to(path, folder=False)
    sheet = read(file, separator, "data.source.path")
    table = reading.table(
        sheet,
        user=user,
        item=item,
        time=time,
        rating=rating,
        behaviour=behaviour,
        time_format=time_format,
        time_unit=time_unit,
        kinds=kinds or {},
    )
    if items_path is None:
        if text is None:
            return table
        reading.require_named(sheet, text=text)
        return table._replace(text=reading.titles(sheet, item, text))
    if text is None:
        raise UserError("data.source.items_path is set; set data.source.text to its column with the titles")
    key = "data.source.items_path"
    beside = reading.path_to(str(file.parent / Path(items_path).expanduser()), folder=False, key=key)
    catalogue = read(beside, separator, key)
    reading.require_named(catalogue, items_id=items_id, text=text)
    return table._replace(text=reading.titles(catalogue, items_id, text))


def read(file: Path, separator: str, key: str) -> reading.Sheet:
    """The file by its suffix; UserError, naming the config key, for a suffix that is not known."""
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{file}: the suffix {suffix!r} is not known; set {key} to a .csv or .parquet file")
    if suffix in {".parquet", ".pq"}:
        try:
            return reading.Sheet(pl.read_parquet(file), str(file))
        except pl.exceptions.PolarsError as error:
            raise UserError(
                f"{file}: not a Parquet file; write it again, or rename it to .csv if it is text"
            ) from error
    return reading.delimited(file, separator=separator, quoted=True)
