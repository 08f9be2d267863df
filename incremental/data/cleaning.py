"""Cleaning: explicit steps before a stream is encoded, each reported with what it removed.

Steps that read beyond the base part of a stream are labelled `uses_future`: with them a result is no longer
one that could have been had at the time.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl

from incremental.data import ids, interactions
from incremental.data.interactions import Table
from incremental.domains import Count, Finite, checked
from incremental.errors import UserError


class CleaningStep(NamedTuple):
    """What one step did to the table."""

    name: str
    removed: int  # rows
    remaining: int  # rows
    uses_future: bool

    @property
    def note(self) -> str:
        """What it did, in a line."""
        done = f"cleaning: {self.name} removed {self.removed:,} rows, {self.remaining:,} are left"
        return f"{done} (uses the future)" if self.uses_future else done


Cleaning = Callable[[Table], tuple[Table, tuple[CleaningStep, ...]]]


@checked
def cleaning(
    *,
    missing: str = "refuse",
    duplicates: str = "keep",
    minimum_rating: Finite | None = None,
    after: str | None = None,
    before: str | None = None,
    minimum_session: Count = 1,
    k_core: Count = 1,
    behaviours: list[str] | None = None,
) -> Cleaning:
    """The chosen steps as one function, run in this order; by default none. Its table is in time order.

    after, before:   ISO dates or times (UTC); rows before `after`, and at or after `before`, are removed.
                     They go first, so that rows with impossible times need not pass `interactions.validate`
    missing:         rows without user, item or behaviour, or with a word for that such as NULL
                     (`incremental.data.ids.WORDS`): "refuse" is an error, "drop" removes them, "keep": words are ids
    behaviours:      only rows of these kinds are kept
    minimum_rating:  only rows rated so or higher are kept
    duplicates:      of the rows of one user and one item "keep" all, the "first" or the "last"; "last"
                     uses the future
    minimum_session: users (sessions) with fewer rows are removed; uses the future
    k_core:          users and items with fewer rows are removed again and again until none is left; uses the
                     future

    Raises UserError for an impossible argument, a column that a step needs and the source has not, and when
    nothing is left.
    """
    if duplicates not in ("keep", "first", "last"):
        raise UserError(f"data.cleaning.duplicates is {duplicates!r}; expected keep, first or last")
    if missing not in ("refuse", "drop", "keep"):
        raise UserError(f"data.cleaning.missing is {missing!r}; expected refuse, drop or keep")
    start, end = _seconds("after", after), _seconds("before", before)

    def clean(table: Table) -> tuple[Table, tuple[CleaningStep, ...]]:
        steps: list[CleaningStep] = []

        def step(table: Table, name: str, frame: pl.DataFrame, *, uses_future: bool = False) -> Table:
            removed = table.frame.height - frame.height
            steps.append(CleaningStep(name, removed, frame.height, uses_future))
            if removed and not frame.height:
                raise UserError(
                    f"{table.origin}: nothing is left after the cleaning step '{name}', which removed "
                    f"the last {removed:,} rows; loosen it under data.cleaning"
                )
            return table._replace(frame=frame)

        # A missing time is kept here (fill_null): that is for `validate` to refuse, not for cleaning to hide.
        if start is not None:
            table = step(table, f"after {after}", table.frame.filter((pl.col("time") >= start).fill_null(True)))
        if end is not None:
            table = step(table, f"before {before}", table.frame.filter((pl.col("time") < end).fill_null(True)))
        table = table._replace(words=missing == "keep")
        if missing == "drop":
            table = interactions.typed(table)
            table = step(table, "missing ids", table.frame.filter(~interactions.without_id(table)))
        table = interactions.validate(table)
        if behaviours is not None:
            names = [ids.normal(str(name)) for name in behaviours]
            _require_behaviours(table, names)
            kept = table.frame.filter(pl.col("behaviour").is_in(names))
            table = step(table, f"behaviours {', '.join(names)}", kept)
        if minimum_rating is not None:
            _require(table, "rating", "minimum_rating")
            kept = table.frame.filter(pl.col("rating") >= minimum_rating)
            table = step(table, f"rating at least {minimum_rating:g}", kept)
        if duplicates != "keep":
            kept = table.frame.unique(
                ["user", "item"], keep="first" if duplicates == "first" else "last", maintain_order=True
            )
            table = step(table, f"duplicates: {duplicates}", kept, uses_future=duplicates == "last")
        if minimum_session > 1:
            kept = table.frame.filter(pl.len().over("user") >= minimum_session)
            table = step(table, f"sessions of at least {minimum_session}", kept, uses_future=True)
        if k_core > 1:
            *_, kept = _cores(table.frame, k_core)
            table = step(table, f"{k_core}-core", kept, uses_future=True)
        return table, tuple(steps)

    return clean


def _cores(frame: pl.DataFrame, k: int) -> Iterator[pl.DataFrame]:
    """The frame, and then without the users and items that had fewer than k rows, until none has."""
    while True:
        yield frame
        kept = frame.filter((pl.len().over("user") >= k) & (pl.len().over("item") >= k))
        if kept.height == frame.height:
            return
        frame = kept


def _seconds(key: str, moment: str | None) -> int | None:
    """Seconds since 1970 (UTC) of an ISO date or time."""
    if moment is None:
        return None
    try:
        parsed = datetime.fromisoformat(str(moment))
    except ValueError as error:
        raise UserError(f"data.cleaning.{key} is {moment!r}; expected a date or time such as 2024-01-31") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def _require(table: Table, column: str, key: str) -> None:
    if column not in table.frame.columns:
        raise UserError(
            f"{table.origin} has no {column}s, which data.cleaning.{key} needs; remove that key, or name "
            f"the column in data.source.{column} if the file has one"
        )


def _require_behaviours(table: Table, behaviours: list[str]) -> None:
    _require(table, "behaviour", "behaviours")
    present = table.frame["behaviour"].unique(maintain_order=True).to_list()
    for behaviour in behaviours:
        if behaviour not in present and not table.part:
            raise UserError(
                f"data.cleaning.behaviours: {table.origin} has no behaviour {behaviour!r}; "
                f"{interactions.suggestion(behaviour, present)}"
            )
