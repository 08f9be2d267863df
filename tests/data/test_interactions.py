import re
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incremental.data.interactions import Interactions, Side, Table, encode, suggestion, validate
from incremental.errors import UserError


def table(law: Any = None, text: Any = None, **columns: Any) -> Table:
    """Three good rows, with the given columns in their place or beside them."""
    rows: dict[str, list[Any]] = {"user": ["a", "b", "a"], "item": ["x", "y", "z"], "time": [1, 2, 3]}
    return Table(pl.DataFrame(rows | columns, strict=False), "events.csv", text or {}, law=law)


def refused(broken: Table, *parts: str) -> None:
    """Validation names the origin and all of the parts."""
    with pytest.raises(UserError) as caught:
        validate(broken)
    for part in ("events.csv", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("column", ["user", "item", "time"])
def test_a_missing_column_is_named_with_the_close_one(column: str) -> None:
    refused(
        table()._replace(frame=table().frame.rename({column: column + "s"})),
        f"column '{column}' is missing",
        f"did you mean '{column}s'?",
    )


def test_an_empty_table_is_refused() -> None:
    refused(table()._replace(frame=table().frame.head(0)), "is empty")


@pytest.mark.parametrize("column", ["user", "item", "behaviour"])
@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_empty_id_is_refused_with_its_row(column: str, empty: str | None) -> None:
    refused(table(**{column: ["a", empty, "c"]}), "row 2", f"column '{column}'", "is empty")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), None, 1e300])
def test_a_rating_that_is_not_finite_is_refused_with_its_row(bad: float | None) -> None:
    refused(table(rating=[1.0, 2.0, bad]), "row 3", "column 'rating'", "finite number")


def test_a_negative_or_missing_time_is_refused_with_its_row() -> None:
    refused(table(time=[5, -1, -2]), "row 2", "column 'time'", "-1", "1 more row", "data.cleaning.after")
    refused(table(time=[5, None, 7]), "row 2", "column 'time'", "is empty")


def test_milliseconds_are_refused() -> None:
    refused(table(time=[0, 1_600_000_000_000, 1]), "row 2", "milliseconds", "time_unit")


def test_a_bad_period_is_refused() -> None:
    refused(table(period=[0, -1, 1]), "row 2", "column 'period'")


def test_a_single_item_is_refused() -> None:
    refused(table(item=["x", "x", "x"]), "same item 'x'", "at least two")


@pytest.mark.parametrize(
    ("column", "values"), [("time", [1.5, 2.0, 3.0]), ("user", [True, False, True]), ("rating", ["1", "2", "3"])]
)
def test_a_column_of_the_wrong_type_is_refused(column: str, values: list[Any]) -> None:
    refused(table(**{column: values}), f"column '{column}'", "Convert the column")


def test_messages_use_the_lines_and_names_of_the_file() -> None:
    broken = table(time=[1, 2, -3], line=[10, 20, 30])._replace(names={"time": "unix"})
    refused(broken, "row 30", "column 'unix'")


def test_rows_out_of_time_order_are_sorted_stably_and_noted() -> None:
    checked = validate(table(time=[5, 3, 5], line=[2, 3, 4]))
    assert checked.frame["line"].to_list() == [3, 2, 4]
    assert checked.notes == (
        "events.csv: sorted by time, 1 of 3 rows were out of order (earlier than a row above them)",
    )
    assert validate(checked).notes == checked.notes


def test_ordered_rows_are_left_alone() -> None:
    assert validate(table()).notes == ()


def test_whole_numbers_become_text() -> None:
    assert encode(table(user=[7, 8, 7])).users == ["", "7", "8"]


def test_ids_count_by_first_appearance_in_time() -> None:
    stream = encode(table(time=[3, 1, 2], text={"x": "the x"}, behaviour=["view", "buy", "view"], rating=[1, 2, 3]))
    assert stream.items == ["", "y", "z", "x"]
    assert stream.users == ["", "b", "a"]
    assert stream.titles == ["", "", "", "the x"]
    assert stream.behaviours == ("buy", "view")
    assert stream.rating is not None
    assert stream.behaviour is not None
    np.testing.assert_array_equal(stream.item, [1, 2, 3])
    np.testing.assert_array_equal(stream.user, [1, 2, 2])
    np.testing.assert_array_equal(stream.behaviour, [0, 1, 1])
    np.testing.assert_array_equal(stream.rating, [2, 3, 1])
    types = [a.dtype for a in (stream.user, stream.item, stream.time, stream.rating, stream.behaviour)]
    assert types == [np.int32, np.int32, np.int64, np.float32, np.int8]


def test_what_the_source_has_not_is_none() -> None:
    stream = encode(table())
    assert (stream.rating, stream.behaviour, stream.period, stream.titles, stream.law) == (None,) * 5
    assert stream.behaviours == ()


def test_too_many_behaviours_are_refused() -> None:
    rows = [str(i) for i in range(128)]
    with pytest.raises(UserError, match="at most 127"):
        encode(Table(pl.DataFrame({"user": rows, "item": rows, "time": range(128), "behaviour": rows}), "f"))


class RecordingLaw:
    """Remembers what was taken of it."""

    def __init__(self, events: np.ndarray | None = None, items: np.ndarray | None = None):
        self.events, self.items = events, items

    def take(self, events: np.ndarray, items: np.ndarray) -> "RecordingLaw":
        return RecordingLaw(events, items)


def test_the_law_follows_the_rows_and_the_items() -> None:
    raw = table(time=[3, 1, 2], item=["30", "10", "20"], event=[7, 8, 9], law=RecordingLaw())
    stream = encode(raw)
    np.testing.assert_array_equal(stream.law.events, [8, 9, 7])
    np.testing.assert_array_equal(stream.law.items, [10, 20, 30])
    cut = stream.prefix(2)
    np.testing.assert_array_equal(cut.law.events, [0, 1])
    np.testing.assert_array_equal(cut.law.items, [1, 2])


def test_a_prefix_longer_than_the_stream_is_the_stream() -> None:
    raw = table(item=["3", "1", "2"], event=[0, 1, 2], law=RecordingLaw())
    cut = encode(raw).prefix(99)
    assert len(cut) == 3
    np.testing.assert_array_equal(cut.law.events, [0, 1, 2])


def test_suggestions_list_what_is_there_and_name_only_what_is_close() -> None:
    assert suggestion("user", ["abc", "xyz"]) == "there is 'abc', 'xyz'."
    assert suggestion("item", ["sku", "title"]) == "there is 'sku', 'title'."
    assert suggestion("user", ["Users", "xyz"]) == "did you mean 'Users'? There is 'Users', 'xyz'."
    assert suggestion("item", ["items", "sku"], likely="sku") == "did you mean 'sku'? There is 'items', 'sku'."
    assert suggestion("item", ["items", "id"], likely="sku") == "did you mean 'items'? There is 'items', 'id'."
    assert suggestion("user", []) == "there is none."


def same(one: Interactions, other: Interactions) -> None:
    """Both streams hold the same values, notes aside."""
    for field in ("user", "item", "time", "fraction", "rating", "behaviour", "period"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)
    for field in ("users", "items", "titles", "behaviours"):
        assert getattr(one, field) == getattr(other, field), field


rows = st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 9), st.integers(0, 3))


@given(st.lists(rows, min_size=2, max_size=40).filter(lambda rows: len({r[1] for r in rows}) > 1), st.data())
def test_encoding_obeys_the_prefix_law(rows: list[tuple[int, ...]], data: st.DataObject) -> None:
    rows = sorted(rows, key=lambda row: row[2])
    user, item, time, behaviour = (list(column) for column in zip(*rows, strict=True))

    def of(n: int) -> Interactions:
        names = [f"b{b}" for b in behaviour[:n]]
        text = {str(i): f"title {i}" for i in item[::2]}
        period = [t // 3 for t in time[:n]]
        return encode(table(text=text, user=user[:n], item=item[:n], time=time[:n], behaviour=names, period=period))

    whole = of(len(rows))
    for ids, distinct in ((whole.user, whole.users), (whole.item, whole.items)):
        first = np.unique(ids, return_index=True)[1]
        assert (np.diff(first) > 0).all()  # id k + 1 appears after id k
        assert ids.min() == 1
        assert ids.max() == len(distinct) - 1
    assert [whole.items[i] for i in whole.item] == [str(i) for i in item]
    assert [whole.users[u] for u in whole.user] == [str(u) for u in user]

    n = data.draw(st.integers(1, len(rows)))
    if len(set(item[:n])) > 1:
        same(of(n), whole.prefix(n))
    assert len(whole.prefix(n)) == n


def test_a_message_reads_as_a_sentence() -> None:
    with pytest.raises(
        UserError,
        match=re.escape("events.csv, row 2, column 'item': the value is empty; expected an id; fill it in or"),
    ):
        validate(table(item=["x", "", "y"]))


def test_further_kinds_and_side_tables_end_with_the_prefix() -> None:
    """A side table has the rows of the ids of its kind that have occurred."""
    log = encode(table(shelf=["s", None, "r"], shop=[7, 7, 8])._replace(kinds=("shelf", "shop")))
    assert (log.ids("shelf").tolist(), log.vocabulary("shelf")) == ([1, 0, 2], ["", "s", "r"])
    assert (log.ids("shop").tolist(), log.vocabulary("shop")) == ([1, 1, 2], ["", "7", "8"])
    values = {"item": np.arange(8).reshape(4, 2), "shelf": np.arange(3.0), "user": np.arange(3)}
    log = replace(log, side={f"of_{kind}": Side(kind, of) for kind, of in values.items()})
    short = log.prefix(1)
    assert short.vocabulary("shelf") == ["", "s"]
    assert {name: len(side.values) for name, side in short.side.items()} == {"of_item": 2, "of_shelf": 2, "of_user": 2}
    np.testing.assert_array_equal(short.side["of_item"].values, values["item"][:2])
    assert short.side["of_shelf"].kind == "shelf"
    whole = log.prefix(3)
    assert {name: len(side.values) for name, side in whole.side.items()} == {"of_item": 4, "of_shelf": 3, "of_user": 3}


def test_a_kind_that_is_no_id_is_refused() -> None:
    with pytest.raises(UserError, match=r"row 2, column 'weight': the value is 1.5; expected text or whole numbers"):
        encode(table(weight=[0.0, 1.5, 2.0])._replace(kinds=("weight",)))
