"""What a run keeps of its data: the log comes back as it was, and the first difference to another is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.data.interactions import Interactions, Side, Table, encode
from incremental.data.kept import ABOUT, columns, difference, digests, keep, kept, log_of
from incremental.errors import UserError

Rows = list[tuple[str, str, int]]
ROWS: Rows = [("ann", "tea", 1), ("bob", "rye", 2), ("ann", "rye", 3), ("cyd", "oat", 4), ("bob", "tea", 5),
              ("ann", "oat", 6)]  # fmt: skip
COUNTS = [3, 2, 1]


def log(rows: Rows = ROWS, *, titles: dict[str, str] | None = None, **more: Any) -> Interactions:
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").with_columns(**more)
    made = encode(Table(frame, "made here", text=titles or {}, kinds=("shop",) if "shop" in more else ()))
    if titles is None:
        return made
    lengths = np.array([[len(title)] for title in made.titles or []], np.float32)
    return replace(made, side={"text": Side("item", lengths)})


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def kept_of(own: Interactions, at: Path, counts: list[int] = COUNTS) -> Any:
    increment = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    keep(at, own, increment, increment * 2, put, question="q")
    return kept(at)


TITLES = {"tea": "Green tea", "rye": "Rye bread", "oat": "Oats"}
RICH: dict[str, Any] = {
    "rating": pl.Series([1.0, 2.5, 3.0, 4.0, 5.0, 0.5]),
    "behaviour": pl.Series(["view", "buy", "view", "view", "cart", "buy"]),
    "period": pl.Series([0, 0, 1, 1, 2, 2]),
    "shop": pl.Series(["x", "", "y", "x", "z", ""]),
}


@pytest.mark.parametrize("rich", [False, True])
def test_the_log_comes_back_as_it_was(tmp_path: Path, rich: bool) -> None:
    own = log(titles=TITLES, **RICH) if rich else log()
    data = kept_of(own, tmp_path)
    back = log_of(data)
    assert columns(back).keys() == columns(own).keys()
    for name, values in columns(own).items():
        np.testing.assert_array_equal(columns(back)[name], values)
        assert columns(back)[name].dtype == values.dtype
    for kind in own.kinds:
        assert back.vocabulary(kind) == own.vocabulary(kind)
    assert (back.titles, back.behaviours) == (own.titles, own.behaviours)
    assert back.side.keys() == own.side.keys()
    for name, side in own.side.items():
        assert back.side[name].kind == side.kind
        np.testing.assert_array_equal(back.side[name].values, side.values)
    assert data.increment.tolist() == [0, 0, 0, 1, 1, 2]
    assert data.cut.tolist() == [0, 0, 0, 2, 2, 4]
    assert difference(data, own) is None


def test_what_comes_later_changes_no_digest() -> None:
    """New users, items and rows behind: the numbers of what was there are the same."""
    more: Rows = [*ROWS, ("dan", "fig", 7)]
    assert digests(log(more), COUNTS, [0, 1, 2]) == digests(log(), COUNTS, [0, 1, 2])


def changed(event: int, row: tuple[str, str, int]) -> Rows:
    return [*ROWS[:event], row, *ROWS[event + 1 :]]


@pytest.mark.parametrize(
    ("rows", "increment", "event", "was", "now"),
    [
        (ROWS[1:], 0, 1, "user 'ann', item 'tea'", "user 'bob', item 'rye'"),  # filtered in front
        (ROWS[:4], 1, 5, "user 'bob', item 'tea'", "not there"),  # and behind
        ([row for row in ROWS if row[0] != "cyd"], 1, 4, "user 'cyd', item 'oat'", "user 'bob', item 'tea'"),
        (changed(4, ("bob", "fig", 5)), 1, 5, "item 'tea'", "item 'fig'"),  # an id that was not there
        (changed(3, ("cyd", "pie", 4)), 1, 4, "item 'oat'", "item 'pie'"),  # a name, the numbers are the same
        (changed(2, ("ann", "tea", 3)), 0, 3, "item 'rye'", "item 'tea'"),  # ids that are known
        ([*ROWS[:2], ("ann", "rye", 2), *ROWS[3:]], 0, 3, "1970-01-01T00:00:03Z|time 3", "time 2"),
        ([("ann", "oat", 0), *ROWS], 0, 1, "item 'tea', time 1", "item 'oat', time 0"),  # one that came late
    ],
)  # fmt: skip
def test_the_first_difference_is_named(
    tmp_path: Path, rows: Rows, increment: int, event: int, was: str, now: str
) -> None:
    found = difference(kept_of(log(), tmp_path), log(rows))
    assert found is not None
    assert found.startswith(f"event {event} in time order, in increment {increment}, was ")
    then, _, is_now = found.partition("; now it is ")
    assert any(each in then for each in was.split("|"))
    assert now in is_now


@pytest.mark.parametrize("name", ["rating", "behaviour", "period", "shop"])
def test_every_column_counts(tmp_path: Path, name: str) -> None:
    data = kept_of(log(**RICH), tmp_path)
    other = {**RICH, name: RICH[name].clone()}
    other[name][4] = {"rating": 4.5, "behaviour": "view", "period": 1, "shop": "x"}[name]
    found = difference(data, log(**other))
    assert found is not None
    assert found.startswith("event 5 in time order, in increment 1, was user 'bob', item 'tea'")
    fewer = difference(data, log(**{key: value for key, value in RICH.items() if key != name}))
    assert fewer is not None
    assert name in fewer.partition("; now it is of ")[0]


def test_titles_count_where_models_read_them(tmp_path: Path, documented: Callable[[str, object], None]) -> None:
    data = kept_of(log(titles=TITLES), tmp_path / "read")
    found = difference(data, log(titles={**TITLES, "oat": "Oat meal"}))
    documented("a title that is another one since a run was made", found)
    assert found == "the title of item 'oat', of increment 1, was 'Oats'; now it is 'Oat meal'"
    other = log(titles=TITLES)
    other = replace(other, side={"text": Side("item", other.side["text"].values + 1)})
    assert (
        difference(data, other) == "the titles of increment 0 are the same, but data.text makes other numbers of them"
    )
    unread = replace(log(titles=TITLES), side={})
    named = kept_of(unread, tmp_path / "unread")
    assert difference(named, replace(unread, titles=["", "a", "b", "c"])) is None


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert kept(tmp_path / "nowhere") is None
    data = kept_of(log(), tmp_path)
    (tmp_path / data.files["events.parquet"]).unlink()
    with pytest.raises(UserError, match=r"the run's data cannot be read .*; take the folder from a copy"):
        log_of(data)
    about = (tmp_path / ABOUT).read_text()
    (tmp_path / ABOUT).write_text(about.replace('"version": 1', '"version": 7'))
    with pytest.raises(UserError, match=r"format of version 7, this code reads version 1"):
        kept(tmp_path)
    (tmp_path / ABOUT).write_text(about.replace(data.files["user.parquet"], "../../user.parquet"))
    with pytest.raises(UserError, match=r"it names files outside of its folder"):
        kept(tmp_path)
    (tmp_path / ABOUT).write_text("{")
    with pytest.raises(UserError, match=r"data\.json: cannot be read"):
        kept(tmp_path)
