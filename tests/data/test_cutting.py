from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from incremental.data import cutting
from incremental.data.interactions import Interactions, encode
from incremental.data.sources.diginetica import diginetica
from incremental.errors import UserError

HOUR, DAY = 3_600, 86_400
MONDAY = 4 * DAY  # 1970-01-05


def stream(times: list[int], periods: list[int] | None = None) -> Interactions:
    """Events of one user on two items; a cut looks at nothing but their times and periods."""
    n = len(times)
    user, item = np.ones(n, np.int32), np.arange(n, dtype=np.int32) % 2 + 1
    period = None if periods is None else np.array(periods, np.int32)
    none = np.zeros(n, np.int32)
    names = (["", "u"], ["", "0", "1"])
    return Interactions(user, item, np.array(times, np.int64), none, None, None, period, *names, None, (), ())


def lawful(increment: np.ndarray, n: int) -> None:
    """What every cut promises: one number for each event, from 0 up by steps of at most 1, at least one
    increment.
    """
    assert increment.dtype == np.int32
    assert increment.shape == (n,)
    assert increment[0] == 0
    assert increment[-1] >= 1
    assert set(np.diff(increment)) <= {0, 1}


@given(st.integers(2, 300), st.integers(1, 12), st.integers(10, 990))
@example(100, 5, 290)  # 0.29 * 100 is less than 29
def test_equal_counts(n: int, increments: int, thousandths: int) -> None:
    cut = cutting.equal_counts(increments=increments, base=thousandths / 1000)
    start = max(thousandths * n // 1000, 1)
    if n - start < increments:
        with pytest.raises(UserError, match=f"data.cut.increments is {increments}, but only {n - start} of"):
            cut(stream(list(range(n))))
        return
    increment, notes = cut(stream(list(range(n))))
    lawful(increment, n)
    counts = np.bincount(increment)
    assert counts[0] == start
    assert len(counts) == increments + 1
    assert counts[1:].max() - counts[1:].min() <= 1
    assert notes == ()


@given(st.lists(st.integers(0, 90 * DAY), min_size=2, max_size=60), st.sampled_from(["1d", "1w", "6h", "1mo"]))
def test_calendar_never_splits_an_interval(times: list[int], interval: str) -> None:
    times.sort()
    events = stream(times)
    starts = [str(pl.from_epoch(pl.Series([t]), "s").dt.truncate(interval)[0]) for t in times]
    share = 0.3
    if starts[int(np.ceil(share * len(times))) - 1] == starts[-1]:
        with pytest.raises(UserError, match="no increment is left after cutting"):
            cutting.calendar(interval=interval, base=share)(events)
        return
    increment, _ = cutting.calendar(interval=interval, base=share)(events)
    lawful(increment, len(times))
    assert (increment == 0).sum() >= share * len(times)
    for a in range(len(times) - 1):
        if starts[a] == starts[a + 1]:
            assert increment[a] == increment[a + 1]
        elif increment[a + 1] > 0:
            assert increment[a] < increment[a + 1]


def test_calendar_weeks_begin_on_monday_and_empty_ones_are_merged_and_noted() -> None:
    times = [0, MONDAY - 1, MONDAY, MONDAY + 7 * DAY - 1, MONDAY + 28 * DAY, MONDAY + 29 * DAY]
    increment, notes = cutting.calendar(interval="1w", base=0.2)(stream(times))
    np.testing.assert_array_equal(increment, [0, 0, 1, 1, 2, 2])
    assert notes == ("merged 3 intervals of 1w without events, the first from 1970-01-12T00:00 UTC",)


def test_calendar_base_ends_with_the_interval_that_reaches_the_share() -> None:
    times = [0, 1, HOUR, HOUR + 1, HOUR + 2, 2 * HOUR, 3 * HOUR, 3 * HOUR + 1]
    cut = cutting.calendar(interval="1h", base=0.5)
    np.testing.assert_array_equal(cut(stream(times))[0], [0, 0, 0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(
        cutting.calendar(interval="1h", base=0.25)(stream(times))[0], [0, 0, 1, 1, 1, 2, 3, 3]
    )


def test_calendar_base_takes_a_share_as_it_is_written() -> None:
    """0.07 * 100 is more than 7."""
    increment, _ = cutting.calendar(interval="1h", base=0.07)(stream([hour * HOUR for hour in range(100)]))
    assert (increment == 0).sum() == 7


def test_empty_intervals_of_the_base_part_are_of_no_interest() -> None:
    _, notes = cutting.calendar(interval="1h", base=0.5)(stream([0, 9 * HOUR, 10 * HOUR]))
    assert notes == ()


def test_what_is_at_the_quantile_is_of_the_base_part() -> None:
    increment, _ = cutting.at_quantile(quantile=0.5)(stream([1, 2, 3, 4, 5]))
    assert increment.tolist() == [0, 0, 0, 1, 1]


def test_given_periods() -> None:
    periods = [0, 0, 1, 2, 2, 3]
    events = stream([0, 0, 1, 2, 2, 3], periods)
    np.testing.assert_array_equal(cutting.given_periods()(events)[0], periods)
    np.testing.assert_array_equal(cutting.given_periods(base=2)(events)[0], [0, 0, 0, 1, 1, 2])


def test_missing_periods_are_merged_and_noted() -> None:
    increment, notes = cutting.given_periods()(stream([0, 2, 5, 5], [0, 2, 5, 5]))
    np.testing.assert_array_equal(increment, [0, 1, 2, 2])
    assert notes == ("merged 3 periods without events: 1, 3, 4",)
    _, notes = cutting.given_periods(base=2)(stream([0, 2, 5, 5], [0, 2, 5, 5]))
    assert notes == ("merged 2 periods without events: 3, 4",)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (cutting.given_periods(base=4), "no increment is left after cutting: 4 periods"),
        (cutting.calendar(interval="1d"), "no increment is left after cutting: the base part"),
    ],
)
def test_no_increment_left(cut: cutting.Cut, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cut(stream([1, 2, 3, 4], [0, 1, 2, 3]))


def test_given_periods_needs_periods_that_follow_the_time() -> None:
    with pytest.raises(UserError, match=r"no periods; name their column in data\.source\.period .*data/cut=counts"):
        cutting.given_periods()(stream([1, 2, 3]))
    with pytest.raises(UserError, match=r"event 3 in time order is of period 0, after one of period 1"):
        cutting.given_periods()(stream([1, 2, 3], [0, 1, 0]))
    rows = replace(stream([1, 2, 3], [0, 1, 0]), line=np.array([9, 2, 7]))
    with pytest.raises(UserError, match=r"event 3 in time order \(row 7\) is of period 0, .*data\.source\.period"):
        cutting.given_periods()(rows)


def test_impossible_arguments() -> None:
    for base in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match=r"base=.*: expected a number > 0 and < 1"):
            cutting.equal_counts(base=base)
        with pytest.raises(UserError, match=r"base=.*: expected a number > 0 and < 1"):
            cutting.calendar(base=base)
    with pytest.raises(UserError, match="increments=0: expected a whole number >= 1"):
        cutting.equal_counts(increments=0)
    with pytest.raises(UserError, match="base=0: expected a whole number >= 1"):
        cutting.given_periods(base=0)
    for interval in ("week", "0d", "1x", "d", "1d1"):
        with pytest.raises(UserError, match=r"data\.cut\.interval"):
            cutting.calendar(interval=interval)


def test_the_periods_of_diginetica(real_data: Path) -> None:
    events = encode(diginetica(path=str(real_data / "diginetica"), periods=3))
    increment, notes = cutting.given_periods()(events)
    np.testing.assert_array_equal(np.bincount(increment), [70_739, 37_586, 31_089])
    assert notes == ()


CUTS = {
    "fixed_counts": lambda n: cutting.fixed_counts(base=n // 3, each=3),
    "fixed_counts from a date": lambda _: cutting.fixed_counts(base="1970-01-07T06:00:00", each=3),
    "calendar": lambda _: cutting.calendar(interval="1d", base="1970-01-07T06:00:00"),
}


@pytest.mark.parametrize("name", CUTS)
@given(st.lists(st.integers(0, 9 * DAY), min_size=12, max_size=60), st.integers(0, 20))
def test_a_cut_by_counts_or_from_a_date_does_not_move(name: str, times: list[int], more: int) -> None:
    """What is added at the end changes no number of the events before."""
    times = [0, *sorted(times), 9 * DAY + 1]
    cut = CUTS[name](len(times))
    before, _ = cut(stream(times))
    lawful(before, len(times))
    after, _ = cut(stream([*times, *(times[-1] + HOUR * i for i in range(more))]))
    np.testing.assert_array_equal(after[: len(times)], before)


def test_fixed_counts() -> None:
    increment, _ = cutting.fixed_counts(base=3, each=2)(stream(list(range(8))))
    assert increment.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    with pytest.raises(UserError, match="the stream has 3 events: none is left after the base part"):
        cutting.fixed_counts(base=3, each=2)(stream([1, 2, 3]))


def test_fixed_counts_from_a_date_begin_where_a_calendar_does(documented: Callable[[str, object], None]) -> None:
    days = stream([MONDAY + day * DAY // 2 for day in range(14)])
    increment, _ = cutting.fixed_counts(base="1970-01-08", each=3)(days)
    assert increment.tolist() == [0] * 6 + [1, 1, 1, 2, 2, 2, 3, 3]
    by_day, _ = cutting.calendar(interval="1d", base="1970-01-08")(days)
    assert ((increment == 0) == (by_day == 0)).all()
    with pytest.raises(UserError, match=r"data.cut.base is 1970-01-05, and no event comes before") as error:
        cutting.fixed_counts(base="1970-01-05", each=3)(days)
    documented("increments of so many events from a date before the first event", error.value)
    with pytest.raises(UserError, match=r"data.cut.base is 1999-01-01, and the stream has 14 events: none is left"):
        cutting.fixed_counts(base="1999-01-01", each=3)(days)


def test_a_calendar_from_a_date() -> None:
    """The base part is the intervals that begin before it: a date within a week takes that week too."""
    days = stream([MONDAY + day * DAY for day in range(21)])
    for date, base in (
        ("1970-01-12", 7),
        ("1970-01-13", 14),
        ("1970-01-12T00:00:01", 14),
        ("1970-01-12T02:00+03:00", 7),
    ):
        increment, _ = cutting.calendar(interval="1w", base=date)(days)
        assert (increment == 0).sum() == base
    with pytest.raises(UserError, match=r"data.cut.base is 1970-01-05, and no interval begins before"):
        cutting.calendar(base="1970-01-05")(days)
    with pytest.raises(UserError, match="no increment is left after cutting"):
        cutting.calendar(base="1999-01-01")(days)
    with pytest.raises(UserError, match=r"data.cut.base is 'soon'; expected a share .* or a date such as"):
        cutting.calendar(base="soon")
