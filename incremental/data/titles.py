"""The titles of items, which are their texts: whose they are, and from when on they count."""

from collections.abc import Mapping, Sequence

import polars as pl

from incremental.data import ids


def in_time(text: Mapping[str, str], since: Mapping[str, int] | None, frame: pl.DataFrame) -> Mapping[str, str]:
    """Title by item, without those that came in a later period than the item's first event in the `frame` (of
    `incremental.data.interactions.Table`): what was learnt of the item by then must not change.

    `since`: the period that each title came in; None: all were there before.
    """
    if not since:
        return text
    periods = frame.group_by("item").agg(pl.col("period").min())
    first = dict(zip(periods["item"].to_list(), periods["period"].to_list(), strict=True))
    return {item: title for item, title in text.items() if since[item] <= first.get(item, -1)}


def of_items(text: Mapping[str, str], items: Sequence[str]) -> list[str]:
    """[V] the first title of each item, whose ids are read as those of the events are; "" is none, and the first."""
    found = ids.read(pl.Series(list(text), dtype=pl.String))
    normal: dict[str, str] = {}
    for one, title in zip(found.values if found else [], text.values(), strict=True):
        normal.setdefault(one, title)
    return ["", *(normal.get(item, "") for item in items)]
