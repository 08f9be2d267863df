"""Identity: which values of a column are one id. The rule is the same for users, items, behaviours, further kinds of
ids, and the ids beside titles.

An id is a text without blanks around it. A whole number of any numeric type is the text of its digits, and a text of
digits, a point and noughts is that number too: 12, 12.0 and "12.00" are "12". The rule looks at one value at a time:
"1.10" and "1.1" stay apart, and so do "007" and "7". A float is an id as far as its type can tell whole numbers apart.
"""

from typing import NamedTuple

import polars as pl

EXACT = {"Float64": 2.0**53, "Float32": 2.0**24, "Float16": 2.0**11}  # from here on neighbours become one
EXPECTED = "text or whole numbers"
REMEDY = "write the column as text or integers where it is made"
POINT = r"^(-?[1-9][0-9]*|0)\.0+$"  # a whole number that was written as a decimal
SCIENTIFIC = r"^-?([0-9]\.[0-9]+[eE]\+?|[0-9]+[eE]\+)[0-9]+$"  # what programs make of long numbers
AROUND = r"^[\s\x{200B}\x{FEFF}]+|[\s\x{200B}\x{FEFF}]+$"  # blanks, those without a width too
WORDS = (
    *("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT"),
    *("NULL", "Null", "null", "(null)", "None", "none", "nil", "undefined", "\\N", "-"),
)
"""what programs write where there is nothing"""


class Read(NamedTuple):
    """A column as ids. Each mask is bool [N] without nulls."""

    values: pl.Series  # str [N], normal; null where the cell is empty
    bad: pl.Series  # no exact id
    expected: str  # of those
    blank: pl.Series  # had blanks around it
    pointed: pl.Series  # had a point: "12.0"


def read(values: pl.Series, *, flags: bool = False) -> Read | None:
    """The ids of a column; None if its type cannot be one. `flags`: true and false are ids (behaviours)."""
    none = pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    if values.dtype.is_float():
        whole, most = values.fill_nan(None), EXACT[str(values.dtype)]
        inexact = (whole.abs() >= most).fill_null(False)
        bad = inexact | (whole != whole.floor()).fill_null(False)
        expected = f"{EXPECTED} as an id"
        if bad.any() and inexact[bad.arg_true()[0]]:
            expected += f"; from {most:.0f} on {values.dtype} cannot tell whole numbers apart: {REMEDY}"
        return Read(whole.set(bad, None).cast(pl.Int64).cast(pl.String), bad, expected, none, none)
    if values.dtype.is_integer() or values.dtype == pl.Null or (flags and values.dtype == pl.Boolean):
        return Read(values.cast(pl.String), none, EXPECTED, none, none)
    if values.dtype.is_decimal():
        text = values.cast(pl.String).str.replace(r"\.0*$", "")
        return Read(text, text.str.contains(".", literal=True).fill_null(False), f"{EXPECTED} as an id", none, none)
    written = text_of(values)
    if written is None:
        return None
    if values.dtype == pl.Binary:
        raw = values.is_not_null() & (written.is_null() | written.str.contains(r"\p{Cc}").fill_null(False))
        if raw.any():
            expected = f"{EXPECTED}; the column has the type {values.dtype}, and these bytes are no text: {REMEDY}"
            return Read(written, raw, expected, none, none)
    # In one query: each step as a series of its own would be a pass, which over a short column is mostly overhead.
    cell, pointed = pl.col("text"), pl.col("pointed")
    number, empty = pl.when(pointed).then(cell).cast(pl.Float64), cell == ""
    found = (
        pl.select(written=written)
        .select("written", text=pl.col("written").str.replace_all(AROUND, ""))
        .select("written", "text", pointed=cell.str.contains(POINT).fill_null(False))
        .select(
            pointed,
            bad=(pointed & (number.abs() >= 2.0**53).fill_null(False)) | cell.str.contains(SCIENTIFIC).fill_null(False),
            blank=((cell != pl.col("written")) & ~empty).fill_null(False),
            text=pl.when(~empty).then(cell.str.replace(POINT, "${1}")),
        )
    )
    return Read(
        found["text"].rename(values.name),
        found["bad"],
        f"an id with all its digits; this is a float, and ids may have become one: {REMEDY}",
        found["blank"],
        found["pointed"],
    )


def notes(values: pl.Series, found: Read, lines: pl.Series) -> list[str]:
    """What of a column of text is not as it was written, with the line of the first row."""
    said = []
    blank, pointed = "blanks around ids were left out", "ids with a point are whole numbers"
    for rows, what in ((found.blank, blank), (found.pointed, pointed)):
        if rows.any():
            first = int(rows.arg_true()[0])
            one = f"{values.gather([first]).cast(pl.String)[0]!r} is {found.values[first]!r}"
            said.append(f"{what} in {rows.sum():,} rows, the first in row {lines[first]}: {one}")
    return said


def text_of(values: pl.Series) -> pl.Series | None:
    """A column of text, whatever holds it, as str [N], null where its bytes are no text; None for other types."""
    if values.dtype == pl.Binary:
        try:
            return values.cast(pl.String)
        except pl.exceptions.PolarsError:
            return pl.Series(values.name, [_decoded(value) for value in values], dtype=pl.String)
    if values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return values.cast(pl.String)
    return None


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def missing(values: pl.Series, *, words: bool) -> pl.Series:
    """Of normal ids: bool [N], where there is none. `words`: what programs write where there is nothing is an id."""
    if words:
        return values.is_null()
    return pl.select(values).select(pl.first().is_in(WORDS).fill_null(True)).to_series()


def normal(one: str) -> str:
    """One id as the rule has it.

    >>> normal(" 12.0 "), normal("1.10"), normal("1.1"), normal("007.0")
    ('12', '1.10', '1.1', '007.0')
    """
    found = read(pl.Series([one]))
    return (found.values[0] if found else None) or ""
