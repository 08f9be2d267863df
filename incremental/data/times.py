"""Times: when a column of numbers, text or dates says that something was, to the nanosecond.

Numbers count from 1970. Where the caller does not say what they count, their values do: seconds, milliseconds,
microseconds and nanoseconds of the years since 1990 are far apart. A text is a number, or ISO 8601 with what databases
make of it (`2024-01-31 12:30:00+00`, `… UTC`). Where no time zone is written it is UTC.
"""

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl

from incremental.data import ids
from incremental.errors import UserError

ISO_FORMATS = (  # several are tried because polars infers a single one from the first value
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y%m%dT%H%M%S%.f",
    "%Y%m%dT%H%M%S%.f%#z",
)
ZONES = ("UTC", "GMT", "Z")  # the names of time zones that are read
UNITS = {  # what numbers may count since 1970, and how many are a second
    "s": ("seconds", 1),
    "ms": ("milliseconds", 1_000),
    "us": ("microseconds", 1_000_000),
    "ns": ("nanoseconds", 1_000_000_000),
}
OTHERS = {"excel": "days of a spreadsheet", "period": "whole numbers of periods, from 0"}
SECOND = 1_000_000_000  # nanoseconds
DAY = 86_400  # seconds
FIRST = 631_152_000  # 1990-01-01: no log of interactions is older
EPOCH = 25_569  # 1970-01-01 in days of a spreadsheet
HUNDRED = -59_011_459_200  # the year 100
LATEST = 253_402_300_799  # the last second of the year 9999
ROWS = "remove such rows by data.cleaning.after or before"
KNOWN = ", ".join([*UNITS, *OTHERS])
REMEDY = f"set data.source.time_unit ({KNOWN}): with it any time from 1970 on is right; or {ROWS}"
CELL = "correct the cell, or delete the row"


class Read(NamedTuple):
    """A column as times."""

    seconds: pl.Series  # int64 [N], since 1970 (UTC), rounded down, or the numbers of periods; null: not read
    fraction: pl.Series  # int64 [N], the nanoseconds after them
    expected: str  # of what is not read
    unit: str | None = None  # what numbers were found to count, where the caller did not say


def read(values: pl.Series, *, form: str | None = None, unit: str | None = None) -> Read | None:
    """The times of a column; None if its type has none.

    form: how text and numbers are to be read (strftime; data.source.time_format)
    unit: what numbers count, of `UNITS` and `OTHERS`; None: found by their values (data.source.time_unit)

    Raises UserError for a form or a unit that is none, for both, and for a form, or for periods, where the column has
    times already.
    """
    if unit is not None and unit not in (*UNITS, *OTHERS):
        raise UserError(f"data.source.time_unit is {unit!r}; expected one of {KNOWN}, or null")
    if form is not None and unit is not None:
        raise UserError(
            f"data.source.time_format is {form!r} and data.source.time_unit is {unit!r}: times are read by a format, "
            "or are numbers of a unit; leave one out"
        )
    if values.dtype == pl.Date or values.dtype == pl.Datetime:
        if form is not None:
            raise UserError(
                f"data.source.time_format is {form!r}, but the column '{values.name}' has the type {values.dtype} and "
                "needs none; set it to null"
            )
        if unit == "period":
            raise UserError(
                f"data.source.time_unit=period, but the column '{values.name}' has the type {values.dtype}; a period "
                "is a whole number; leave data.source.time_unit out, or name the column with the periods"
            )
        moment = values.cast(pl.Datetime("us")) if values.dtype == pl.Date else values
        return Read(moment.dt.epoch("s"), moment.dt.nanosecond().cast(pl.Int64), f"a time; {CELL}")
    text = ids.text_of(values)
    if text is None and not values.dtype.is_numeric():
        return None
    if form is not None:
        return _written(_digits(values) if text is None else text, form)
    if text is None:
        return _counted(values, unit)
    text = text.str.strip_chars()
    if _floats(text.drop_nulls().head(1)).is_not_null().all() or unit == "period":
        return _counted(text, unit)
    plain = text.str.replace(rf"(\d)\s*(?:{'|'.join(ZONES)})$", "${1}")
    expected = (
        "a time such as 2024-01-31, 2024-01-31T12:30:00 or 2024-01-31 12:30:00+02 (of the names of time zones UTC "
        "alone); or set data.source.time_format, such as '%d/%m/%Y %H:%M'"
    )
    return Read(*_moments(plain, ISO_FORMATS), expected)


def doubt(seconds: int, *, counted: bool) -> str:
    """What a time that no log has may be; `counted`: it was a number of seconds."""
    text = str(seconds)
    if not counted and seconds < HUNDRED:
        return "its year has two digits: then set data.source.time_format, such as %y-%m-%d. Else "
    for digits, form in (("%Y%m%d", "%Y%m%d"), ("%Y%m%d%H%M%S", "%Y%m%d%H%M%S")):
        if counted and len(text) in (8, 14) and _date(text, digits):
            return f"it may be the date {_date(text, digits)}: then set data.source.time_format={form}. Else "
    if counted and EPOCH + FIRST // DAY <= seconds <= EPOCH + latest() // DAY:
        return "it may count the days of a spreadsheet: then set data.source.time_unit=excel. Else "
    for unit, (name, second) in UNITS.items():
        if counted and FIRST * second <= seconds <= latest() * second:
            return f"it may be {name} ({unit}) among seconds: then correct these rows. Else "
    return f"{'as seconds since 1970 ' if counted else ''}it is {said(seconds)}; "


def said(seconds: int) -> str:
    """The time as a reader knows it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if abs(seconds) <= LATEST // 10 else "no time"


def latest() -> int:
    """Tomorrow, in seconds since 1970: no log of interactions goes on after it."""
    return int(time.time()) + DAY


def _date(text: str, form: str) -> str | None:
    try:
        found = datetime.strptime(text, form)
    except ValueError:
        return None
    return f"{found:%Y-%m-%d}" if 1990 <= found.year <= 2100 else None


def _floats(values: pl.Series) -> pl.Series:
    return values.cast(pl.Float64, strict=False)


def _digits(values: pl.Series) -> pl.Series:
    """Numbers as text; null where they are not whole."""
    found = ids.read(values)
    return values.cast(pl.String) if found is None else found.values.set(found.bad, None)


def _counted(values: pl.Series, unit: str | None) -> Read:
    """Times of numbers, or of text that has numbers."""
    whole, rest = _parts(values)
    if unit == "excel":
        days = _floats(values)
        moment = ((days.set(~days.is_finite().fill_null(False), None) - EPOCH) * DAY * 1000).round()
        thousandths = moment.cast(pl.Int64, strict=False)  # a float of days has no more
        seconds = thousandths // 1000
        return Read(seconds, (thousandths - seconds * 1000) * (SECOND // 1000), f"a finite number of days; {CELL}")
    if unit == "period":
        none = ((rest != 0) | (whole < 0)).fill_null(False)
        return Read(whole.set(none, None), rest * 0, f"{OTHERS['period']}; {CELL}")
    known = unit or _unit(whole)
    name, second = UNITS[known]
    seconds = whole // second
    fraction = (whole - seconds * second) * (SECOND // second) + rest // second
    return Read(seconds, fraction, f"a finite number of {name} since 1970; {CELL}", known if unit is None else None)


def _unit(whole: pl.Series) -> str:
    """The unit by which most of the values are times from 1990 to tomorrow; seconds where none is."""
    fits = {unit: int(whole.is_between(FIRST * of, latest() * of).sum()) for unit, (_, of) in UNITS.items()}
    return max(fits, key=lambda unit: fits[unit])


def _parts(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The number rounded down, and what is left in thousand-millionths, int64 [N]; null where it is no finite number.

    A float of nanoseconds would not be exact, and so text is read as a decimal.
    """
    if values.dtype.is_integer():
        whole = values.cast(pl.Int64, strict=False)
        return whole, whole * 0
    if values.dtype.is_float():
        whole = values.floor()
        rest = ((values - whole) * SECOND).round().cast(pl.Int64, strict=False).clip(0, SECOND - 1)
        return whole.cast(pl.Int64, strict=False), rest
    exact = values.cast(pl.Decimal(38, 9), strict=False)
    whole = exact.floor().cast(pl.Int64, strict=False)
    return whole, ((exact - exact.floor()) * SECOND).cast(pl.Int64, strict=False)


def _written(values: pl.Series, form: str) -> Read:
    """Times of text by a format."""
    if not re.search(r"%[-_0]?[YyGgsDFcx+C]", form):
        raise UserError(f"data.source.time_format is {form!r}, which has no year; expected one such as %Y-%m-%d")
    text = values.str.strip_chars()
    if "%Z" not in form:
        return Read(*_moments(text, (form,)), f"a time of the form {form}; {CELL}")
    expected = f"a time of the form {form}, where %Z is {', '.join(ZONES)}; of other zones write the offset, for %z"
    return Read(*_moments(text, [form.replace("%Z", zone) for zone in ZONES]), expected)


def _moments(values: pl.Series, forms: Sequence[str]) -> tuple[pl.Series, pl.Series]:
    """Seconds since 1970 and nanoseconds by the first format that reads a value, int64 [N], null where none does."""
    seconds = pl.repeat(None, len(values), dtype=pl.Int64, eager=True)
    fraction = seconds
    for form in forms:
        missing = seconds.is_null()
        if not missing.any():
            break
        try:
            moment = values.str.to_datetime(form, strict=False)
            fine = values.str.to_datetime(form, strict=False, time_unit="ns") if "f" in form else moment
        except pl.exceptions.PolarsError as error:  # the format itself, whatever the values
            raise UserError(
                f"data.source.time_format is {form!r}, which is no complete format of a date or time; "
                "expected one such as %Y-%m-%d or %d/%m/%Y %H:%M"
            ) from error
        found = moment.dt.epoch("s")
        near = found.abs() < 2**63 // SECOND - DAY  # what nanoseconds reach
        part = fine.dt.nanosecond().zip_with(near.fill_null(False), moment.dt.nanosecond()).cast(pl.Int64)
        seconds, fraction = seconds.zip_with(~missing, found), fraction.zip_with(~missing, part)
    return seconds, fraction
