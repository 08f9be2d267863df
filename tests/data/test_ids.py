"""Which values are one id, whatever holds them: users, items, behaviours, further kinds, and the ids of titles."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from incremental.data import ids
from incremental.data.cleaning import cleaning
from incremental.data.interactions import Interactions, Side, Table, encode
from incremental.data.sources.columns import columns
from incremental.data.sources.diginetica import diginetica
from incremental.data.sources.inter import inter
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.mind import mind
from incremental.data.sources.movielens import ratings_dat
from incremental.data.task import click
from incremental.errors import UserError
from incremental.serve.model import Trained

NOON = 1_700_000_000
Documented = Callable[[str, object], None]
SNOWFLAKE = 4_873_214_862_074_860_544


def table(**given: Any) -> Table:
    """Four rows with these columns in their place or beside them."""
    rows = {"user": ["a", "b", "a", "b"], "item": ["x", "y", "z", "w"], "time": [1, 2, 3, 4]}
    frame = pl.DataFrame({**rows, **given})
    return Table(frame, "events.csv", kinds=tuple(name for name in given if name not in ("user", "item", "behaviour")))


def ids_of(log: Interactions, kind: str) -> list[str]:
    return [log.vocabulary(kind)[number] for number in log.ids(kind)]


# -- one id --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([12, 12, 3, 12], dtype=pl.UInt64),
        pl.Series([12, 12, 3, 12], dtype=pl.Int128),
        pl.Series([12.0, 12.0, 3.0, 12.0], dtype=pl.Float32),
        pl.Series([12.0, 12.0, 3.0, 12.0], dtype=pl.Float64),
        pl.Series(["12", "12.0", "3", "12.00"]),
        pl.Series(["12", " 12", "3\t", "\u00a0\u200b12.0\ufeff"]),
        pl.Series([b"12", b"12.0", b"3", b" 12 "]),
        pl.Series(["12", "12.0", "3", "12"], dtype=pl.Categorical),
        pl.Series(["12", "12", "3", "12"], dtype=pl.Enum(["12", "3"])),
        pl.Series(["12.00", "12.00", "3.00", "12.00"]).cast(pl.Decimal(10, 2)),
    ],
    ids=lambda values: str(values.dtype),
)
def test_whole_numbers_of_any_type_are_one_id_in_any_column(values: pl.Series) -> None:
    log = encode(table(user=values, item=values, behaviour=values, shop=values))
    for kind in ("user", "item", "shop"):
        assert ids_of(log, kind) == ["12", "12", "3", "12"]
    assert log.behaviours == ("12", "3")


@given(st.integers(-(2**52), 2**52), st.integers(1, 3), st.sampled_from(["", " ", "\t", "\u2003"]))
@settings(max_examples=50)
def test_every_way_to_write_a_whole_number_is_one_id(number: int, noughts: int, blank: str) -> None:
    written = [str(number), f"{blank}{number}.{'0' * noughts}{blank}", f"{number}{blank}"]
    assert {ids.normal(one) for one in written if number or one.strip() != "-0"} == {str(number)}
    for dtype in (pl.Int64, pl.Float64):
        found = ids.read(pl.Series([number], dtype=dtype))
        assert found is not None
        assert found.values.to_list() == [str(number)]


text = st.text(st.sampled_from("019.-eE+ aé\u00a0"), max_size=6)


@given(text, text)
@settings(max_examples=100)
def test_identity_is_a_function_of_one_value(one: str, other: str) -> None:
    """Equal after normalisation if and only if one id, alone or beside another; and to read an id changes nothing."""
    assert ids.normal(ids.normal(one)) == ids.normal(one)
    both = ids.read(pl.Series([one, other]))
    assert both is not None
    together = [value or "" for value in both.values]
    assert together == [ids.normal(one), ids.normal(other)]
    number = r"^-?[0-9]+\.0+$"
    if not pl.Series([one, other]).str.strip_chars().str.contains(number).any():
        assert (together[0] == together[1]) == (one.strip() == other.strip())


@pytest.mark.parametrize("apart", [["1.1", "1.10"], ["7", "007"], ["7", "007.0"], ["1.0.0", "1.0"], ["a.0", "a"]])
def test_what_is_no_whole_number_stays_as_it_is(apart: list[str]) -> None:
    log = encode(table(user=[*apart, *apart]))
    assert len(log.users) == 3


def test_blanks_and_points_are_counted(documented: Documented) -> None:
    log = encode(table(user=["a", " a", "a ", "b"], item=["7.0", "8", "7", "9.00"]))
    assert log.users == ["", "a", "b"]
    blanks, points = log.notes
    assert blanks == (
        "events.csv: column 'user': blanks around ids were left out in 2 rows, the first in row 2: ' a' is 'a'"
    )
    assert points == (
        "events.csv: column 'item': ids with a point are whole numbers in 2 rows, the first in row 1: '7.0' is '7'"
    )
    documented("blanks around ids (a note)", blanks)
    documented("ids with a point (a note)", points)


# -- what is no exact id -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "row"),
    [
        (pl.Series([7.0, float(SNOWFLAKE), 8.0, 9.0]), 2),
        (pl.Series([7.0, 2.0**53, 8.0, 9.0]), 2),
        (pl.Series([7.0, 8.0, 2.0**24, 9.0], dtype=pl.Float32), 3),
        (pl.Series([7.0, 1.5, 8.0, 9.0]), 2),
        (pl.Series([7.0, float("inf"), 8.0, 9.0]), 2),
        (pl.Series(["7", "8", "9", "4.87321486207488e+18"]), 4),
        (pl.Series(["1e+05", "8", "9", "7"]), 1),
        (pl.Series(["7", "4873214862074860544.0", "9", "7"]), 2),
        (pl.Series([b"\xfaT\x0b\x83", b"\xe6a\xd9]", b"a", b"b"]), 1),
        (pl.Series([b"a", b"\x00\x00\x00\x05", b"c", b"b"]), 2),
    ],
)
@pytest.mark.parametrize("column", ["user", "item", "behaviour", "shop"])
def test_what_may_have_lost_its_digits_is_refused_with_its_row(values: pl.Series, row: int, column: str) -> None:
    with pytest.raises(UserError, match=rf"events.csv, row {row}, column '{column}': the value is .*expected"):
        encode(table(**{column: values}))


def test_numbers_that_a_float_tells_apart_are_ids() -> None:
    assert encode(table(user=[2.0**53 - 1, 0.0, -0.0, -5.0])).users == ["", "9007199254740991", "0", "-5"]
    small = pl.Series([2.0**24 - 1, 1, 2, 3], dtype=pl.Float32)
    assert encode(table(user=small)).users == ["", "16777215", "1", "2", "3"]
    assert encode(table(user=[SNOWFLAKE, SNOWFLAKE + 1, 1, 2])).users[1:3] == [str(SNOWFLAKE), str(SNOWFLAKE + 1)]


def test_ids_that_were_floats(tmp_path: Path, documented: Documented) -> None:
    path = str(tmp_path / "events.parquet")
    rows = {"user": [float(SNOWFLAKE), float(SNOWFLAKE + 1)], "item": ["a", "b"], "time": [NOON, NOON + 1]}
    pl.DataFrame(rows).write_parquet(path)
    with pytest.raises(UserError) as error:
        encode(columns(path=path))
    documented("ids beyond the whole numbers of a float", error.value)
    (tmp_path / "events.csv").write_text(f"user,item,time\n4.87E+18,a,{NOON}\nb,c,{NOON}\n")
    with pytest.raises(UserError) as error:
        encode(columns(path=str(tmp_path / "events.csv")))
    documented("ids in scientific notation", error.value)


@pytest.mark.parametrize(
    ("values", "say"),
    [
        ([["a"], ["b"], ["c"], ["d"]], r"List\(String\).*one interaction a row"),
        (pl.Series([["a"], ["b"], ["c"], ["d"]], dtype=pl.Array(pl.String, 1)), "Array.*one interaction a row"),
        ([{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}], "Struct.*a column of its own"),
        ([date(2024, 1, day) for day in (1, 2, 3, 4)], "Date"),
        ([time(1), time(2), time(3), time(4)], "Time"),
        ([timedelta(1), timedelta(2), timedelta(3), timedelta(4)], "Duration"),
        ([True, False, True, False], "Boolean"),
    ],
)
def test_a_type_that_is_no_id_is_named(values: Any, say: str) -> None:
    for column in ("user", "item"):
        with pytest.raises(UserError, match=rf"events.csv: column '{column}' has the type {say}"):
            encode(table(**{column: values}))


def test_true_and_false_are_behaviours() -> None:
    assert encode(table(behaviour=[True, False, True, False])).behaviours == ("true", "false")


def test_columns_of_a_database_and_of_sessions(tmp_path: Path, documented: Documented) -> None:
    path = str(tmp_path / "events.parquet")
    rows = {"user": ["u1", "u2"], "item": ["a", "b"], "time": [NOON, NOON + 1]}
    as_bytes = pl.DataFrame(rows).with_columns(pl.col("user", "item").cast(pl.Binary))
    as_bytes.write_parquet(path)
    assert encode(columns(path=path)).users == ["", "u1", "u2"]
    situations: dict[str, Any] = {
        "raw bytes as ids": {"user": [b"\xfaT\x0b\x83", b"\xe6a\xd9]"]},
        "a list of items in a row": {"item": [["a", "b"], ["c"]]},
        "a list of times in a row": {"time": [[NOON], [NOON]]},
        "a struct as an id": {"user": [{"id": 1}, {"id": 2}]},
    }
    for situation, column in situations.items():
        pl.DataFrame({**rows, **column}).write_parquet(path)
        with pytest.raises(UserError) as error:
            encode(columns(path=path))
        documented(situation, error.value)
        assert path in str(error.value)


# -- what is missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["NA", "NULL", "null", "nan", "NaN", "None", "\\N", "-", "<NA>", " NA "])
@pytest.mark.parametrize("column", ["user", "item", "behaviour"])
def test_a_word_for_missing_is_refused_dropped_or_kept(word: str, column: str) -> None:
    broken = table(**{column: ["p", word, word, "q"]})
    with pytest.raises(
        UserError, match=rf"row 2, column '{column}': .* \(and 1 more row\).*missing=drop.*missing=keep"
    ):
        encode(broken)
    dropped, steps = cleaning(missing="drop")(broken)
    assert [(step.name, step.removed, step.uses_future) for step in steps] == [("missing ids", 2, False)]
    assert dropped.frame["line"].to_list() == [1, 4]
    kept, steps = cleaning(missing="keep")(broken)
    assert (kept.frame[column].to_list(), steps) == (["p", word.strip(), word.strip(), "q"], ())
    assert len(encode(kept)) == 4


def test_empty_cells_are_dropped_too_and_never_kept() -> None:
    broken = table(user=["a", None, "", "NA"])
    with pytest.raises(UserError, match="every row has the same item"):
        cleaning(missing="drop")(broken)
    with pytest.raises(UserError, match="row 2, column 'user': the value is empty"):
        cleaning(missing="keep")(broken)
    nan = table(user=[1.0, float("nan"), 2.0, 3.0])
    assert cleaning(missing="drop")(nan)[0].frame["user"].to_list() == ["1", "2", "3"]
    with pytest.raises(UserError, match=r"data\.cleaning\.missing is 'no'; expected refuse, drop or keep"):
        cleaning(missing="no")


def test_a_missing_id_of_a_further_kind_is_none_and_counted() -> None:
    log = encode(table(shop=["s", "NULL", "", "t"]))
    assert (log.ids("shop").tolist(), log.vocabulary("shop")) == ([1, 0, 0, 2], ["", "s", "t"])
    assert log.notes == ("events.csv: column 'shop': 1 cells such as 'NULL' are no id",)
    assert encode(table(shop=["s", "NULL", "", "t"])._replace(words=True)).vocabulary("shop") == ["", "s", "NULL", "t"]


def test_users_without_an_id(tmp_path: Path, documented: Documented) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"user,item,time\na,x,{NOON}\nNULL,y,{NOON}\nNULL,z,{NOON}\n")
    with pytest.raises(UserError) as error:
        encode(columns(path=str(path)))
    documented("a word for what is missing", error.value)
    path.write_text(f"user,item,time\na,x,{NOON}\n,y,{NOON}\n")
    with pytest.raises(UserError) as error:
        encode(columns(path=str(path)))
    documented("an empty id", error.value)


def test_one_user_with_more_than_half_of_the_events_is_noted(documented: Documented) -> None:
    def log(share: int) -> tuple[str, ...]:
        users = ["0" if i < share else str(i) for i in range(200)]
        frame = pl.DataFrame({"user": users, "item": [str(i % 7) for i in range(200)], "time": range(200)})
        return encode(Table(frame, "events.csv")).notes

    assert log(100) == ()
    [note] = log(101)
    assert note.startswith("events.csv: one user, '0', has 101 of 200 events (50.5%); if it stands for all")
    documented("one user with most of the events (a note)", log(150)[0])


# -- every source, and titles --------------------------------------------------------------------------------------


def as_columns(folder: Path, rows: list[tuple[str, str]]) -> Table:
    lines = [f"{user},{item},{NOON + i}" for i, (user, item) in enumerate(rows)]
    (folder / "events.csv").write_text("\n".join(["user,item,time", *lines]))
    (folder / "items.csv").write_text("item,title\n12 ,Twelve\n12.0,Other\n3,Three\n")
    return columns(path=str(folder / "events.csv"), items_path="items.csv", text="title")


def as_inter(folder: Path, rows: list[tuple[str, str]]) -> Table:
    lines = [f"{user}\t{item}\t{NOON + i}" for i, (user, item) in enumerate(rows)]
    (folder / "x.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]))
    (folder / "x.item").write_text("item_id:token\ttitle:token_seq\n12 \tTwelve\n3\tThree\n")
    return inter(path=str(folder / "x.inter"), text="title")


def as_movielens(folder: Path, rows: list[tuple[str, str]]) -> Table:
    lines = [f"{user}::{item}::5::{NOON + i}" for i, (user, item) in enumerate(rows)]
    (folder / "ratings.dat").write_text("\n".join(lines))
    (folder / "movies.dat").write_text("12 ::Twelve::\n3::Three::\n")
    return ratings_dat(path=str(folder))


def as_lastfm(folder: Path, rows: list[tuple[str, str]]) -> Table:
    lines = [f"{user}\t{item}\t1\t{i + 1}\t5\t2009" for i, (user, item) in enumerate(rows)]
    (folder / "user_taggedartists.dat").write_text("\n".join(["userID\tartistID\ttagID\tday\tmonth\tyear", *lines]))
    (folder / "artists.dat").write_text("id\tname\n12 \tTwelve\n3\tThree\n")
    return lastfm(path=str(folder))


def as_mind(folder: Path, rows: list[tuple[str, str]]) -> Table:
    lines = [f"{i}\t{user}\t11/12/2019 2:14:{i:02} PM\t\t{item}-1" for i, (user, item) in enumerate(rows)]
    (folder / "behaviors.tsv").write_text("\n".join(lines))
    (folder / "news.tsv").write_text("12 \ta\tb\tTwelve\n3\ta\tb\tThree\n")
    return mind(path=str(folder))


def as_diginetica(folder: Path, rows: list[tuple[str, str]]) -> Table:
    (folder / "period_0.txt").write_text("\n".join(f"{user} {item}" for user, item in rows))
    return diginetica(path=str(folder))


SOURCES = [as_columns, as_inter, as_movielens, as_lastfm, as_mind, as_diginetica]


@pytest.mark.parametrize("load", SOURCES)
def test_every_source_has_the_same_identity(load: Any, tmp_path: Path) -> None:
    log = encode(load(tmp_path, [("7", "12"), ("7.0", "3.0"), ("8", "12.00")]))
    prefix = "0:" if load is as_diginetica else ""
    assert ids_of(log, "user") == [f"{prefix}{user}" for user in ("7", "7", "8")]
    assert ids_of(log, "item") == ["12", "3", "12"]
    if load is not as_diginetica:
        assert log.titles == ["", "Twelve", "Three"]


@pytest.mark.parametrize("load", SOURCES)
def test_no_source_takes_a_word_for_a_user(load: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row \d, column '[a-zA-Z_]+': the value is 'NULL'"):
        encode(load(tmp_path, [("7", "12"), ("NULL", "3"), ("8", "12")]))


def test_titles_of_numbers_meet_those_of_text(tmp_path: Path) -> None:
    pl.DataFrame({"item": [1.0, 2.0, None], "title": ["one", "two", "none"]}).write_parquet(tmp_path / "items.parquet")
    (tmp_path / "events.csv").write_text(f"user,item,time\na,1,{NOON}\nb,2.0,{NOON}\n")
    table = columns(path=str(tmp_path / "events.csv"), items_path="items.parquet", text="title")
    assert encode(table).titles == ["", "one", "two"]
    pl.DataFrame({"item": [[1], [2]], "title": ["one", "two"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(UserError, match=r"items.parquet: column 'item' has the type List\(Int64\)"):
        columns(path=str(tmp_path / "events.csv"), items_path="items.parquet", text="title")


def test_the_first_of_two_titles_stays() -> None:
    text = {"x ": "Ex", "x": "Other", "y": "Why"}
    assert encode(table()._replace(text=text)).titles == ["", "Ex", "Why", "", ""]


def test_names_in_the_settings_are_read_as_those_of_the_file() -> None:
    kept, _ = cleaning(behaviours=[1, " 2.0"])(table(behaviour=[1.0, 2.0, 3.0, 1.0]))  # type: ignore[list-item]
    assert kept.frame["behaviour"].to_list() == ["1", "2", "1"]
    log = encode(table(behaviour=[1.0, 2.0, 3.0, 1.0]))
    log = replace(log, side={"text": Side("item", np.ones((5, 2), np.float32))})
    asked, _ = click(clicked=[1, "3.0"])(log, 2)  # type: ignore[list-item]
    assert asked.further["click"].ids.tolist() == [2, 1, 2, 2]


def test_a_user_is_asked_for_as_the_file_may_write_it() -> None:
    users: Any = SimpleNamespace(users={"12": 3, "-x": 4})
    assert [Trained.number(users, one) for one in ("12", " 12.0", "-x")] == [3, 3, 4]
    with pytest.raises(UserError, match=r"user '12\.5' does not occur"):
        Trained.number(users, "12.5")
    lines: Any = SimpleNamespace(users={"a\nb": 1, "c": 2})
    with pytest.raises(UserError, match=r"users are, e\.g\., 'a\\nb', c$"):  # in one line
        Trained.number(lines, "?")


ROLES = ["user", "item", "time", "rating", "behaviour", "text", "shop"]


@given(dataframes(cols=3, min_size=2, max_size=4, allow_infinity=True), st.permutations(ROLES), st.data())
@settings(max_examples=60)
def test_any_frame_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, drawn: pl.DataFrame, roles: list[str], data: st.DataObject
) -> None:
    """Columns of every type that polars has, in any role: a stream of as many events as rows, or a UserError."""
    number = pl.Series(range(drawn.height), dtype=pl.Int64)
    frame = pl.DataFrame({"rating": number, **dict.fromkeys(("behaviour", "text", "shop"), ["b"] * drawn.height)})
    frame = frame.with_columns(user=number % 2, item=number, time=NOON + number)
    frame = frame.with_columns(drawn[name].alias(role) for name, role in zip(drawn.columns, roles, strict=False))
    path = tmp_path_factory.mktemp("any") / "events.parquet"
    try:
        frame.write_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):  # a type that Parquet has not
        return
    unit = data.draw(st.sampled_from([None, "s", "ns", "period", "excel"]))
    names: dict[str, Any] = {role: role for role in ("rating", "behaviour", "text")}
    try:
        log = encode(columns(path=str(path), **names, kinds={"shop": "shop"}, time_unit=unit))
    except UserError:
        return
    assert len(log) == drawn.height
    assert (np.diff(log.moment) >= 0).all()
