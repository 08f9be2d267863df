"""Files of a fixed split, such as train.csv and test.csv: each file is one period, and the order of files is given."""

from collections.abc import Sequence

import polars as pl

from incremental.data.interactions import Table, typed
from incremental.data.sources import files, parts, reading
from incremental.data.sources.delimited import separator_of
from incremental.errors import UserError

NUMBER = "the number of its file"


def split_files(
    *,
    path: str,
    names: Sequence[str] = ("train.csv", "test.csv"),
    user: str = "user",
    item: str = "item",
    time: str | None = None,
    time_unit: str | None = None,
    separator: str = ",",
    quoted: bool = True,
    encoding: str | None = None,
) -> Table:
    """Read files of one layout, CSV with a header line or Parquet, one interaction a row.

    path:        their folder
    names:       the files in order: the first one is period 0 (data/cut=periods makes it the base part)
    user, item:  the names of their columns
    time:        the column with the times; None: the time of an interaction is the number of its file, and with
                 data.ties=file the order of the lines is the order of the events
    time_unit:   what numbers in the time column count, as for data=columns
    separator:   between the fields of a CSV file
    quoted:      whether fields of a CSV file may stand in double quotes; false: a quote is a character like others
    encoding:    of a CSV file that is not UTF-8

    Raises UserError that names file, row and column for a missing file or column and for unreadable values.
    """
    if not names or len(set(names)) < len(names):
        raise UserError(f"data.source.names is {list(names)}; expected the names of the files in order, each once")
    if time is None and time_unit is not None:
        raise UserError(
            f"data.source.time_unit={time_unit} without data.source.time: name the column with the times, or leave "
            "data.source.time_unit out"
        )
    folder, option = files.path_to(path, folder=True), "data.source.separator"
    dialect = parts.Dialect(separator_of(separator, option), quoted=quoted, encoding=encoding, option=option)
    tables = []
    for number, name in enumerate(names):
        sheet = parts.sheet(str(files.file_in(folder, name)), dialect)
        sheet = sheet._replace(frame=sheet.frame.with_columns(pl.lit(number).alias(NUMBER)))
        if time is None:
            read = reading.table(sheet, user=user, item=item, time=NUMBER, time_unit="period")
        else:
            read = reading.table(sheet, user=user, item=item, time=time, time_unit=time_unit, period=NUMBER)
        tables.append(typed(read))  # while each file has its own types: joined, they could be others
    origins = pl.Enum([table.origin for table in tables])
    frame = pl.concat(
        [table.frame.with_columns(file=pl.lit(table.origin, origins)) for table in tables], how="diagonal_relaxed"
    )
    if "fraction" in frame.columns:
        frame = frame.with_columns(pl.col("fraction").fill_null(0))
    notes = tuple(note for table in tables for note in table.notes)
    return tables[0]._replace(frame=frame, origin=f"{folder}/{{{','.join(names)}}}", notes=notes)
