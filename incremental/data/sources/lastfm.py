"""Last.fm HetRec 2011: who tagged which artist when (`user_taggedartists.dat`, `artists.dat`)."""

from pathlib import Path

import polars as pl

from incremental.data import interactions, times
from incremental.data.interactions import Table
from incremental.data.sources import reading

FIELDS = ("userID", "artistID", "day", "month", "year")


def lastfm(*, path: str) -> Table:
    """Read the tags: each is an interaction of a user with an artist, at midnight (UTC) of its day.

    path: the folder. A user gives an artist several tags at once: data.cleaning.duplicates=first keeps one.
    A few days are impossible (1956, 1957, 1979): data.cleaning.after removes them, before the first tag is
    taken. The text of an item is the artist's name, where artists.dat is there. Raises UserError that names
    file, row and column for a missing file or column and for values that are no date.
    """
    folder = reading.path_to(path, folder=True)
    sheet = reading.delimited(reading.file_in(folder, "user_taggedartists.dat"), separator="\t")
    reading.require(sheet, *FIELDS)
    written = sheet.frame.select(pl.format("{}-{}-{}", "year", "month", "day").alias("year-month-day")).to_series()
    date = written.str.to_date("%Y-%m-%d", strict=False)
    interactions.refuse(date.is_null(), written, sheet.origin, reading.lines(sheet), "a date: day, month and year")
    tags = pl.DataFrame(
        {
            "user": sheet.frame["userID"],
            "item": sheet.frame["artistID"],
            "time": date.dt.epoch("s"),
            "line": reading.lines(sheet),
        }
    )
    names = {"user": "userID", "item": "artistID", "time": "year-month-day"}
    return Table(tags, sheet.origin, _artists(folder), names=names, remedy=times.ROWS)


def _artists(folder: Path) -> dict[str, str]:
    """Names by raw id; none where there is no artists.dat."""
    file = folder / "artists.dat"
    if not file.is_file():
        return {}
    sheet = reading.delimited(file, separator="\t", text=reading.decoded(file))
    reading.require(sheet, "id", "name")
    return reading.titles(sheet, "id", "name")
