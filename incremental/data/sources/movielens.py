"""The layouts of MovieLens-1M and MovieTweetings (`ratings.dat`), and of MovieLens-100K (`u.data`)."""

from pathlib import Path

from incremental.data import times
from incremental.data.interactions import Table
from incremental.data.sources import reading
from incremental.errors import UserError

FIELDS = ("user", "item", "rating", "timestamp")


def ratings_dat(*, path: str) -> Table:
    """Read `ratings.dat` (user::item::rating::seconds) and, where it is, `movies.dat` (item::title::genres).

    path: the folder. The text of an item is its title with its genres. Raises UserError that names file, row
    and column for a missing file and for values that cannot be read.
    """
    folder = reading.path_to(path, folder=True)
    file = reading.file_in(folder, "ratings.dat")
    text = reading.decoded(file)
    if text and "::" not in text.partition("\n")[0]:
        raise UserError(f"{file}, row 1: no '::' in it; expected user::item::rating::timestamp")
    sheet = reading.delimited(file, separator="\t", header=FIELDS, text=text.replace("::", "\t"))
    return _table(sheet, _movies(folder / "movies.dat"))


def u_data(*, path: str) -> Table:
    """Read `u.data` (user, item, rating, seconds, between tabs) and, where it is, `u.item` (item|title|…).

    path: the folder. Raises UserError that names file, row and column for a missing file and for values that
    cannot be read.
    """
    folder = reading.path_to(path, folder=True)
    sheet = reading.delimited(reading.file_in(folder, "u.data"), separator="\t", header=FIELDS)
    return _table(sheet, {row[0]: row[1] for row in _rows(folder / "u.item", "|") if len(row) > 1})


def _table(sheet: reading.Sheet, text: dict[str, str]) -> Table:
    table = reading.table(sheet, user="user", item="item", time="timestamp", rating="rating", time_unit="s")
    return table._replace(text=text, remedy=times.ROWS)


def _movies(file: Path) -> dict[str, str]:
    """Title and genres, such as "The Bank (1915): Comedy, Short", by raw id."""
    text = {}
    for item, *title, genres in (row for row in _rows(file, "::") if len(row) > 2):
        named = "::".join(title)  # a title may hold the separator
        text[item] = f"{named}: {genres.replace('|', ', ')}" if genres else named
    return text


def _rows(file: Path, separator: str) -> list[list[str]]:
    """The fields of each line; none where there is no such file."""
    if not file.is_file():
        return []
    return [line.rstrip("\r").split(separator) for line in reading.decoded(file).split("\n") if line]
