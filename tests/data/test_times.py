"""When something was: units by their values, what no log has, the order to the nanosecond."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.data import times
from incremental.data.cleaning import cleaning
from incremental.data.cutting import calendar, equal_counts, given_periods
from incremental.data.interactions import Table, encode
from incremental.data.sources.columns import columns
from incremental.data.sources.inter import inter
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.mind import mind
from incremental.data.sources.movielens import ratings_dat
from incremental.data.stream import make_stream
from incremental.errors import UserError

Documented = Callable[[str, object], None]
NOON = 1_700_000_000
THAT = datetime(2019, 10, 1, 2, 3, 4, tzinfo=UTC)
SECONDS = int(THAT.timestamp())


def file(folder: Path, values: list[Any], name: str = "events.csv", header: str = "user,item,time") -> str:
    """A file with a row for each time; users and items are distinct."""
    split = "," if "," in header else "\t"
    rows = [split.join((f"u{i}", f"i{i}", str(value))) for i, value in enumerate(values)]
    (folder / name).write_text("\n".join([header, *rows]))
    return str(folder / name)


def parquet(folder: Path, values: pl.Series) -> str:
    number = pl.Series(range(len(values)), dtype=pl.Int64)
    pl.DataFrame({"user": number, "item": number, "time": values}).write_parquet(folder / "events.parquet")
    return str(folder / "events.parquet")


def refusal(table: Callable[[], Table]) -> str:
    with pytest.raises(UserError) as error:
        encode(table())
    return str(error.value)


# -- units and formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("kind", ["csv", "inter", "integers", "floats"])
def test_the_unit_is_found_by_the_values_and_said(tmp_path: Path, unit: str, factor: int, kind: str) -> None:
    values = [(NOON + i) * factor for i in range(3)]
    if kind == "csv":
        table = columns(path=file(tmp_path, values))
    elif kind == "inter":
        header = "user_id:token\titem_id:token\ttimestamp:float"
        table = inter(path=file(tmp_path, [f"{value}.0" for value in values], "x.inter", header))
    else:
        numbers = pl.Series(values, dtype=pl.Int64 if kind == "integers" else pl.Float64)
        table = columns(path=parquet(tmp_path, numbers))
    log = encode(table)
    np.testing.assert_array_equal(log.time, [NOON, NOON + 1, NOON + 2])
    said = [note for note in log.notes if "since 1970, by its values" in note]
    assert len(said) == (unit != "s")
    assert all(f"time_unit={unit})" in note and times.UNITS[unit][0] in note for note in said)


@pytest.mark.parametrize(
    "written",
    [
        "2019-10-01 02:03:04 UTC",
        "2019-10-01 02:03:04 GMT",
        "2019-10-01 02:03:04Z",
        "2019-10-01T02:03:04Z",
        "2019-10-01 02:03:04+00",
        "2019-10-01 04:03:04+02",
        "2019-10-01 07:33:04+0530",
        "2019-10-01T07:33:04.000+05:30",
        "2019-10-01 02:03:04 +0000 UTC",
        "20191001T020304Z",
        "2019-10-01 02:03:04.000000 UTC",
        "1569895384",
        "1569895384.0",
        "1.569895384e9",
        "1569895384000",
    ],
)
def test_what_databases_and_logs_write_is_read(tmp_path: Path, written: str) -> None:
    table = columns(path=file(tmp_path, [written, written]))
    assert table.frame["time"].to_list() == [SECONDS, SECONDS]


def test_names_of_time_zones(tmp_path: Path, documented: Documented) -> None:
    """UTC is read; of another zone nobody says which offset it has."""
    path = file(tmp_path, ["2019-10-01 02:03:04 UTC", "2019-10-01 02:03:04 MSK"])
    message = refusal(lambda: columns(path=path))
    assert "row 3, column 'time': the value is '2019-10-01 02:03:04 MSK'" in message
    documented("a time zone's name", message)
    form = "%Y-%m-%d %H:%M:%S %Z"
    message = refusal(lambda: columns(path=path, time_format=form))
    assert "row 3" in message
    assert "%Z is UTC, GMT, Z" in message
    documented("a time zone's name, read by %Z", message)
    path = file(tmp_path, ["2019-10-01 02:03:04 UTC", "2019-10-01 02:03:04 GMT"])
    assert columns(path=path, time_format=form).frame["time"].to_list() == [SECONDS, SECONDS]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([20191001, 20191002]),
        pl.Series([20191001, 20191002], dtype=pl.UInt32),
        pl.Series([20191001.0, 20191002.0]),
        pl.Series(["20191001", "20191002"]).cast(pl.Decimal(10, 2)),
        pl.Series(["20191001", " 20191002"]),
        pl.Series([b"20191001", b"20191002"]),
        pl.Series(["20191001", "20191002"], dtype=pl.Categorical),
    ],
    ids=lambda values: str(values.dtype),
)
def test_a_format_reads_numbers_too(tmp_path: Path, values: pl.Series) -> None:
    table = columns(path=parquet(tmp_path, values), time_format="%Y%m%d")
    midnight = SECONDS - SECONDS % 86_400
    assert table.frame["time"].to_list() == [midnight, midnight + 86_400]


def test_a_format_for_times_is_refused(tmp_path: Path, documented: Documented) -> None:
    path = parquet(tmp_path, pl.Series([date(2019, 10, 1)] * 2))
    assert "set it to null" in refusal(partial(columns, path=path, time_format="%Y-%m-%d"))
    path = parquet(tmp_path, pl.Series([THAT] * 2))
    message = refusal(partial(columns, path=path, time_format="%Y-%m-%d"))
    documented("a time format for a column of times", message)
    message = refusal(
        partial(columns, path=parquet(tmp_path, pl.Series([20191001.5, 20191002.0])), time_format="%Y%m%d")
    )
    assert "row 1, column 'time': the value is 20191001.5; expected a time of the form %Y%m%d" in message


def test_types_that_are_no_times(tmp_path: Path) -> None:
    for values in (pl.Series([[1], [2]]), pl.Series([timedelta(1), timedelta(2)]), pl.Series([True, False])):
        assert "column 'time' has the type" in refusal(partial(columns, path=parquet(tmp_path, values)))


def test_days_of_a_spreadsheet(tmp_path: Path) -> None:
    table = columns(path=file(tmp_path, ["44659.5", "44660.00001", "25569"]), time_unit="excel")
    noon = int(datetime(2022, 4, 8, 12, tzinfo=UTC).timestamp())
    assert table.frame["time"].to_list() == [noon, noon + 43_200, 0]
    assert table.frame["fraction"].to_list() == [0, 864_000_000, 0]


def test_numbers_of_periods_can_be_cut_by_them(tmp_path: Path, documented: Documented) -> None:
    path = file(tmp_path, [1, 0, 2, 2, 4])
    stream = make_stream(source=columns(path=path, time_unit="period"), cut=given_periods())
    assert stream.increment.tolist() == [0, 1, 2, 2, 3]
    with pytest.raises(UserError, match="the times are numbers of periods; use data/cut=periods") as error:
        make_stream(source=columns(path=path, time_unit="period"), cut=calendar())
    documented("a calendar for numbers of periods", error.value)
    message = refusal(lambda: columns(path=file(tmp_path, [1, 2.5]), time_unit="period"))
    assert "row 3, column 'time': the value is '2.5'; expected whole numbers of periods" in message
    message = refusal(lambda: columns(path=file(tmp_path, [1, -2]), time_unit="period"))
    assert "row 3, column 'time': the value is '-2'; expected whole numbers of periods, from 0; correct" in message
    for values in (pl.Series([THAT] * 2), pl.Series([date(2019, 10, 1)] * 2)):
        message = refusal(partial(columns, path=parquet(tmp_path, values), time_unit="period"))
        assert "data.source.time_unit=period, but the column 'time' has the type Date" in message


@pytest.mark.parametrize("values", [[NOON, "nan"], [NOON, ""], [NOON, "2024-01-01"]])
def test_a_cell_that_is_no_time_is_refused_with_what_to_do(tmp_path: Path, values: list[Any]) -> None:
    message = refusal(partial(columns, path=file(tmp_path, values)))
    assert "events.csv, row 3, column 'time': " in message
    assert message.endswith("expected a finite number of seconds since 1970; correct the cell, or delete the row")


def test_times_of_32_bits_are_said_to_be_coarse(tmp_path: Path) -> None:
    numbers = pl.Series([NOON, NOON + 1], dtype=pl.Float64)
    assert not columns(path=parquet(tmp_path, numbers)).notes
    (note,) = columns(path=parquet(tmp_path, numbers.cast(pl.Float32))).notes
    assert "column 'time' has the type Float32, which cannot tell the seconds of two minutes apart" in note


# -- times that no log has -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("situation", "values", "say"),
    [
        ("days of eight digits as times", ["20220408", "20220409"], "the date 2022-04-08.*time_format=%Y%m%d"),
        ("times of fourteen digits", ["20220408123000"], "the date 2022-04-08.*time_format=%Y%m%d%H%M%S"),
        ("days of a spreadsheet as times", ["44659.4", "44660.5"], "days of a spreadsheet.*time_unit=excel"),
        ("milliseconds among seconds", [NOON, NOON, NOON * 1000], "row 4, .*milliseconds .ms. among seconds"),
        ("seconds among milliseconds", [NOON * 1000, NOON * 1000, NOON], "row 4, .*1990 to tomorrow; it is 1970-01-20"),
        (
            "small numbers as times",
            ["1", "2", "3"],
            r"row 2, .*\(and 2 more rows\).*1970-01-01 00:00 UTC; set .*period",
        ),
        ("a time before 1970", [NOON, -5], "row 3, .*1969-12-31 23:59"),
        ("a year of two digits", ["24-01-31", "24-02-01"], "row 2, .*two digits.*time_format, such as %y-%m-%d"),
        ("a date before 1990", ["2024-01-01", "1970-01-01"], "row 3, .*it is 1970-01-01 00:00 UTC.*cleaning.after"),
        ("a time after tomorrow", [NOON, 7_000_000_000], "row 3, .*2191-10-"),
    ],
)
def test_a_time_that_no_log_has_is_a_question(
    tmp_path: Path, situation: str, values: list[Any], say: str, documented: Documented
) -> None:
    path = file(tmp_path, values)
    with pytest.raises(UserError, match=say) as error:
        encode(columns(path=path))
    documented(situation, error.value)
    assert "expected a time from 1990 to tomorrow" in str(error.value)


def test_tomorrow_is_still_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: float(NOON))
    path = file(tmp_path, [times.FIRST, NOON + times.DAY])
    assert len(encode(columns(path=path))) == 2
    for out in (times.FIRST - 1, NOON + times.DAY + 1):
        assert "row 3" in refusal(partial(columns, path=file(tmp_path, [NOON, out])))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["1", "2"], {"time_unit": "s"}),
        (["1", "2"], {"time_unit": "ms"}),
        (["1", "2"], {"time_unit": "period"}),
        (["1956-04-01", "1956-04-02"], {"time_unit": "s"}),
        (["01.02.1971", "02.02.1971"], {"time_format": "%d.%m.%Y"}),
    ],
)
def test_who_says_what_is_counted_may_have_any_time(tmp_path: Path, values: list[str], said: dict[str, Any]) -> None:
    table = columns(path=file(tmp_path, values), **said)
    assert table.remedy is None
    if not values[0].startswith("1956"):
        assert len(encode(table)) == 2


def test_strange_times_may_be_cleaned_away(tmp_path: Path) -> None:
    table = columns(path=file(tmp_path, [NOON, 0, NOON * 1000, NOON + 1]))
    left, steps = cleaning(after="1990-01-01", before="2100-01-01")(table)
    assert left.frame["line"].to_list() == [2, 5]
    assert [step.removed for step in steps] == [1, 1]


def test_it_is_a_question_in_every_source(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::a::3::978300760\n2::b::3::7\n")
    tags = ["userID\tartistID\ttagID\tday\tmonth\tyear", "1\t2\t3\t1\t4\t2009", "1\t3\t3\t1\t4\t1979"]
    (tmp_path / "user_taggedartists.dat").write_text("\n".join(tags))
    clicks = ["1\tU1\t11/12/2019 2:14:46 PM\t\tN1-1", "2\tU2\t11/12/1970 2:14:46 PM\t\tN2-1"]
    (tmp_path / "behaviors.tsv").write_text("\n".join(clicks))
    header = "user_id:token\titem_id:token\ttimestamp:float"
    path = file(tmp_path, [NOON, 7.0], "x.inter", header)
    for load, row in ((ratings_dat, 2), (lastfm, 3), (mind, 2)):
        message = refusal(partial(load, path=str(tmp_path)))
        assert f"row {row}, column" in message
        assert "data.cleaning.after" in message
        assert "time_unit" not in message  # their layout says it
    assert "row 3, column 'timestamp': the value is 7;" in refusal(lambda: inter(path=path))
    assert len(encode(inter(path=path, time_unit="s"))) == 2


# -- order ---------------------------------------------------------------------------------------------------------

BURST = ["a", "b", "c", "d", "e"]  # in the order in which they happened, in two seconds
AFTER = [0, 150_000_000, 150_000_001, 999_999_999, 1_000_000_000]  # nanoseconds; Unix seconds in a float have fewer


def burst(folder: Path, kind: str, rows: list[int]) -> Table:
    """One user's events, in the order of `rows` in the file."""
    moments = [NOON * 10**9 + AFTER[i] for i in rows]
    coarse = [NOON * 1000 + 150 * i for i in rows]
    series = {
        "datetime": pl.Series(moments).cast(pl.Datetime("ns", "UTC")),
        "milliseconds": pl.Series(coarse).cast(pl.Datetime("ms")),
        "integers": pl.Series(moments),
        "ms": pl.Series(coarse),
        "float seconds": pl.Series([value / 1000 for value in coarse]),
        "decimal": pl.Series([f"{NOON + AFTER[i] // 10**9}.{AFTER[i] % 10**9:09}" for i in rows]).cast(
            pl.Decimal(20, 9)
        ),
        "text": pl.Series([f"{NOON + AFTER[i] // 10**9}.{AFTER[i] % 10**9:09}" for i in rows]),
        "iso": pl.Series(moments).cast(pl.Datetime("ns")).dt.strftime("%Y-%m-%dT%H:%M:%S.%9fZ"),
        "format": pl.Series(moments).cast(pl.Datetime("ns")).dt.strftime("%d.%m.%Y %H:%M:%S.%9f"),
    }[kind]
    frame = pl.DataFrame({"user": ["u"] * len(rows), "item": [BURST[i] for i in rows], "time": series})
    frame.write_parquet(folder / "burst.parquet")
    return columns(path=str(folder / "burst.parquet"), time_format="%d.%m.%Y %H:%M:%S%.f" if kind == "format" else None)


@pytest.mark.parametrize(
    "kind",
    ["datetime", "milliseconds", "integers", "ms", "float seconds", "decimal", "text", "iso", "format"],
)
def test_events_of_one_second_are_in_the_order_in_which_they_happened(tmp_path: Path, kind: str) -> None:
    """Whatever the order of the file; and what was before within the second is history."""
    for rows in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        stream = make_stream(
            source=burst(tmp_path, kind, rows), cut=equal_counts(increments=1), history=4, validation=0.0
        )
        log = stream.interactions
        assert [log.items[i] for i in log.item] == BURST
        assert log.time.tolist()[0] == NOON
        assert log.moment.tolist() == [0, 1, 2, 3, 4]
        examples = stream.training_examples([0, 1], validation=None, inputs=["history"])
        past = stream.features["history"].of(log, examples)
        assert ["".join(log.items[i] for i in row) for row in past] == ["a", "ab", "abc", "abcd"]
        assert not any(note.startswith("ties") for note in stream.all_notes)
        assert any("out of order" in note for note in stream.all_notes) == (rows != sorted(rows))


def test_ties_are_of_the_exact_time() -> None:
    """Four in one second, two of them at one time: those are no history of one another."""
    frame = pl.DataFrame({"user": ["u"] * 4, "item": list("dbac"), "time": [NOON] * 4, "fraction": [9, 5, 1, 5]})
    stream = make_stream(source=Table(frame, "f"), cut=equal_counts(increments=1), history=3, validation=0.0)
    log = stream.interactions
    assert [log.items[i] for i in log.item] == ["a", "b", "c", "d"]
    assert log.moment.tolist() == [0, 1, 1, 2]
    examples = stream.training_examples([0, 1], validation=None, inputs=["history"])
    past = stream.features["history"].of(log, examples)
    assert ["".join(log.items[i] for i in row) for row in past] == ["a", "a", "abc"]
    assert [note for note in stream.all_notes if "have the time of the last" in note]
    for ties, order in (("item", "abcd"), ("file", "abcd")):
        assert "".join(np.array(log.items)[encode(Table(frame, "f"), ties).item]) == order  # type: ignore[arg-type]


def test_what_was_had_within_the_second_was_had_before() -> None:
    frame = pl.DataFrame({"user": ["u"] * 4, "item": list("abab"), "time": [NOON] * 4, "fraction": [1, 2, 3, 2]})
    stream = make_stream(
        source=Table(frame, "f"), cut=equal_counts(increments=1), history=3, validation=0.0, exclude_seen=True
    )
    known = {"item": np.ones(9, bool)}
    rows = [stream.test_examples(t, heldout=False, trained_until=t, known=known) for t in (0, 1)]
    assert [event for part in rows for event in part.event.tolist()] == [0, 1, 2]  # and a again, a nanosecond later


row = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3))


@given(st.lists(row, min_size=2, max_size=12).filter(lambda rows: len({r[2] for r in rows}) > 1), st.data())
@settings(max_examples=40)
def test_the_order_is_total_by_time_then_ties(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """By seconds, nanoseconds, and the rule; another order in the file changes what the rule leaves to it, no more."""
    schema = ["time", "fraction", "item"]
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(user=pl.lit("u"))
    other = frame[data.draw(st.permutations(range(len(rows))))]
    one, two = (encode(Table(f, "f"), "item") for f in (frame, other))
    told = [
        [(t, f, log.items[i]) for t, f, i in zip(log.time, log.fraction, log.item, strict=True)] for log in (one, two)
    ]
    assert told[0] == told[1] == sorted((t, f, str(i)) for t, f, i in rows)
    file_order = encode(Table(frame, "f"), "file")
    found = [
        (t, f, file_order.items[i])
        for t, f, i in zip(file_order.time, file_order.fraction, file_order.item, strict=True)
    ]
    assert found == [(t, f, str(i)) for t, f, i in sorted(rows, key=lambda r: r[:2])]
    assert (np.diff(one.moment) >= 0).all()
    same = (np.diff(one.time) == 0) & (np.diff(one.fraction) == 0)
    np.testing.assert_array_equal(np.diff(one.moment) == 0, same)


def test_a_format_and_a_unit_are_two_ways(tmp_path: Path) -> None:
    """With `period` the seconds that a format reads would be the numbers of periods."""
    with pytest.raises(UserError, match=r"_format is '%Y%m%d' and data.source.time_unit is 'period': .*; leave"):
        columns(path=file(tmp_path, [20240101, 20240102]), time_format="%Y%m%d", time_unit="period")
