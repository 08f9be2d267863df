import pytest

from incremental.report import Run, table
from incremental.report.front import front

NDCG = "ndcg@10"


def names(places: dict[str, tuple[float, float]], metric: str = NDCG) -> list[str]:
    runs = [
        Run(row, 0, {metric: {"prequential": quality}}, {"seconds_per_update": cost})
        for row, (cost, quality) in places.items()
    ]
    return [point.row.label for point in front(table(runs).rows, metric)]


PLACES = {"static": (0.0, 0.1), "slow": (3.0, 0.25), "finetune": (1.0, 0.2), "retrain": (9.0, 0.3), "poor": (2.0, 0.15)}


def test_the_front_is_what_no_row_beats_in_both() -> None:
    assert names(PLACES) == ["static", "finetune", "slow", "retrain"]


def test_ties() -> None:
    assert names({"a": (1.0, 0.2), "b": (1.0, 0.2), "c": (1.0, 0.1), "d": (2.0, 0.2)}) == ["a", "b"]


def test_a_bound_is_no_competitor() -> None:
    assert names({**PLACES, "oracle": (0.5, 0.9)}) == names(PLACES)


def test_no_front_where_more_is_not_better_or_there_is_one_row() -> None:
    assert names(PLACES, "popularity@10") == []
    assert names({"static": (0.0, 0.1)}) == []


@pytest.mark.parametrize(("metric", "noted"), [(NDCG, True), ("coverage@10", False)])
def test_the_notes_name_it(metric: str, noted: bool) -> None:
    runs = [
        Run(row, 0, {metric: {"prequential": quality}}, {"seconds_per_update": cost})
        for row, (cost, quality) in PLACES.items()
    ]
    named = [note for note in table(runs).notes if note.startswith("Front")]
    assert [f"of {metric}" in note and "static, finetune, slow, retrain." in note for note in named] == [True] * noted
    said = "Every other row whose quality and seconds can be compared has one of these"
    assert all(said in note and "bounds (oracle) apart" in note for note in named)


def test_the_note_says_nothing_of_seconds_that_cannot_be_compared() -> None:
    """A cheap run of other lanes, and a bound, are outside of the front, and no row of it beats them."""
    runs = [
        Run(row, 0, {NDCG: {"prequential": quality}}, {"seconds_per_update": cost}, lanes=lanes)
        for row, cost, quality, lanes in (
            ("finetune", 1.0, 0.2, 2),
            ("ewc", 2.0, 0.3, 2),
            ("popularity", 0.1, 0.25, 1),
            ("oracle", 0.1, 0.9, 2),
        )
    ]
    (note,) = (note for note in table(runs).notes if note.startswith("Front"))
    assert "(by the means): finetune, ewc. " in note
    assert "Every other row has" not in note
