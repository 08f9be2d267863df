"""The user's own CSV or Parquet files, with columns named in the config."""

from collections.abc import Sequence

from incremental.data.interactions import Table
from incremental.data.sources import files, parts, reading, titles
from incremental.data.sources.delimited import separator_of
from incremental.data.sources.sheet import Sheet, require_named
from incremental.errors import UserError


def columns(
    *,
    path: str,
    user: str = "user",
    item: str = "item",
    time: str = "time",
    rating: str | None = None,
    behaviour: str | None = None,
    period: str | None = None,
    time_format: str | None = None,
    time_unit: str | None = None,
    separator: str = ",",
    columns: Sequence[str] | None = None,
    quoted: bool = True,
    encoding: str | None = None,
    items_path: str | None = None,
    items_id: str = "item",
    items_separator: str | None = None,
    text: str | None = None,
    kinds: dict[str, str] | None = None,
) -> Table:
    """Read a table with one interaction a row.

    path:        a file, CSV or Parquet, also compressed (gzip, zstd, bzip2, xz); or a folder of such files, or a
                 pattern such as logs/part-*.parquet, which are read as one log
    user … behaviour: the names of its columns; rating and behaviour are optional
    period:      the column with the number of each row's increment, for data/cut=periods; None: there is none
    time_format: how text or numbers in the time column are to be read (strftime); None: as numbers or ISO 8601
    time_unit:   what numbers in the time column count: s, ms, us or ns since 1970, excel (days of a spreadsheet), or
                 period (the numbers of periods, for data.cut); None: found by their values. Without a unit and a format
                 times must be from 1990 to tomorrow
    separator:   between the fields of a CSV file: one character or several; `\\t` or tab is a tab
    columns:     the names of the columns of a CSV file without a header line; None: its first line has them
    quoted:      whether fields of a CSV file may stand in double quotes; false: a quote is a character like others
    encoding:    of a CSV file that is not UTF-8 and has no byte order mark, such as cp1252 or gb18030
    items_path:  a second file (or folder, or pattern) with the items' titles, absolute or beside the first
    items_id:    its column with the item's id
    items_separator: between its fields; None: as in the first file
    text:        its column with the title; without items_path a column of the first file
    kinds:       further kinds of ids and their columns, e.g. {category: cat}; an empty cell is no id

    Raises UserError that names file, row and column for a missing file or column and for unreadable values.
    """
    if period is not None and time_unit == "period":
        raise UserError(
            "data.source.period with data.source.time_unit=period: the times are the periods; leave one out"
        )
    option = "data.source.separator"
    dialect = parts.Dialect(separator_of(separator, option), quoted=quoted, encoding=encoding, option=option)
    sheet = parts.sheet(path, dialect._replace(header=_names(columns)))
    if columns is not None:
        _refuse_surplus(sheet, columns)
    table = reading.table(
        sheet,
        user=user,
        item=item,
        time=time,
        rating=rating,
        behaviour=behaviour,
        period=period,
        time_format=time_format,
        time_unit=time_unit,
        kinds=kinds or {},
    )
    if items_path is None:
        if items_separator is not None:
            raise UserError(
                f"data.source.items_separator={items_separator!r} without data.source.items_path: it is of the file "
                "with the titles; name that file, or leave data.source.items_separator out"
            )
        if text is None:
            return table
        require_named(sheet, text=text)
        return table._replace(text=reading.titles(sheet, item, text))
    if text is None:
        raise UserError(titles.TEXT)
    key = "data.source.items_path"
    if items_separator is not None:
        option = "data.source.items_separator"
        dialect = dialect._replace(separator=separator_of(items_separator, option))
    dialect = dialect._replace(option="data.source.items_separator")
    catalogue = parts.sheet(files.beside(path, items_path, key), dialect, key)
    require_named(catalogue, item, items_id=items_id)
    require_named(catalogue, text=text)
    table = table._replace(notes=(*table.notes, *catalogue.notes))
    return titles.joined(table, reading.titles(catalogue, items_id, text), catalogue.origin, key)


def _names(columns: Sequence[str] | None) -> Sequence[str] | None:
    if columns is not None and (not columns or len(set(columns)) < len(columns)):
        raise UserError(f"data.source.columns is {list(columns)}; expected the names of all columns, each once")
    return columns


def _refuse_surplus(sheet: Sheet, columns: Sequence[str]) -> None:
    """A UserError for a last name that has no value in any row, as where the rows have fewer fields."""
    last = columns[-1]
    if last in sheet.frame.columns and sheet.frame[last].is_null().all():
        raise UserError(
            f"{sheet.origin}: data.source.columns has {len(columns)} names, but no row has a field for '{last}'; "
            "name each field of a row once, and check the separator"
        )
