"""From a sheet to a Table: ids, numbers and times, so that what is wrong is told with file, row and column."""

from collections.abc import Mapping

import polars as pl

from incremental.data import ids, interactions, times
from incremental.data.interactions import Table
from incremental.data.sources.sheet import Sheet, lines, require_named
from incremental.errors import UserError


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
    period: str | None = None,
    time_format: str | None = None,
    time_unit: str | None = None,
    kinds: Mapping[str, str] = {},
) -> Table:
    """The Table of a sheet with one interaction a row; `kinds` are further kinds of ids and their columns.

    Raises UserError for missing columns and for values that cannot be read.
    """
    interactions.refuse_taken(kinds)
    require_named(sheet, user=user, item=item, time=time, rating=rating, behaviour=behaviour, period=period)
    require_named(sheet, **{f"kinds.{kind}": column for kind, column in kinds.items()})
    when, unit = moments(sheet, time, time_format=time_format, unit=time_unit)
    for column in (user, item, *([behaviour] if behaviour else ()), *kinds.values()):
        _refuse_inexact(sheet, column)
    names = {"user": user, "item": item, "time": time, **kinds}
    columns = {"user": sheet.frame[user], "item": sheet.frame[item], "time": when["time"], "line": lines(sheet)}
    frame = pl.DataFrame(columns)
    if (when["fraction"] > 0).any():
        frame = frame.with_columns(when["fraction"])
    if time_unit == "period":
        frame = frame.with_columns(period=pl.col("time"))
    if period is not None:
        frame = frame.with_columns(_whole(sheet, period).alias("period"))
        names["period"] = period
    if rating is not None:
        frame = frame.with_columns(numbers(sheet, rating).alias("rating"))
        names["rating"] = rating
    if behaviour is not None:
        frame = frame.with_columns(sheet.frame[behaviour].alias("behaviour"))
        names["behaviour"] = behaviour
    frame = frame.with_columns(sheet.frame[column].alias(kind) for kind, column in kinds.items())
    if sheet.file is not None:
        frame = frame.with_columns(sheet.file)
    notes = sheet.notes
    if sheet.frame.schema[time] == pl.Float32:
        coarse = "cannot tell the seconds of two minutes apart; write the column as Float64 or integers"
        notes += (f"{sheet.origin}: column '{time}' has the type Float32, which {coarse}",)
    if unit not in (None, "s"):
        counts = f"{times.UNITS[unit][0]} since 1970, by its values"
        notes += (f"{sheet.origin}: column '{time}' counts {counts} (data.source.time_unit={unit})",)
    return Table(
        frame,
        sheet.origin,
        notes=notes,
        names=names,
        kinds=tuple(kinds),
        remedy=times.REMEDY if time_unit is None and time_format is None else None,
        counted=unit == "s",
    )


def _whole(sheet: Sheet, column: str) -> pl.Series:
    """The column as int32 [N]; UserError for what is no whole number."""
    values = sheet.frame[column]
    text = ids.text_of(values)
    if text is None and not values.dtype.is_integer():
        raise UserError(interactions.no_type(sheet.origin, column, values.dtype, "whole numbers from 0"))
    parsed = (values if text is None else text.str.strip_chars()).cast(pl.Int32, strict=False)
    _refuse(sheet, values, parsed.is_null(), "the number of a period, from 0; correct it or delete the row")
    return parsed


def titles(sheet: Sheet, item: str, text: str) -> dict[str, str]:
    """The first title of each item, by id; items without one are left out."""
    _refuse_inexact(sheet, item)
    known, _ = interactions.identities(sheet.frame[item], sheet.origin, lines(sheet), file=sheet.file)
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


def _refuse_inexact(sheet: Sheet, column: str) -> None:
    """A UserError for ids that one of several files has as floats, of which some may have become one."""
    if column in sheet.inexact:
        expected = f"{ids.EXPECTED} as an id; this file has it as a float, and others have it not: {ids.REMEDY}"
        _refuse(sheet, sheet.frame[column], sheet.inexact[column], expected)


def _refuse(sheet: Sheet, values: pl.Series, bad: pl.Series, expected: str) -> None:
    interactions.refuse(bad, values, sheet.place, lines(sheet), expected)
