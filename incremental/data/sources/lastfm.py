"""Last.fm HetRec 2011: who tagged which artist when (`user_taggedartists.dat`, `artists.dat`)."""

import polars as pl

from incremental.data import interactions, times
from incremental.data.interactions import Table
from incremental.data.sources import files, reading, titles
from incremental.data.sources.delimited import delimited
from incremental.data.sources.sheet import lines, require

FIELDS = ("userID", "artistID", "day", "month", "year")


def lastfm(*, path: str, encoding: str | None = None) -> Table:
    """Read the tags: each is an interaction of a user with an artist, at midnight (UTC) of its day.

    path: the folder; encoding: of files that are neither UTF-8 nor cp1252. A user gives an artist several tags at
    once: data.cleaning.duplicates=first keeps one. A few days are impossible (1956, 1957, 1979):
    data.cleaning.after removes them, before the first tag is taken. The text of an item is the artist's name, where
    artists.dat is there. Raises UserError that names file, row and column for a missing file or column and for
    values that are no date.
    """
    folder = files.path_to(path, folder=True)
    tagged = files.file_in(folder, "user_taggedartists.dat")
    sheet = delimited(tagged, separator="\t", encoding=encoding, old=True)
    require(sheet, *FIELDS)
    written = sheet.frame.select(pl.format("{}-{}-{}", "year", "month", "day").alias("year-month-day")).to_series()
    date = written.str.to_date("%Y-%m-%d", strict=False)
    interactions.refuse(date.is_null(), written, sheet.origin, lines(sheet), "a date: day, month and year")
    tags = pl.DataFrame(
        {
            "user": sheet.frame["userID"],
            "item": sheet.frame["artistID"],
            "time": date.dt.epoch("s"),
            "line": lines(sheet),
        }
    )
    names = {"user": "userID", "item": "artistID", "time": "year-month-day"}
    table = Table(tags, sheet.origin, notes=sheet.notes, names=names, remedy=times.ROWS)
    artists = files.within(folder, "artists.dat")
    if artists is None:
        return table
    catalogue = delimited(artists, separator="\t", encoding=encoding, old=True)
    require(catalogue, "id", "name")
    table = table._replace(notes=(*table.notes, *catalogue.notes))
    return titles.joined(table, reading.titles(catalogue, "id", "name"), catalogue.origin)
