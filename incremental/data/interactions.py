"""Interactions: the table that a source returns, its checks, and the encoded stream that models read.

Letters in shapes: N interactions, V items and W users (padding row 0 included).
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from incremental.data import ids, times, titles
from incremental.data.ties import Ties, ordered, places, repeats
from incremental.errors import UserError

MANY = 100  # events from which on it is noted that one user has more than half of them


class Table(NamedTuple):
    """What a source returns: interactions in the file's order, before cleaning, checking and encoding.

    The columns of `frame`: user and item, of a type that `incremental.data.ids` reads; time int64 (seconds since 1970,
    rounded down, or the number of a period); optional fraction int64 (the nanoseconds after the time), rating float32,
    behaviour as the ids, period int32 (given periods, from 0), line int64 (row in the file, as an editor counts), file
    enum (where there are several files), and for simulated streams event int64 (row in the law's arrays).
    """

    frame: pl.DataFrame
    origin: str  # file or files, for messages
    text: Mapping[str, str] = {}  # item -> title; may be empty, never changed
    notes: tuple[str, ...] = ()  # what the loader had to say
    law: Any = None  # the simulator's: take(events [N] int, items [V-1] int, raw numbers) -> their law
    names: Mapping[str, str] = {}  # column -> what the file calls it, where that differs
    kinds: tuple[str, ...] = ()  # further columns of ids: a category, a shop
    remedy: str | None = None  # what to do where no log has such times; None: the caller said that they are right
    counted: bool = False  # the times are numbers that were taken for seconds
    words: bool = False  # a word such as NA is an id
    part: bool = False  # of a longer one, which has the other items and behaviours
    since: Mapping[str, int] | None = None  # item -> the period that its title came in; None: titles were always there

    @property
    def file(self) -> pl.Series | None:
        """The file of each row, where there are several."""
        return self.frame["file"] if "file" in self.frame.columns else None


class Kind(NamedTuple):
    """The ids of one kind: of each event, and what they are."""

    ids: np.ndarray  # [N] int32, from 1; 0: the event has none
    names: list[str]  # raw ids by number; names[0] == ""


class Side(NamedTuple):
    """A frozen table: what is known of each id of a kind, such as an item's text."""

    kind: str
    values: np.ndarray  # [ids, ...], row 0 is 0


@dataclass(frozen=True, eq=False)
class Interactions:
    """An encoded stream, in time order within a part. Ids count from 1 by first appearance in it; 0 is padding.

    So the numbers of a stream that is cut short are those of the whole stream.
    """

    user: np.ndarray  # [N] int32
    item: np.ndarray  # [N] int32
    time: np.ndarray  # [N] int64, seconds since 1970 or the number of a period
    fraction: np.ndarray  # [N] int32, the nanoseconds after it
    rating: np.ndarray | None  # [N] float32
    behaviour: np.ndarray | None  # [N] int8, index into behaviours
    period: np.ndarray | None  # [N] int32, given periods
    users: list[str]  # [W], raw ids; users[0] == ""
    items: list[str]  # [V], raw ids; items[0] == ""
    titles: list[str] | None  # [V], "" where unknown; None: the source has no titles
    behaviours: tuple[str, ...]
    notes: tuple[str, ...]
    law: Any = None
    further: Mapping[str, Kind] = field(default_factory=dict)  # kinds of ids beside users and items
    side: Mapping[str, Side] = field(default_factory=dict)  # frozen tables by name
    line: np.ndarray | None = None  # [N] int64, the row of the file, for messages

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of ids."""
        return ("item", "user", *self.further)

    def ids(self, kind: str) -> np.ndarray:
        """[N] int32, each event's id of this kind."""
        return self.item if kind == "item" else self.user if kind == "user" else self.further[kind].ids

    def vocabulary(self, kind: str) -> list[str]:
        """The raw ids of this kind by number; the first is "" """
        return self.items if kind == "item" else self.users if kind == "user" else self.further[kind].names

    @property
    def moment(self) -> np.ndarray:
        """[N] int64: the number of each event's exact time, from 0; equal where these are."""
        order = np.lexsort((self.fraction, self.time))  # a cut may have put a later time before
        later = (np.diff(self.time[order]) != 0) | (np.diff(self.fraction[order]) != 0)
        number = np.zeros(len(self), np.int64)
        number[order[1:]] = np.cumsum(later)
        return number

    def __len__(self) -> int:
        """The number of interactions, N."""
        return len(self.user)

    def prefix(self, n: int) -> "Interactions":
        """The first n interactions, with the id tables cut to the ids that appear in them."""
        users, items = (int(ids[:n].max(initial=0)) + 1 for ids in (self.user, self.item))
        first: dict[str, Any] = {name: own[:n] for name in ARRAYS if (own := getattr(self, name)) is not None}
        behaviours = int(first["behaviour"].max(initial=-1)) + 1 if "behaviour" in first else 0
        further = {name: _first(kind, n) for name, kind in self.further.items()}
        known = {"item": items, "user": users, **{name: len(kind.names) for name, kind in further.items()}}
        return replace(
            self,
            **first,
            users=self.users[:users],
            items=self.items[:items],
            titles=None if self.titles is None else self.titles[:items],
            behaviours=self.behaviours[:behaviours],
            law=None if self.law is None else self.law.take(np.arange(min(n, len(self))), np.arange(1, items)),
            further=further,
            side={name: Side(of.kind, of.values[: known[of.kind]]) for name, of in self.side.items()},
        )


def _first(kind: Kind, n: int) -> Kind:
    """The kind as it was after n events."""
    return Kind(kind.ids[:n], kind.names[: int(kind.ids[:n].max(initial=0)) + 1])


def suggestion(name: str, present: Collection[str], *, likely: str = "") -> str:
    """Sentences for an unknown name: the one that was meant, `likely` or a close one, and all that are there (12)."""
    spelled = {p.lower(): p for p in present}
    close = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.75)
    meant = likely if likely in present else spelled[close[0]] if close else ""
    there = ", ".join([repr(p) for p in present][:12]) or "none"
    there += ", …" if len(present) > 12 else ""
    return f"did you mean {meant!r}? There is {there}." if meant else f"there is {there}."


def refuse(bad: pl.Series, values: pl.Series, place: str | pl.Series, lines: pl.Series, expected: str) -> None:
    """Raise UserError, with line and value, for the first row where bad [N] bool is true; else do nothing.

    `place` is the file, or the file of each row. The column is named after `values`. `expected` says what would be
    right and what to do.
    """
    rows = bad.arg_true()
    if not len(rows):
        return
    first = int(rows[0])
    value = values[first]
    shown = "empty" if value is None or str(value).strip() == "" else repr(value)
    more = f" (and {len(rows) - 1:,} more row{'s' if len(rows) > 2 else ''})" if len(rows) > 1 else ""
    file = place if isinstance(place, str) else place[first]
    raise UserError(
        f"{file}, row {lines[first]}, column '{values.name}': the value is {shown}{more}; expected {expected}"
    )


def validate(table: Table) -> Table:
    """The table with checked columns of the right types, sorted by time (stable) if it was not, and noted.

    Raises UserError that names file, row and column for: a missing column, no rows, a user, item or behaviour that is
    missing or no id (`incremental.data.ids`), a rating that is missing or not finite, a time that is missing, negative
    or of no log (`Table.remedy`), a period that is missing or negative, a single item.
    """
    table = typed(table)
    frame = table.frame
    for column in [c for c in ("user", "item", "behaviour") if c in frame.columns]:
        kind = "a name" if column == "behaviour" else "an id"
        none = ids.missing(frame[column], words=table.words)
        word = none & frame[column].is_not_null()
        keep = "; data.cleaning.missing=keep takes such words for ids" if word.any() else ""
        expected = f"{kind}; fill it in or delete the row (data.cleaning.missing=drop deletes all such rows{keep})"
        _refuse(table, column, none, expected)
    _check_times(table)
    if "rating" in frame.columns:
        broken = ~frame["rating"].is_finite().fill_null(False)
        _refuse(table, "rating", broken, "a finite number; correct it or delete the row")
    if "period" in frame.columns:
        broken = (frame["period"] < 0).fill_null(True)
        _refuse(table, "period", broken, "the number of a period, from 0")
    if not table.part and frame["item"].n_unique() < 2:
        raise UserError(
            f"{table.origin}: every row has the same item {frame['item'][0]!r}; "
            "a recommender needs at least two. Check that the item column is the right one."
        )

    place = places(frame)
    early = int((place < place.cum_max()).sum())
    if not early:
        return table
    note = (
        f"{table.origin}: sorted by time, {early:,} of {frame.height:,} rows were out of order "
        "(earlier than a row above them)"
    )
    return table._replace(frame=ordered(frame, "file"), notes=(*table.notes, note))


def without_id(table: Table) -> pl.Series:
    """[N] bool: the rows of a `typed` table that have no user, no item, or no behaviour where there are some."""
    columns = [column for column in ("user", "item", "behaviour") if column in table.frame.columns]
    none = pl.DataFrame([ids.missing(table.frame[column], words=table.words).alias(column) for column in columns])
    return none.select(pl.any_horizontal(pl.all())).to_series()


def _check_times(table: Table) -> None:
    time = table.frame["time"]
    _refuse(table, "time", time.is_null(), "a time in seconds since 1970; fill it in or delete the row")
    if table.remedy is not None:
        strange = (time < times.FIRST) | (time > times.latest())
        if strange.any():
            hint = times.doubt(int(time[strange.arg_true()[0]]), counted=table.counted)
            _refuse(table, "time", strange, f"a time from 1990 to tomorrow; {hint}{table.remedy}")
    removed = "correct it, or set data.cleaning.after to remove such rows"
    _refuse(table, "time", time < 0, f"seconds since 1970, 0 or more; {removed}")
    many = "seconds since 1970; if these are milliseconds, set data.source.time_unit=ms or divide by 1000"
    _refuse(table, "time", time > times.LATEST, many)


ARRAYS = ("user", "item", "time", "fraction", "rating", "behaviour", "period", "line")  # of `Interactions`, by event
TAKEN = {*ARRAYS, "file", "event"}
TAKEN |= {"labels", "self", "token", "click"}
"""names that a further kind of ids cannot have: of columns, of tasks' labels, of what is no kind that grows"""


def refuse_taken(kinds: Collection[str]) -> None:
    """A UserError for a further kind of ids whose name means something else."""
    for kind in kinds:
        if kind in TAKEN:
            raise UserError(f"data.source.kinds.{kind}: the name is taken; choose another for this kind of ids")


def encode(table: Table, ties: Ties = "strict") -> Interactions:
    """Validate the table and number its users, items and behaviours by first appearance in time order.

    `ties` orders the rows of equal time (`incremental.data.ties`). Raises UserError as `validate` does, and for more
    than 127 behaviours.
    """
    refuse_taken(table.kinds)
    table = validate(table)
    frame = ordered(table.frame, ties)
    exact = "fraction" in frame.columns
    fraction = frame["fraction"].to_numpy().astype(np.int32) if exact else np.zeros(frame.height, np.int32)
    user, users = _number(frame["user"])
    item, items = _number(frame["item"])
    behaviour: np.ndarray | None = None
    behaviours: tuple[str, ...] = ()
    if "behaviour" in frame.columns:
        codes, names = _number(frame["behaviour"])
        behaviours = tuple(names)
        if len(behaviours) > 127:
            raise UserError(
                f"{table.origin}: column '{table.names.get('behaviour', 'behaviour')}' has {len(behaviours)} "
                "different behaviours, at most 127 are possible; check that the column is the right one"
            )
        behaviour = codes.astype(np.int8)
    text = titles.in_time(table.text, table.since, frame)
    named = titles.of_items(text, items) if table.text or table.since is not None else None
    law = table.law
    if law is not None:
        law = law.take(frame["event"].to_numpy(), np.array([int(i) for i in items]))
    return Interactions(
        user=user + 1,
        item=item + 1,
        time=frame["time"].to_numpy(),
        fraction=fraction,
        rating=frame["rating"].to_numpy() if "rating" in frame.columns else None,
        behaviour=behaviour,
        period=frame["period"].to_numpy() if "period" in frame.columns else None,
        users=["", *users],
        items=["", *items],
        titles=named,
        behaviours=behaviours,
        notes=(*table.notes, *_note_of_one(table.origin, user, users), *repeats(frame, table.origin)),
        law=law,
        further={name: _kind(frame[name]) for name in table.kinds},
        line=frame["line"].to_numpy(),
    )


def _kind(values: pl.Series) -> Kind:
    """A further kind's ids, numbered by first appearance; null is no id."""
    empty = values.is_null().to_numpy()
    codes, names = _number(values.drop_nulls())
    numbers = np.zeros(len(values), np.int32)
    numbers[~empty] = codes + 1
    return Kind(numbers, ["", *names])


def _note_of_one(origin: str, user: np.ndarray, users: list[str]) -> tuple[str, ...]:
    """What is to be said where one user has more than half of the events."""
    counts = np.bincount(user)
    most = int(counts.argmax())
    if len(user) < MANY or counts[most] <= len(user) / 2:
        return ()
    return (
        f"{origin}: one user, {users[most]!r}, has {counts[most]:,} of {len(user):,} events "
        f"({counts[most] / len(user):.1%}); if it stands for all who are unknown, leave its rows out",
    )


def _number(values: pl.Series) -> tuple[np.ndarray, list[str]]:
    """Codes [N] int32 from 0 by first appearance, and the distinct values in that order."""
    distinct = values.unique(maintain_order=True)
    codes = pl.int_range(0, len(distinct), dtype=pl.Int32, eager=True)
    return values.replace_strict(distinct, codes, return_dtype=pl.Int32).to_numpy(), distinct.to_list()


def typed(table: Table) -> Table:
    """The table with the schema's types, and its ids in their normal form (`incremental.data.ids`); null: missing.

    Raises UserError for a missing column, no rows, a column whose type has no such meaning, and values that are no ids.
    """
    frame = table.frame
    for column in ("user", "item", "time"):
        if column not in frame.columns:
            raise UserError(
                f"{table.origin}: column '{column}' is missing; {suggestion(column, frame.columns)} "
                "A table needs the columns user, item and time."
            )
    if not frame.height:
        raise UserError(f"{table.origin} is empty: it has no interactions")
    if "line" not in frame.columns:
        frame = frame.with_columns(line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    wanted = {
        "time": (pl.Int64, "whole seconds since 1970 (int64)"),
        "fraction": (pl.Int64, "whole nanoseconds"),
        "period": (pl.Int32, "whole numbers from 0"),
        "rating": (pl.Float32, "numbers"),
        "line": (pl.Int64, "whole numbers"),
        "event": (pl.Int64, "whole numbers"),
    }
    for column, (dtype, meaning) in wanted.items():
        if column not in frame.columns or frame.schema[column] == dtype:
            continue
        have = frame.schema[column]
        if not (have == pl.Null or have.is_integer() or (dtype == pl.Float32 and have.is_numeric())):
            raise UserError(no_type(table.origin, table.names.get(column, column), have, meaning))
        frame = frame.with_columns(pl.col(column).cast(dtype, strict=False))
    notes = list(table.notes)
    for column in [c for c in ("user", "item", "behaviour", *table.kinds) if c in frame.columns]:
        values, said = identities(
            frame[column].alias(table.names.get(column, column)),
            table.origin,
            frame["line"],
            file=table.file,
            flags=column not in ("user", "item"),
        )
        word = ids.missing(values, words=table.words) & values.is_not_null()
        if column in table.kinds and word.any():
            cells = f"{word.sum():,} cells such as {values.filter(word)[0]!r} are no id"
            said, values = (*said, f"{table.origin}: column '{values.name}': {cells}"), values.set(word, None)
        frame = frame.with_columns(values.alias(column))
        notes += said
    return table._replace(frame=frame, notes=tuple(notes))


def identities(
    values: pl.Series, origin: str, lines: pl.Series, *, file: pl.Series | None = None, flags: bool = False
) -> tuple[pl.Series, tuple[str, ...]]:
    """A column's ids in their normal form, str [N], null where the cell is empty; and what there is to be said of them.

    `file`: that of each row, where there are several. `flags`: true and false are ids. Raises UserError for a type that
    is no id's, and for the first row with a value that is none.
    """
    found = ids.read(values, flags=flags)
    if found is None:
        raise UserError(no_type(origin, values.name, values.dtype, ids.EXPECTED))
    refuse(found.bad, values, origin if file is None else file, lines, found.expected)
    return found.values, tuple(f"{origin}: column '{values.name}': {said}" for said in ids.notes(values, found, lines))


def no_type(origin: str, column: str, have: pl.DataType, meaning: str) -> str:
    """What to say of a column whose type means nothing here."""
    remedy = "Convert the column first."
    if have == pl.Struct:
        remedy = "Write one of its fields as a column of its own."
    elif have.is_nested():
        remedy = "Write one interaction a row: a list has to be exploded."
    return f"{origin}: column '{column}' has the type {have}; expected {meaning}. {remedy}"


def _refuse(table: Table, column: str, bad: pl.Series, expected: str) -> None:
    values = table.frame[column].alias(table.names.get(column, column))
    refuse(bad, values, table.origin if table.file is None else table.file, table.frame["line"], expected)
