import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incremental.data.cleaning import CleaningStep, cleaning
from incremental.data.interactions import Table
from incremental.data.sources.lastfm import lastfm
from incremental.data.sources.movielens import ratings_dat
from incremental.errors import UserError

DAY = 86_400


def table(rows: str, **columns: list[Any]) -> Table:
    """Rows such as "ax by": user a took item x, then b took y, a second apart."""
    pairs = rows.split()
    frame = {"user": [p[0] for p in pairs], "item": [p[1] for p in pairs], "time": list(range(len(pairs)))}
    return Table(pl.DataFrame(frame | columns), "events.csv")


def rows_of(cleaned: Table) -> str:
    return " ".join(u + i for u, i in cleaned.frame.select("user", "item").rows())


def test_nothing_is_cleaned_by_default() -> None:
    raw = table("ax ax by")
    cleaned, steps = cleaning()(raw)
    assert rows_of(cleaned) == "ax ax by"
    assert steps == ()


@pytest.mark.parametrize(
    ("duplicates", "times", "uses_future"), [("first", [0, 1, 2], False), ("last", [1, 2, 3], True)]
)
def test_duplicates(duplicates: str, times: list[int], uses_future: bool) -> None:
    cleaned, steps = cleaning(duplicates=duplicates)(table("ax by ay ax"))
    assert cleaned.frame["time"].to_list() == times
    assert steps == (CleaningStep(f"duplicates: {duplicates}", 1, 3, uses_future),)


def test_the_first_duplicate_is_first_in_time_not_in_the_file() -> None:
    cleaned, _ = cleaning(duplicates="first")(table("ax ax by", time=[9, 4, 5]))
    assert cleaned.frame["time"].to_list() == [4, 5]


def test_rating_threshold_keeps_the_threshold() -> None:
    cleaned, steps = cleaning(minimum_rating=3)(table("ax by az", rating=[2.5, 3.0, 4.0]))
    assert rows_of(cleaned) == "by az"
    assert steps == (CleaningStep("rating at least 3", 1, 2, False),)


def test_a_rating_that_is_no_number_is_not_cleaned_away() -> None:
    with pytest.raises(UserError, match="row 2, column 'rating'"):
        cleaning(minimum_rating=3)(table("ax by", rating=[4.0, float("nan")]))


def test_dates_bound_the_stream_from_after_to_before() -> None:
    days = table("ax by az bw", time=[-DAY, DAY, 2 * DAY, 3 * DAY])
    cleaned, steps = cleaning(after="1970-01-02", before="1970-01-04")(days)
    assert rows_of(cleaned) == "by az"
    assert steps == (
        CleaningStep("after 1970-01-02", 1, 3, False),
        CleaningStep("before 1970-01-04", 1, 2, False),
    )


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system cannot change its time zone")
def test_dates_are_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        clean = cleaning(after="1970-01-02")
    time.tzset()
    assert rows_of(clean(table("ax by az", time=[DAY - 1, DAY, DAY + 1]))[0]) == "by az"


def test_a_time_zone_is_respected() -> None:
    cleaned, _ = cleaning(after="1970-01-02T02:00:00+02:00")(table("ax by az", time=[DAY - 1, DAY, DAY + 1]))
    assert rows_of(cleaned) == "by az"


def test_a_missing_time_is_not_cleaned_away() -> None:
    with pytest.raises(UserError, match="row 2, column 'time'"):
        cleaning(after="1970-01-01", before="1990-01-01")(table("ax by", time=[1, None]))


def test_short_sessions() -> None:
    cleaned, steps = cleaning(minimum_session=2)(table("ax by az cx"))
    assert rows_of(cleaned) == "ax az"
    assert steps == (CleaningStep("sessions of at least 2", 2, 2, True),)


def test_behaviours() -> None:
    kinds = table("ax by az", behaviour=["view", "buy", "view"])
    cleaned, steps = cleaning(behaviours=["view"])(kinds)
    assert rows_of(cleaned) == "ax az"
    assert steps == (CleaningStep("behaviours view", 1, 2, False),)
    with pytest.raises(UserError, match="no behaviour 'veiw'; did you mean 'view'"):
        cleaning(behaviours=["veiw"])(kinds)


def test_a_core_is_iterated_until_stable() -> None:
    # z has one row; without it c has one; without c's x … only a and b with x and y stay.
    cleaned, steps = cleaning(k_core=2)(table("ax ay bx by cz cw dw"))
    assert rows_of(cleaned) == "ax ay bx by"
    assert steps == (CleaningStep("2-core", 3, 4, True),)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), min_size=20, max_size=60))
def test_the_core_is_the_largest_set_where_all_have_k(pairs: list[tuple[str, str]]) -> None:
    core = set(range(len(pairs)))
    while True:  # row by row, by the definition
        weak = {n for n in core if min(sum(pairs[m][side] == pairs[n][side] for m in core) for side in (0, 1)) < 3}
        if not weak:
            break
        core.remove(min(weak))
    raw = table(" ".join(map("".join, pairs)))
    if raw.frame["item"].n_unique() < 2:
        return
    if not core:
        with pytest.raises(UserError, match="nothing is left"):
            cleaning(k_core=3)(raw)
    else:
        assert cleaning(k_core=3)(raw)[0].frame["time"].to_list() == sorted(core)


def test_steps_are_run_in_the_stated_order() -> None:
    raw = table("ax ax by az", rating=[1.0, 5.0, 5.0, 5.0])
    cleaned, steps = cleaning(minimum_session=2, duplicates="first", minimum_rating=2)(raw)
    assert rows_of(cleaned) == "ax az"
    assert [s.name for s in steps] == ["rating at least 2", "duplicates: first", "sessions of at least 2"]


def test_other_columns_and_the_law_go_along() -> None:
    law = object()
    raw = table("ax by az", event=[5, 6, 7])._replace(law=law, text={"x": "title"})
    cleaned, _ = cleaning(minimum_session=2)(raw)
    assert cleaned.frame["event"].to_list() == [5, 7]
    assert cleaned.law is law
    assert cleaned.text == {"x": "title"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duplicates": "none"}, "data.cleaning.duplicates is 'none'; expected keep, first or last"),
        ({"minimum_session": 0}, "minimum_session=0: expected a whole number >= 1"),
        ({"k_core": -1}, "k_core=-1: expected a whole number >= 1"),
        ({"after": "1.2.1970"}, "data.cleaning.after is '1.2.1970'"),
        ({"before": "soon"}, "data.cleaning.before is 'soon'"),
        ({"minimum_rating": 1.0}, "no ratings, which data.cleaning.minimum_rating needs"),
        ({"behaviours": ["buy"]}, "no behaviours, which data.cleaning.behaviours needs"),
        ({"after": "2020-01-01"}, "nothing is left after the cleaning step 'after 2020-01-01'"),
        ({"k_core": 9}, "nothing is left after the cleaning step '9-core', which removed the last 2 rows"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cleaning(**arguments)(table("ax by"))


def test_first_tags_of_lastfm(real_data: Path) -> None:
    cleaned, steps = cleaning(after="2005-01-01", duplicates="first")(lastfm(path=str(real_data / "lastfm-hetrec")))
    assert [(s.removed, s.remaining) for s in steps] == [(5, 186_474), (115_412, 71_062)]
    assert cleaned.frame.select("user", "item").n_unique() == 71_062
    assert (cleaned.frame["user"].n_unique(), cleaned.frame["item"].n_unique()) == (1_892, 12_523)


def test_movietweetings_has_no_duplicates(real_data: Path) -> None:
    _, (step,) = cleaning(duplicates="first")(ratings_dat(path=str(real_data / "movietweetings")))
    assert (step.removed, step.remaining) == (0, 100_000)
