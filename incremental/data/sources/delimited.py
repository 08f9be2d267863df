"""Delimited text: every row read or refused, with the line on which it stands."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from incremental.data.sources import files
from incremental.data.sources.sheet import Sheet, distinct
from incremental.errors import UserError

BLOCK = 1 << 24  # characters that are split at a time
RECORDS = 100_000  # quoted records that become columns at a time
WORDS = {"tab": "\t"}
csv.field_size_limit(2**31 - 1)  # a long field is no error: a quote that is not closed is


class Short(NamedTuple):
    """Rows with fewer fields than the header: which ones they lack, nobody knows."""

    number: int = 0
    first: int = 0  # its line


def separator_of(written: str, key: str) -> str:
    """The separator that is meant: `\\t` or tab is a tab, `\\x01` that character; UserError for what cannot be one."""
    meant = WORDS.get(written.lower(), written)
    if re.fullmatch(r"\\(t|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})", meant):
        meant = meant.encode().decode("unicode_escape")
    if not meant or re.search(r'[\w"\n\r\0.-]', meant):
        raise UserError(
            f"{key} is {written!r}, which cannot separate fields; write the characters themselves, "
            "such as ',' or ';' or '|' or '::', or '\\t' for a tab"
        )
    return meant


def delimited(
    path: Path,
    *,
    separator: str,
    header: Sequence[str] | None = None,
    quoted: bool = False,
    encoding: str | None = None,
    old: bool = False,
    name: Callable[[str], str] = str,
    key: str = files.PATH,
) -> Sheet:
    """Read a delimited file, every column as text, empty fields as null.

    header: the names of the columns of a file whose first line is data; None: the first line has them.
    quoted: whether fields may stand in double quotes, as in RFC 4180; else a quote is a character.
    encoding, old: as in `files.text`.
    name:   from a field of the header to the column's name.
    Raises UserError for an empty file, bytes that are no text, a row with too many fields, and broken quotes.
    """
    data = files.content(path, key)
    sheet = part(path, data, separator, header, quoted=quoted, encoding=encoding, old=old, name=name)
    if not sheet.frame.height:
        raise UserError(f"{path} is empty: it has no rows{' below its header' if sheet.header else ''}")
    return sheet


def part(
    path: Path,
    data: bytes,
    separator: str,
    header: Sequence[str] | None,
    *,
    quoted: bool,
    encoding: str | None,
    old: bool = False,
    name: Callable[[str], str] = str,
) -> Sheet:
    """The same of a file's bytes, which may have no rows: as one of several files."""
    content, notes = files.text(path, data, encoding=encoding, old=old)
    content = content.rstrip("\n")
    skipped = 0
    if header is None:
        skipped = len(content) - len(content.lstrip("\n"))
        content = content[skipped:]
        if content[:4].lower() == "sep=":
            raise UserError(f"{path}, row {skipped + 1}: a spreadsheet's note on the separator; delete this line")
    if not content:
        return Sheet(pl.DataFrame(), str(path))
    if quoted and '"' in content:
        reader = _Quoted(path, content, separator, skipped)
        written = next(reader.records()) if header is None else ()
        frame, line = reader.frame(len(written) or len(header or ()))
        notes += reader.notes + _note_of_short(path, reader.short, frame.width)
    else:
        first, _, rest = content.partition("\n") if header is None else ("", "", content)
        written = tuple(first.split(separator)) if header is None else ()
        begin = skipped + (2 if header is None else 1)
        frame, short = _split(path, rest, separator, len(written) or len(header or ()), begin)
        notes += _note_of_short(path, short, frame.width)
        line = pl.int_range(begin, begin + frame.height, dtype=pl.Int64, eager=True)
    names = list(header) if header is not None else distinct([name(field) for field in written])
    frame.columns = names
    if header is not None and [str(value).strip().lower() for value in frame.row(0)] == [n.lower() for n in header]:
        raise UserError(f"{path}, row 1: a header, where a row was expected; delete this line")
    return Sheet(frame, str(path), line, header=tuple(written), separator=separator, notes=notes)


def _split(path: Path, content: str, separator: str, fields: int, begin: int) -> tuple[pl.DataFrame, Short]:
    """The fields of each line, `fields` columns; and the lines that have fewer. UserError for a line with more."""
    parts = [pl.DataFrame(schema={str(k): pl.String for k in range(fields)})]
    at, short = 0, Short()
    while at < len(content):
        end = content.find("\n", at + BLOCK)
        end = len(content) if end < 0 else end
        values = pl.Series(content[at:end].split("\n"), dtype=pl.String)
        count = values.str.count_matches(separator, literal=True)
        long = (count >= fields).arg_true()
        if len(long):
            row = begin + int(long[0])
            raise _too_many(path, row, int(count[long[0]]) + 1, fields)
        few = (count < fields - 1).arg_true()
        if len(few):
            short = Short(short.number + len(few), short.first or begin + int(few[0]))
        cells = values.str.split_exact(separator, fields - 1) if fields > 1 else values.alias("field_0")
        block = cells.struct.unnest() if fields > 1 else cells.to_frame()
        block.columns = parts[0].columns
        parts.append(block.with_columns(pl.when(pl.all() != "").then(pl.all())))
        begin += len(values)
        at = end + 1
    return pl.concat(parts), short


def _note_of_short(path: Path, short: Short, fields: int) -> tuple[str, ...]:
    if not short.number:
        return ()
    return (
        f"{path}: {short.number:,} rows have fewer than {fields} fields (the first: row {short.first}); the last ones "
        "were taken to be empty",
    )


def _too_many(path: Path, row: int, found: int, fields: int) -> UserError:
    return UserError(f"{path}, row {row}: {found} fields, expected {fields}; check the separator and quotes")


class _Quoted:
    """The records of text with quotes. A field may run over several lines; what it may not swallow is rows."""

    def __init__(self, path: Path, content: str, separator: str, skipped: int) -> None:
        self.path, self.separator, self.skipped = path, separator, skipped
        self.delimiter = separator
        if len(separator) > 1:  # the parser takes one character
            self.delimiter = next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in content)
            content = content.replace(separator, self.delimiter)
        self.lines: list[str] = []  # of the record that is read
        self.reader = csv.reader(self._feed(content), delimiter=self.delimiter, strict=True)
        self.line = 0  # on which the last record begins
        self.several = 0
        self.short = Short()
        self.first_of_several = 0

    def _feed(self, content: str) -> Iterator[str]:
        for line in io.StringIO(content, newline=""):
            self.lines.append(line)
            yield line

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.several:
            return ()
        return (
            f"{self.path}: {self.several:,} rows have a quoted field over several lines (the first: row "
            f"{self.first_of_several}); if quotes are ordinary characters, set data.source.quoted=false",
        )

    def records(self) -> Iterator[tuple[str, ...]]:
        while True:
            self.lines.clear()
            self.line = self.reader.line_num + 1 + self.skipped
            try:
                record = next(self.reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(
                    f"{self.path}, row {self.line}: its quotes do not fit ({error}): one is not closed, or stands in "
                    'a quoted field without being doubled (""). Correct it, or set data.source.quoted=false if quotes '
                    "are ordinary characters"
                ) from error
            if len(self.separator) > 1:
                record = [field.replace(self.delimiter, self.separator) for field in record]
            if len(self.lines) > 1:
                self._check(record)
            yield tuple(record)

    def _check(self, record: Sequence[str]) -> None:
        """Count a record over several lines; UserError if one of these lines looks like a row of its own."""
        self.several += 1
        self.first_of_several = self.first_of_several or self.line
        # The line on which the first field ends has all the others too, as a row of its own has. Where its quote was
        # meant to stand, the line on which it begins has fewer.
        ends = record[0].count("\n") if self.lines[0].count(self.delimiter) < len(record) - 1 else 0
        for n, inner in enumerate(self.lines[1:], 1):
            if n == ends:
                continue
            cells = [cell.strip('"') for cell in inner.rstrip("\n").split(self.delimiter)]
            if len(cells) == len(record) > 2 and _alike(cells, record):
                raise UserError(
                    f"{self.path}, row {self.line}: a quoted field swallows line {self.line + n}, which looks like a "
                    "row of its own; correct the stray quote, or set data.source.quoted=false if quotes are ordinary "
                    "characters"
                )

    def frame(self, fields: int) -> tuple[pl.DataFrame, pl.Series]:
        """The records left as `fields` columns of text, and the line on which each begins."""
        schema = {str(k): pl.String for k in range(fields)}
        parts, rows = [pl.DataFrame(schema=schema)], list[tuple[str | None, ...]]()
        begins: list[int] = []
        for record in self.records():
            if len(record) > fields:
                raise _too_many(self.path, self.line, len(record), fields)
            if len(record) < fields:
                self.short = Short(self.short.number + 1, self.short.first or self.line)
            rows.append(tuple(record[k] or None if k < len(record) else None for k in range(fields)))
            begins.append(self.line)
            if len(rows) == RECORDS:
                parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
                rows = []
        parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
        return pl.concat(parts), pl.Series(begins, dtype=pl.Int64)


def _alike(cells: Sequence[str], record: Sequence[str]) -> bool:
    """Whether all but the long field have the same kinds of characters, digits among them: 12 as 7, u5 as u31."""
    pairs = [(a, b) for a, b in zip(cells, record, strict=True) if "\n" not in b]
    shapes = [(_shape(a), _shape(b)) for a, b in pairs]
    return all(a == b for a, b in shapes) and any("9" in b for _, b in shapes)


def _shape(value: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value))
