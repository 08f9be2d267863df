"""The layouts of MovieLens-1M and MovieTweetings (`ratings.dat`), and of MovieLens-100K (`u.data`)."""

from pathlib import Path

import polars as pl

from incremental.data import times
from incremental.data.interactions import Table
from incremental.data.sources import files, reading, titles
from incremental.data.sources.delimited import delimited
from incremental.data.sources.sheet import Sheet
from incremental.errors import UserError

FIELDS = ("user", "item", "rating", "timestamp")


def ratings_dat(*, path: str, encoding: str | None = None) -> Table:
    """Read `ratings.dat` (user::item::rating::seconds) and, where it is, `movies.dat` (item::title::genres).

    path: the folder; encoding: of files that are neither UTF-8 nor cp1252. The text of an item is its title with its
    genres. Raises UserError that names file, row and column for a missing file and for values that cannot be read.
    """
    folder = files.path_to(path, folder=True)
    file = files.file_in(folder, "ratings.dat")
    sheet = delimited(file, separator="::", header=FIELDS, encoding=encoding, old=True)
    if sheet.frame["item"][0] is None and sheet.frame["rating"][0] is None:
        raise UserError(f"{file}, row 1: no '::' in it; expected user::item::rating::timestamp")
    return _with_titles(sheet, files.within(folder, "movies.dat"), "::", encoding)


def u_data(*, path: str, encoding: str | None = None) -> Table:
    """Read `u.data` (user, item, rating, seconds, between tabs) and, where it is, `u.item` (item|title|…).

    path: the folder; encoding: of files that are neither UTF-8 nor cp1252. Raises UserError that names file, row and
    column for a missing file and for values that cannot be read.
    """
    folder = files.path_to(path, folder=True)
    sheet = delimited(files.file_in(folder, "u.data"), separator="\t", header=FIELDS, encoding=encoding, old=True)
    return _with_titles(sheet, files.within(folder, "u.item"), "|", encoding)


def _with_titles(sheet: Sheet, file: Path | None, separator: str, encoding: str | None) -> Table:
    table = reading.table(sheet, user="user", item="item", time="timestamp", rating="rating", time_unit="s")
    table = table._replace(remedy=times.ROWS)
    if file is None:
        return table
    content, notes = files.text(file, files.content(file), encoding=encoding, old=True)
    rows: list[tuple[str, str, int]] = []  # item, title, line
    short = []
    for row, line in enumerate(content.split("\n"), 1):
        item, *fields = line.split(separator)
        if fields and separator == "::" and len(fields) > 1:
            rows.append((item, _film(fields), row))
        elif fields and separator == "|":
            rows.append((item, fields[0], row))
        elif line:
            short.append(row)
    if short:
        notes += (f"{file}: {len(short):,} lines have no title (the first: row {short[0]}): left out",)
    frame = pl.DataFrame(rows, schema={"item": pl.String, "title": pl.String, "line": pl.Int64}, orient="row")
    text = reading.titles(Sheet(frame, str(file), frame["line"]), "item", "title")
    return titles.joined(table._replace(notes=(*table.notes, *notes)), text, str(file))


def _film(fields: list[str]) -> str:
    """Title and genres, such as "The Bank (1915): Comedy, Short"."""
    *title, genres = fields
    named = "::".join(title)  # a title may hold the separator
    return f"{named}: {genres.replace('|', ', ')}" if genres else named
