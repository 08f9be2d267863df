"""Ties: events of one user at the same time, and what may count as before what.

A history is what came strictly before its event. What a file says of the order within one time is often no order of
events: dates are days or months, and rows are sorted by item. So by default events of one tie are no history of one
another. Another rule is right where something else is known.
"""

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Ties = Literal["strict", "file", "item", "hash"]
Earlier = bool | Literal["earlier"]

SAID: dict[str, str] = {  # of such events, for the reader of a run's notes
    "strict": "they are no history of one another",
    "file": "the order of the file says which was before",
    "item": "the order of the item ids says which was before",
    "hash": "a hash of user, item and time says which was before",
}


def note(number: int, followed: int, ties: Ties) -> tuple[str, ...]:
    """What the reader of a run is told of so many ties among the events with an earlier one of their user."""
    if not number:
        return ()
    return (
        f"ties: of {followed:,} events with an earlier one of their user {number:,} ({number / followed:.1%}) have "
        f"the time of the last of these; {SAID[ties]} (data.ties={ties})",
    )


def tied(user: npt.NDArray[np.int32], moment: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """[E] bool, of events by user and then time: those that have the time of the one before, of the same user."""
    return np.concatenate([[False], (user[1:] == user[:-1]) & (moment[1:] == moment[:-1])])


def ends_of_past(order: npt.NDArray[np.int32], tied: npt.NDArray[np.bool_], ties: Ties) -> npt.NDArray[np.int32]:
    """[E] int32: for each event the place in the `order` by user and time at which what was before it ends."""
    place = np.arange(len(order), dtype=np.int32)
    if ties == "strict":
        place = np.maximum.accumulate(np.where(tied, 0, place))  # the first place of each tie
    found = np.empty_like(place)
    found[order] = place
    return found


def begins_of_increments(
    order: npt.NDArray[np.int32], first: npt.NDArray[np.int32], increment: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """[E] int32: for each event the place, in the `order` by user and time, of its user's first event in its increment;
    `first` [E] are the places of the users' first events of all."""
    new = np.concatenate([[True], (np.diff(first) != 0) | (np.diff(increment[order]) != 0)])
    found = np.empty_like(order)
    found[order] = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    return found


def repeated(
    user: npt.NDArray[np.int32], label: npt.NDArray[np.int32], moment: npt.NDArray[np.int64], ties: Ties
) -> npt.NDArray[np.bool_]:
    """[E] bool: events whose user had the same label before."""
    pairs = user.astype(np.int64) * (int(label.max(initial=0)) + 1) + label
    _, first, pair = np.unique(pairs, return_index=True, return_inverse=True)
    if ties == "strict":
        return moment > moment[first][pair]
    return np.arange(len(pairs)) > first[pair]


def repeats(frame: pl.DataFrame, origin: str) -> tuple[str, ...]:
    """What is to be said where more than one in a hundred rows is another one again, in all that is read of it; those
    whose times are numbers of periods may well be."""
    known = frame.drop("line", "file", "event", strict=False)
    if "period" in known.columns and (known["period"] == known["time"]).all():
        return ()
    number = known.height - known.hash_rows().n_unique()
    if 100 * number <= known.height:
        return ()
    return (
        f"{origin}: {number:,} of {known.height:,} events are the same as another one, to the time; if events were "
        "written twice, or a file is there twice, leave one of them out",
    )


def ordered(frame: pl.DataFrame, ties: Ties) -> pl.DataFrame:
    """A frame in time order, its rows of equal time, of all users, as the rule has it, and else as they lie.

    strict, file: as they lie. item: whole numbers in their order, before ids of other kinds, which are compared as
    text. hash: by BLAKE2b (8 bytes) of "user, tab, item, tab, time" in UTF-8, as a big-endian number. A
    row's place among the rows of its time depends on these rows alone. Times are equal to the nanosecond, not to the
    second.
    """
    by: list[pl.Expr | pl.Series] = []
    if ties == "item":
        number = pl.col("item").str.extract(r"^([0-9]{1,18})$").cast(pl.Int64)
        by = [number, pl.col("item")]
    elif ties == "hash":
        rows = frame.select(pl.concat_str("user", "item", "time", separator="\t")).to_series()
        drawn = [int.from_bytes(hashlib.blake2b(row.encode(), digest_size=8).digest()) for row in rows]
        by = [pl.Series(drawn, dtype=pl.UInt64)]
    return frame.sort(*_exact(frame), *by, nulls_last=True, maintain_order=True)


def places(frame: pl.DataFrame) -> pl.Series:
    """[N] numbers that never fall where the rows are in the order of time."""
    exact = _exact(frame)
    if len(exact) == 1:
        return frame["time"]
    return frame.select(pl.arg_sort_by(*exact, maintain_order=True)).to_series().arg_sort()


def _exact(frame: pl.DataFrame) -> list[str]:
    """The columns that say when, to the nanosecond where it is known."""
    return [column for column in ("time", "fraction") if column in frame.columns]
