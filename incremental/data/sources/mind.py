"""MIND, Microsoft's news data set: `behaviors.tsv` (impressions with clicks) and `news.tsv` (titles)."""

import polars as pl

from incremental.data import interactions, times
from incremental.data.interactions import Table
from incremental.data.sources import files, reading, titles
from incremental.data.sources.delimited import delimited
from incremental.data.sources.sheet import lines

BEHAVIOURS = ("impression", "user", "time", "history", "impressions")
NEWS = ("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities")


def mind(*, path: str, encoding: str | None = None) -> Table:
    """Read the clicks: one interaction for each `N123-1` of an impression, at its time (taken as UTC).

    path: the folder; encoding: of files that are not UTF-8 and have no byte order mark. What was shown but not
    clicked (`N123-0`), and the history, which has no times, are left out. The text of an item is its title, where
    news.tsv is there. Raises UserError that names file, row and column for a missing file, a time that cannot be
    read, and impressions without labels (the test split).
    """
    folder = files.path_to(path, folder=True)
    file = files.file_in(folder, "behaviors.tsv")
    sheet = delimited(file, separator="\t", header=BEHAVIOURS, encoding=encoding)
    shown = sheet.frame["impressions"]
    unlabelled = ~shown.str.contains(r"\S-[01](\s|$)").fill_null(False)
    interactions.refuse(
        unlabelled,
        shown,
        sheet.origin,
        lines(sheet),
        "labelled impressions such as 'N123-1 N124-0'; the test split of MIND has none, use train or dev",
    )
    when, _ = reading.moments(sheet, "time", time_format="%m/%d/%Y %I:%M:%S %p")
    frame = (
        pl.DataFrame(
            {
                "user": sheet.frame["user"],
                "item": shown.str.extract_all(r"\S+-1(?:\s|$)"),
                "time": when["time"],
                "line": lines(sheet),
            }
        )
        .filter(pl.col("item").list.len() > 0)
        .explode("item")
        .with_columns(pl.col("item").str.strip_chars().str.strip_suffix("-1"))
    )
    notes = sheet.notes
    unclicked = sheet.frame.height - frame["line"].n_unique()
    if unclicked:
        notes += (f"{sheet.origin}: {unclicked:,} of {sheet.frame.height:,} impressions have no click: left out",)
    table = Table(frame, sheet.origin, notes=notes, names={"item": "impressions"}, remedy=times.ROWS)
    news = files.within(folder, "news.tsv")
    if news is None:
        return table
    catalogue = delimited(news, separator="\t", header=NEWS, encoding=encoding)
    return titles.joined(table, reading.titles(catalogue, "id", "title"), catalogue.origin)
