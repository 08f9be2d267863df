"""The user's own columns, in CSV and Parquet."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.data.interactions import encode, validate
from incremental.data.sources import files
from incremental.data.sources.columns import columns
from incremental.errors import UserError
from tests.data.layouts import Write, refused, seconds


def test_csv_with_all_columns(write: Write) -> None:
    path = write(
        "events.csv",
        'customer,sku,at,stars,kind,name\n"a,1",x,5,4.5,view,"The ""X"""\nb,y,7.9,3,buy,\na,x,8,1,view,Y\n',
    )
    table = columns(
        path=path, user="customer", item="sku", time="at", rating="stars", behaviour="kind", text="name", time_unit="s"
    )
    a = {"user": "a,1", "item": "x", "time": 5, "line": 2, "fraction": 0, "rating": 4.5, "behaviour": "view"}
    b = {"user": "b", "item": "y", "time": 7, "line": 3, "fraction": 900_000_000, "rating": 3.0, "behaviour": "buy"}
    assert table.frame.rows(named=True)[:2] == [a, b]
    assert table.frame.schema["rating"] == pl.Float32
    assert table.text == {"x": 'The "X"'}
    assert table.origin == path


def test_further_kinds_of_ids_are_numbered_by_first_appearance_and_an_empty_cell_is_no_id(write: Write) -> None:
    path = write(
        "events.csv", "user,item,time,cat,shop\na,x,1,shoe,7\nb,y,2,,8\na,x,3,tea,7\nb,x,4,shoe,9\na,y,5, ,7\n"
    )
    log = encode(columns(path=path, kinds={"category": "cat", "shop": "shop"}, time_unit="s"))
    assert log.kinds == ("item", "user", "category", "shop")
    assert log.ids("category").tolist() == [1, 0, 2, 1, 0]
    assert log.vocabulary("category") == ["", "shoe", "tea"]
    assert log.ids("shop").tolist() == [1, 2, 1, 3, 1]
    assert log.vocabulary("shop") == ["", "7", "8", "9"]
    assert {log.ids(kind).dtype for kind in log.kinds} == {np.dtype(np.int32)}
    short = log.prefix(2)
    assert (short.ids("category").tolist(), short.vocabulary("category")) == ([1, 0], ["", "shoe"])
    assert (short.ids("shop").tolist(), short.vocabulary("shop")) == ([1, 2], ["", "7", "8"])
    assert (short.ids("item").tolist(), short.vocabulary("user")) == ([1, 2], ["", "a", "b"])


@pytest.mark.parametrize("name", ["user", "item", "time", "rating", "behaviour", "event", "labels"])
def test_a_kind_whose_name_is_taken_is_refused(write: Write, name: str) -> None:
    path = write("events.csv", "user,item,time,cat\na,x,1,shoe\n")
    with pytest.raises(UserError, match=rf"data\.source\.kinds\.{name}: the name is taken; choose another"):
        columns(path=path, kinds={"shelf": "cat", name: "cat"})


def test_a_kinds_column_that_is_missing_is_refused(write: Write, documented: Callable[[str, object], None]) -> None:
    path = write("events.csv", "user,item,time,cat\na,x,1,shoe\n")
    with pytest.raises(UserError) as error:
        columns(path=path, kinds={"category": "cats"})
    documented("a column that the file does not have", error.value)


def test_separator_carriage_returns_byte_order_mark_and_blank_end(write: Write) -> None:
    path = write("events.tsv", b"\xef\xbb\xbfuser\titem\ttime\r\na\tx\t1\r\nb\ty\t2\r\n\r\n")
    table = columns(path=path, separator="\t")
    assert table.frame.select("user", "item", "time").rows() == [("a", "x", 1), ("b", "y", 2)]


def test_titles_from_a_second_file_beside_the_first(write: Write) -> None:
    path = write("events.csv", "user,item,time\na,x,1\nb,y,2\n")
    write("items.csv", "id,title\nx,Ex\nz,Zed\n")
    table = columns(path=path, items_path="items.csv", items_id="id", text="title")
    assert table.text == {"x": "Ex", "z": "Zed"}
    refused(lambda: columns(path=path, items_path="items.csv", items_id="id"), "set data.source.text")
    refused(lambda: columns(path=path, items_separator=";", text="item"), "items_separator=';' without", "items_path:")
    refused(
        lambda: columns(path=path, items_path="items.csv", text="title"),
        "items.csv",
        "column 'item' is missing; there is 'id', 'title'.",
        "data.source.items_id",
    )
    write("items.csv", "items,sku,title\n1,x,Ex\n")
    path = write("events.csv", "user,sku,time\na,x,1\nb,y,2\n")
    refused(lambda: columns(path=path, items_path="items.csv", text="title", item="sku"), "did you mean 'sku'?")
    refused(
        lambda: columns(path=path, items_path="no.csv", item="sku", text="title"), "no.csv", "data.source.items_path"
    )


@pytest.mark.parametrize(
    ("written", "arguments", "expected"),
    [
        ("1500", {}, 1500),
        ("1500.9", {}, 1500),
        ("1.5e3", {}, 1500),
        ("1500999", {"time_unit": "ms"}, 1500),
        ("1700000000123456789", {"time_unit": "ns"}, 1_700_000_000),
        ("2019-11-12", {}, seconds(2019, 11, 12)),
        ("2019-11-12 14:15", {}, seconds(2019, 11, 12, 14, 15)),
        ("2019-11-12T14:15:16", {}, seconds(2019, 11, 12, 14, 15, 16)),
        ("2019-11-12T14:15:16.789Z", {}, seconds(2019, 11, 12, 14, 15, 16)),
        ("2019-11-12T14:15:16+02:00", {}, seconds(2019, 11, 12, 12, 15, 16)),
        ("2019-11-12 14:15:16+02:00", {}, seconds(2019, 11, 12, 12, 15, 16)),
        ("2019-11-12 14:15", {"time_format": "%d.%m.%Y %H:%M"}, None),
        ("12.11.2019 14:15", {"time_format": "%d.%m.%Y %H:%M"}, seconds(2019, 11, 12, 14, 15)),
        ("20191112", {"time_format": "%Y%m%d"}, seconds(2019, 11, 12)),
    ],
)
def test_times(write: Write, written: str, arguments: dict[str, Any], expected: int | None) -> None:
    path = write("events.csv", f"user,item,time\na,x,{written}\nb,y, {written} \n")
    if expected is None:
        refused(lambda: columns(path=path, **arguments), "row 2", "column 'time'", "%d.%m.%Y %H:%M")
    else:
        assert columns(path=path, **arguments).frame["time"].to_list() == [expected, expected]


def test_an_impossible_time_format_is_refused(write: Write) -> None:
    path = write("events.csv", "user,item,time\na,x,12.11.2019 14h\nb,y,13.11.2019 14h\n")
    for time_format in ("%d.%m.%Y %Hh", "%d.%m.%Y %H:%M:%S %p"):
        refused(partial(columns, path=path, time_format=time_format), "time_format", time_format)
    path = write("events.csv", "user,item,time\na,x,12.11\nb,y,13.11\n")
    refused(partial(columns, path=path, time_format="%d.%m"), "time_format is '%d.%m', which has no year")


def test_dates_and_times_may_be_mixed(write: Write) -> None:
    path = write("events.csv", "user,item,time\na,x,1970-01-02\nb,y,1970-01-02 00:00:01\n")
    assert columns(path=path).frame["time"].to_list() == [86_400, 86_401]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        ("\n\n", ["is empty"]),
        ("user,item,time\n", ["is empty", "below its header"]),
        ("usr,item,time\na,x,1\n", ["column 'user' is missing", "did you mean 'usr'?", "data.source.user"]),
        ("user,item,when\na,x,1\n", ["column 'time' is missing", "'when'", "data.source.time"]),
        ("user,item,time\na,x,1\nb,y,soon\n", ["row 3", "column 'time'", "'soon'", "seconds since 1970"]),
        ("user,item,time\na,x,1\nb,y,2019-11-12\n", ["row 3", "column 'time'", "'2019-11-12'"]),
        ("user,item,time\na,x,2019-11-12\nb,y,12/11/2019\n", ["row 3", "'12/11/2019'", "time_format"]),
        ("user,item,time\na,x,1\nb,y\n", ["row 3", "column 'time'", "is empty"]),
        ("user,item,time\na,x,1\nb,y,nan\n", ["row 3", "column 'time'", "'nan'", "finite"]),
        ("user,item,time\na,x,1\nb,y,inf\n", ["row 3", "column 'time'", "'inf'", "finite"]),
        ("user,item,time\na,x,1\nb,y,-2\n", ["row 3", "column 'time'", "-2"]),
        ("user,item,time\na,x,1\n,y,2\n", ["row 3", "column 'user'", "is empty"]),
        ("user,item,time\na,x,1\nb,,2\n", ["row 3", "column 'item'", "is empty"]),
        ("user,item,time\na,x,1\n\nb,y,2\n", ["row 3", "is empty"]),
        ("user,item,time\na,x,1\nb,x,2\n", ["same item 'x'"]),
        ("user,item,time\na,x,1\nb,y,2,3\n", ["row 3: 4 fields, expected 3"]),
        (b"user,item,time\na,x,1\nb,\xe9,2\n", ["row 3: not UTF-8 text"]),
    ],
)
def test_bad_csv_files_are_refused(write: Write, content: str | bytes, parts: list[str]) -> None:
    path = write("events.csv", content)
    refused(lambda: columns(path=path, time_unit="s"), path, *parts)


def test_bad_ratings_are_refused_by_the_name_of_the_column(write: Write) -> None:
    for bad, part in (
        ("nan", "finite number"),
        ("-inf", "finite number"),
        ("good", "a number"),
        ("", "is empty"),
    ):
        path = write("events.csv", f"user,item,time,stars\na,x,1,5\nb,y,2,{bad}\n")
        refused(partial(columns, path=path, rating="stars", time_unit="s"), path, "row 3, column 'stars'", part)


def test_missing_and_unknown_files_are_refused(write: Write, tmp_path: Path) -> None:
    refused(lambda: columns(path="/nowhere/events.csv"), "/nowhere/events.csv", "set data.source.path")
    refused(lambda: columns(path=str(tmp_path)), "the folder has no files to read", "data.source.path")
    path = write("events.xlsx", b"PK\x03\x04rest")
    refused(lambda: columns(path=path), path, "expected CSV or Parquet", "export the sheet as CSV")
    path = write("events.parquet", "user,item,time\n")
    refused(lambda: columns(path=path), path, "not a Parquet file")
    path = write("events.csv", "user,item,time\na,x,1\nb,y,2\n")
    refused(lambda: columns(path=path, time_unit="min"), "data.source.time_unit is 'min'", "s, ms, us, ns")


@pytest.mark.parametrize(
    "time",
    [
        pl.Series([1, 2]),
        pl.Series([1.2, 2.9]),
        pl.Series(["1", "2"]),
        pl.Series([datetime(1970, 1, 1, 0, 0, 1), datetime(1970, 1, 1, 0, 0, 2)]),
        pl.Series([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)]),
    ],
)
def test_parquet(tmp_path: Path, time: pl.Series) -> None:
    path = str(tmp_path / "events.parquet")
    pl.DataFrame({"user": [7, 8], "item": [1.0, 2.0], "time": time}).write_parquet(path)
    frame = validate(columns(path=path, time_unit="s")).frame
    assert frame.select("user", "item", "time", "line").rows() == [("7", "1", 1, 1), ("8", "2", 2, 2)]


def test_parquet_dates_and_what_is_no_id_or_time(tmp_path: Path) -> None:
    path = str(tmp_path / "events.parquet")
    good: dict[str, list[Any]] = {
        "user": ["a", "b"],
        "item": [1, 2],
        "time": [date(1970, 1, 2), date(1970, 1, 3)],
    }
    pl.DataFrame(good).write_parquet(path)
    assert columns(path=path).frame["time"].to_list() == [86_400, 172_800]
    pl.DataFrame(good | {"time": ["1970-01-02", "1970-01-03"]}).head(0).write_parquet(path)
    refused(lambda: columns(path=path), path, "is empty")
    pl.DataFrame(good | {"item": [1.0, 2.5]}).write_parquet(path)
    refused(lambda: columns(path=path), path, "row 2, column 'item'", "2.5")
    pl.DataFrame(good | {"item": [1.0, float("nan")]}).write_parquet(path)
    refused(lambda: columns(path=path), path, "row 2, column 'item'", "is empty")
    pl.DataFrame(good | {"time": [True, False]}).write_parquet(path)
    refused(lambda: columns(path=path), path, "column 'time' has the type Boolean")
    pl.DataFrame(good | {"time": [1.0, float("nan")]}).write_parquet(path)
    refused(lambda: columns(path=path), path, "row 2, column 'time'", "finite")


def test_a_path_may_begin_with_the_home_folder(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write("events.csv", "x")
    assert files.path_to("~/events.csv", folder=False) == tmp_path / "events.csv"


def test_quotes_that_do_not_fit_are_a_clear_error(write: Write) -> None:
    path = write("events.csv", 'user,item,time\na,x,1\nb,"y"z,2,\n')
    refused(lambda: columns(path=path), path, "row 3: its quotes do not fit", "data.source.quoted=false")
