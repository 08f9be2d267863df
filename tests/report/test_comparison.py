import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from incremental.errors import UserError
from incremental.report import Run, Table, read_runs, table
from incremental.report.front import front, point
from incremental.report.grid import grid
from incremental.report.page import page

NDCG = "ndcg@10"


def runs_of(values: Mapping[str, Mapping[int, float | None]], metric: str = NDCG) -> list[Run]:
    return [
        Run(row, seed, {metric: {"prequential": value}}, increments=3)
        for row, seeds in values.items()
        for seed, value in seeds.items()
    ]


def best(compared: Table) -> dict[str, str]:
    return {metric: row.label for row in compared.rows for metric in row.best}


FINETUNE = {0: 0.20, 1: 0.23, 2: 0.25}
REPLAY = {0: 0.30, 1: 0.34, 2: 0.37}
STATIC = {0: 0.15, 1: 0.10, 2: 0.12}


def test_the_study_read_from_disk(study: Path) -> None:
    compared = table(read_runs([study]).finished)
    assert compared.metrics == [NDCG]
    assert compared.baseline == "finetune"
    assert [row.label for row in compared.rows] == ["replay", "finetune", "static"]
    replay = compared.rows[0]
    assert replay.quality[NDCG]["prequential"].mean == pytest.approx(0.31)
    assert replay.quality[NDCG]["slope"].mean == pytest.approx(-0.04)
    assert replay.quality[NDCG]["forgetting"].mean == pytest.approx((0.2 + 0.1) / 2)
    assert "forgetting" not in compared.rows[1].quality[NDCG]
    assert replay.cost["examples"].mean == 1200
    assert replay.comparisons[NDCG].difference == pytest.approx(0.11)


def test_tests_are_paired_by_seed_and_corrected_over_the_rows() -> None:
    compared = table(runs_of({"finetune": FINETUNE, "replay": REPLAY, "static": STATIC}))
    by_label = {row.label: row for row in compared.rows}
    base = list(FINETUNE.values())
    raw = {
        label: scipy.stats.ttest_rel(list(values.values()), base).pvalue
        for label, values in {"replay": REPLAY, "static": STATIC}.items()
    }
    assert raw["replay"] < raw["static"]
    replay, static = by_label["replay"].comparisons[NDCG], by_label["static"].comparisons[NDCG]
    assert replay.p == pytest.approx(raw["replay"])
    assert replay.p_holm == pytest.approx(2 * raw["replay"])
    assert static.p_holm == pytest.approx(max(raw["static"], 2 * raw["replay"]))
    assert by_label["finetune"].comparisons == {}


def test_seeds_that_differ_are_paired_where_shared() -> None:
    compared = table(runs_of({"finetune": FINETUNE, "replay": REPLAY, "ewc": {2: 0.3, 1: 0.27, 7: 0.9}}))
    ewc = next(row for row in compared.rows if row.label == "ewc").comparisons[NDCG]
    assert ewc.pairs == 2
    assert ewc.p == pytest.approx(scipy.stats.ttest_rel([0.27, 0.3], [0.23, 0.25]).pvalue)
    assert "(2: ewc; 3: replay)" in "\n".join(compared.notes)


def test_a_row_without_shared_seeds_has_no_test() -> None:
    compared = table(runs_of({"finetune": FINETUNE, "replay": {5: 0.3, 6: 0.4}}))
    assert compared.rows[0].comparisons[NDCG] == (None, None, None, 0, False)
    said = "p (ndcg@10): no test of {} against finetune (–): fewer than two seeds were measured of both. Run both"
    assert any(note.startswith(said.format("replay")) for note in compared.notes)
    lone = table(runs_of({"finetune": {0: 0.2}, "replay": REPLAY, "ewc": {0: 0.3}}))
    assert any(note.startswith(said.format("replay")) for note in lone.notes)  # ewc's one seed is said already
    full = table(runs_of({"finetune": FINETUNE, "replay": REPLAY}))
    assert not any("fewer than two seeds" in note for note in full.notes)


def test_equal_differences_are_explained() -> None:
    shifted = {seed: value + 0.1 for seed, value in FINETUNE.items()}
    compared = table(runs_of({"finetune": FINETUNE, "shifted": shifted, "same": FINETUNE, "replay": REPLAY}))
    p = {row.label: row.comparisons[NDCG].p for row in compared.rows if row.comparisons}
    assert (p["shifted"], p["same"]) == (None, None)
    assert p["replay"] == pytest.approx(scipy.stats.ttest_rel(list(REPLAY.values()), list(FINETUNE.values())).pvalue)
    assert any("1 comparison." in note for note in compared.notes)
    assert any("no test of shifted, same against finetune (–): every seed" in note for note in compared.notes)
    plain = table(runs_of({"finetune": FINETUNE, "replay": REPLAY}))
    assert not any("the same difference" in note for note in plain.notes)


def test_rows_that_draw_nothing_have_no_test() -> None:
    """Seeds are no sample of them: no p and no bold between two such rows; against a row that draws there is a test."""
    fixed = {"ease": dict.fromkeys(range(3), 0.7), "item_knn": dict.fromkeys(range(3), 0.6)}
    compared = table(runs_of(fixed))
    assert [row.comparisons[NDCG].p_holm for row in compared.rows if row.comparisons] == [None]
    assert best(compared) == {}
    assert any("no test of item_knn against ease (–): every seed" in note for note in compared.notes)
    beside = table(runs_of({"finetune": FINETUNE, **fixed}))
    expected = scipy.stats.ttest_1samp(list(FINETUNE.values()), 0.7).pvalue
    assert next(row.comparisons[NDCG].p for row in beside.rows if row.label == "ease") == pytest.approx(expected)
    assert best(beside) == {}  # ease is above finetune by a test, and not above item_knn
    assert best(table(runs_of({"finetune": FINETUNE, "ease": fixed["ease"]}))) == {NDCG: "ease"}


def test_one_seed_says_so() -> None:
    compared = table(runs_of({"finetune": {0: 0.2}, "replay": {0: 0.3}}))
    assert compared.rows[0].quality[NDCG]["prequential"] == (0.3, None, 1)
    assert compared.rows[0].comparisons[NDCG].p is None
    assert "One seed, so no interval and no test (–): replay, finetune." in compared.notes


def test_a_row_without_a_value_says_why() -> None:
    compared = table(runs_of({"finetune": {0: 0.2}, "news": {0: None}}))
    assert [note for note in compared.notes if note.startswith("No ndcg@10 (–): news. No test event counted")]
    unasked = table([*runs_of({"finetune": {0: 0.2}}), Run("news", 0, {"recall@10": {"prequential": 0.1}})])
    assert [note for note in unasked.notes if note.startswith("No ndcg@10 (–): news. These runs did not measure it")]
    for metric, said in {
        "ndcg@10/cold_items": "there was none of cold_items.",  # as where data.unseen_items=drop leaves them out
        "auc/buy": "there was none of buy, or no other.",
        "novelty@10": "when the metric says nothing of an event, its docstring tells.",
    }.items():
        silent = table(runs_of({"finetune": {0: 0.2}, "news": {0: None}}, metric))
        assert f"No {metric} (–): news. No test event counted: {said}" in silent.notes
    assert not any("No test event" in note for note in unasked.notes)
    assert compared.rows[-1].best == frozenset()
    assert not any("No test event" in note for note in table(runs_of({"finetune": {0: 0.2}})).notes)


def test_best_only_where_significant() -> None:
    clear = table(runs_of({"finetune": FINETUNE, "replay": REPLAY, "static": STATIC}))
    assert best(clear) == {NDCG: "replay"}
    close = {seed: value + noise for (seed, value), noise in zip(REPLAY.items(), (0.02, -0.03, 0.02), strict=True)}
    unclear = table(runs_of({"finetune": FINETUNE, "replay": REPLAY, "close": close}))
    assert best(unclear) == {}
    assert any("No row is marked as best" in note for note in unclear.notes)
    assert best(table(runs_of({"finetune": {0: 0.2}, "replay": {0: 0.3}}))) == {}
    assert best(table(runs_of({"replay": REPLAY}))) == {}


def test_a_bound_is_never_the_best() -> None:
    oracle = {0: 0.60, 1: 0.61, 2: 0.62}
    compared = table(runs_of({"finetune": FINETUNE, "replay": REPLAY, "oracle": oracle}))
    assert compared.rows[0].label == "oracle"
    assert best(compared) == {NDCG: "replay"}
    named = [
        replace(run, row="law", config={"model": {"_target_": "incremental.models.oracle.oracle"}})
        if run.row == "oracle"
        else run
        for run in runs_of({"finetune": FINETUNE, "replay": REPLAY, "oracle": oracle})
    ]
    assert best(table(named)) == {NDCG: "replay"}


def test_a_lucky_seed_that_others_lack_makes_no_best() -> None:
    lucky = {seed: value - 0.1 - 0.001 * seed for seed, value in FINETUNE.items()} | {9: 5.0}
    compared = table(runs_of({"finetune": FINETUNE, "lucky": lucky}))
    assert compared.rows[0].label == "lucky"
    assert (compared.rows[0].comparisons[NDCG].p or 1.0) < 0.001
    assert best(compared) == {}


@pytest.mark.parametrize("metric", ["popularity@10", "coverage@20", "loss"])
def test_no_row_is_best_where_more_is_not_better(metric: str) -> None:
    compared = table(runs_of({"finetune": FINETUNE, "replay": REPLAY}, metric))
    assert best(compared) == {}
    assert f"{metric}: more is not better, so no row is marked as best." in compared.notes
    assert not any("bold" in note or "none is" in note for note in compared.notes)
    assert best(table(runs_of({"finetune": FINETUNE, "replay": REPLAY}, f"{NDCG}/cold_users"))) != {}


def test_metrics_and_baseline_are_chosen_by_name() -> None:
    both = [
        Run(row, seed, {"recall@20": {"prequential": 1 - value}, NDCG: {"prequential": value}})
        for row, values in {"finetune": FINETUNE, "replay": REPLAY}.items()
        for seed, value in values.items()
    ]
    assert table(both).metrics == [NDCG]
    compared = table(both, metrics=["recall@20", NDCG], baseline="replay")
    assert compared.metrics == ["recall@20", NDCG]
    assert [row.label for row in compared.rows] == ["finetune", "replay"]
    assert set(compared.rows[0].comparisons) == {"recall@20", NDCG}
    of = compared.rows[0].comparisons
    assert of[NDCG].difference == pytest.approx(-0.11)
    assert of["recall@20"].difference == pytest.approx(0.11)
    assert table(runs_of({"a": FINETUNE, "b": REPLAY}, "hit@5")).metrics == ["hit@5"]
    assert table(runs_of({"a": FINETUNE, "b": REPLAY})).baseline == "a"


def test_unknown_names_say_what_there_is() -> None:
    runs = runs_of({"finetune": FINETUNE, "replay": REPLAY})
    with pytest.raises(UserError, match="no run has the metric 'auc'; there is ndcg@10"):
        table(runs, metrics=["auc"])
    with pytest.raises(UserError, match="no row is named 'ewc', to be the baseline; there is finetune; replay"):
        table(runs, baseline="ewc")
    with pytest.raises(UserError, match="no finished runs"):
        table([])
    with pytest.raises(UserError, match="the runs have no metrics"):
        table([Run("replay", 0, {})])


def test_a_mean_over_some_of_the_runs_says_so() -> None:
    runs = [Run(row, seed, {NDCG: {"prequential": 0.1 * seed}}) for row in ("finetune", "ewc") for seed in (1, 2, 3)]
    runs[-1] = Run("ewc", 3, {NDCG: {"prequential": None}})
    said = [note for note in table(runs).notes if "fewer runs" in note]
    assert said == [f"{NDCG} is a mean over fewer runs than the row has: ewc 2 of 3 measured it."]


def test_a_row_that_was_not_measured_comes_last() -> None:
    compared = table(runs_of({"new": {0: None, 1: None}, "finetune": FINETUNE}))
    assert [row.label for row in compared.rows] == ["finetune", "new"]
    assert compared.rows[1].quality[NDCG] == {}
    assert compared.rows[1].comparisons[NDCG].p is None


@pytest.mark.usefixtures("unrendered")
def test_what_was_chosen_on_is_left_out(write_run: Any, tmp_path: Path) -> None:
    for seed in range(2):
        R = [[0.9, 0.1, 0.1, 0.1], [0.3, 0.8, 0.1, 0.2], [0.2, 0.1, 0.7, 0.3], [0.1, 0.05, 0.6, 0.5]]
        write_run("replay", seed, [0.9, 0.1, 0.2 + 0.1 * seed], R=R)
        write_run("finetune", seed, [0.1, 0.3, 0.3])
    found = table(read_runs([tmp_path]).finished, after=1)
    assert [row.label for row in found.rows] == ["finetune", "replay"]
    replay = found.rows[1]
    assert replay.quality["ndcg@10"]["prequential"].mean == pytest.approx((0.15 + 0.2) / 2)
    assert replay.quality["ndcg@10"]["slope"].mean == pytest.approx(0.15)
    quality = {name: estimate.mean for name, estimate in replay.quality["ndcg@10"].items()}
    assert quality["forgetting"] == pytest.approx(0.7 - 0.6)  # of increment 2 after increment 3, and no other
    assert quality["learning_accuracy"] == pytest.approx((0.7 + 0.5) / 2)
    assert quality["final_average"] == pytest.approx((0.6 + 0.5) / 2)
    assert {row[1] for row in replay.runs[0].evaluations} == {2, 3}
    (note,) = [note for note in found.notes if note.startswith("Only increments after 1 count.")]
    assert "(forgetting, transfer) is of the part of it that begins with increment 2" in note
    assert "Only increments after 1 count" in page(found)
    without = table([run for run in read_runs([tmp_path]).finished if run.row == "finetune"], after=1)
    assert not any("matrix R" in note for note in without.notes)
    assert not [note for note in table(read_runs([tmp_path]).finished).notes if "Only increments" in note]
    with pytest.raises(UserError, match=r"-0: nothing was evaluated after increment 3; the run has 3 increments"):
        table(read_runs([tmp_path]).finished, after=3)
    with pytest.raises(UserError, match=r"after=-1: expected the number of an increment, or 0"):
        table(read_runs([tmp_path]).finished, after=-1)


def test_streams_of_different_length_are_noted() -> None:
    runs = [Run(row, 0, {NDCG: {"prequential": 0.1}}, increments=n) for row, n in {"a": 3, "b": 6}.items()]
    assert "The runs do not have the same number of increments: a 3, b 6." in table(runs).notes
    assert not any("same number" in note for note in table(runs[:1]).notes)


LANES = {"finetune": 1, "static": 8, "replay": 1, "ewc": 8}
SECONDS = {"finetune": 2.0, "static": 0.0, "replay": 3.0, "ewc": 0.5}


def timed(lanes: Mapping[str, Any] = LANES) -> list[Run]:
    """Two seeds of each row; a pair of lanes is the seeds'."""
    quality = {"finetune": 0.2, "static": 0.1, "replay": 0.3, "ewc": 0.25}
    return [
        Run(
            row,
            seed,
            {NDCG: {"prequential": quality[row] + 0.01 * seed}},
            {"seconds_per_update": SECONDS[row], "examples": 100.0},
            lanes=of if isinstance(of, int) else of[seed],
        )
        for row, of in lanes.items()
        for seed in range(2)
    ]


def cells(compared: Table) -> dict[str, str]:
    """s/update of each row."""
    drawn = grid(compared)
    place = [head.title for head in drawn.header].index("s/update")
    return {row[0].text: row[place].text for row in drawn.rows}


def test_seconds_of_other_lanes_are_marked_and_in_no_front() -> None:
    compared = table(timed())
    assert cells(compared) == {"replay": "3", "ewc": "0.5 †", "finetune": "2", "static": "0"}
    assert [point.row.label for point in front(compared.rows, NDCG)] == ["static", "finetune", "replay"]
    (note,) = [note for note in compared.notes if note.startswith("†")]
    assert "To compare, run ewc, finetune each alone, or all rows with equal lanes." in note
    assert "Lanes: replay 1, ewc 8, finetune 1, static 8." in note
    alike = table(timed(dict.fromkeys(LANES, 8)))
    assert cells(alike)["ewc"] == "0.5"
    assert [point.row.label for point in front(alike.rows, NDCG)] == ["static", "ewc", "replay"]
    assert not [note for note in alike.notes if note.startswith("†")]


def test_the_wall_time_of_other_lanes_is_marked_where_no_update_took_seconds() -> None:
    """As of the static model, which is tested and saved by as many lanes as it ran in."""
    runs = [replace(run, cost={**run.cost, "wall_per_update": 0.5}) for run in timed()]
    compared = table(runs)
    drawn = grid(compared)
    place = [head.title for head in drawn.header].index("wall/update")
    wall = {row[0].text: row[place].text for row in drawn.rows}
    assert wall == {"replay": "0.5", "ewc": "0.5 †", "finetune": "0.5", "static": "0.5 †"}
    assert cells(compared)["static"] == "0"
    assert [point.row.label for point in front(compared.rows, NDCG)] == ["static", "finetune", "replay"]
    (note,) = [note for note in compared.notes if note.startswith("†")]
    assert "To compare, run ewc, static, finetune each alone" in note


def test_lanes_in_a_column_without_the_baseline_are_those_of_another_row() -> None:
    config = {"finetune": "gru4rec", "ewc": "sasrec", "replay": "sasrec", "static": "gru4rec"}
    runs = [replace(run, config={"model": config[run.row]}) for run in timed({**LANES, "static": 1})]
    (note,) = [note for note in table(runs, columns=["model"]).notes if note.startswith("†")]
    assert note.startswith(
        "†: runs of other lanes than finetune (in sasrec, where it is not, than another row). Seconds"
    )
    (plain,) = [note for note in table(runs).notes if note.startswith("†")]
    assert plain.startswith("†: runs of other lanes than finetune. Seconds")


def test_lanes_are_read_from_the_summaries(write_run: Any, tmp_path: Path) -> None:
    write_run("finetune", 0, [0.2], cost={"seconds_per_update": 0.385})  # alone
    write_run("ewc", 0, [0.3], cost={"seconds_per_update": 0.18}, lanes=16)
    assert cells(table(read_runs([tmp_path]).finished)) == {"ewc": "0.18 †", "finetune": "0.385"}


def test_what_acts_in_the_base_part_is_told(write_run: Any, tmp_path: Path) -> None:
    write_run("finetune", 0, [0.2])
    write_run("packnet", 0, [0.3], early=["packnet"])
    notes = table(read_runs([tmp_path]).finished).notes
    assert [note for note in notes if note.startswith("The rows of packnet do not start level")]
    assert not any("start level" in note for note in table(runs_of({"finetune": FINETUNE})).notes)


def test_seconds_of_different_lanes_have_no_mean() -> None:
    compared = table(timed({**LANES, "replay": (1, 2)}))
    assert cells(compared)["replay"] == "†"
    (replay,) = [row for row in compared.rows if row.label == "replay"]
    assert "seconds_per_update" not in replay.cost
    assert replay.cost["examples"].mean == 100
    assert any("replay 1/2" in note for note in compared.notes)
    baseline = cells(table(timed({**LANES, "finetune": (1, 2)})))  # then there is nothing to compare with
    assert baseline == {"replay": "3 †", "ewc": "0.5 †", "finetune": "†", "static": "0"}


def test_the_number_of_updates_is_told_where_it_differs() -> None:
    runs = [
        Run(row, 0, {NDCG: {"prequential": 0.1}}, {"seconds_per_update": 1.0, "updates": updates}, increments=8)
        for row, updates in {"finetune": 8, "drift": 2, "static": 0}.items()
    ]
    assert "The runs do not make the same number of updates: drift 2, finetune 8, static 0." in table(runs).notes
    assert not [note for note in table([runs[0], runs[2]]).notes if "number of updates" in note]
    costs = {row.label: found.cost for row in table(runs).rows if (found := point(row, NDCG)) is not None}
    assert costs == {"finetune": 1.0, "drift": 0.25, "static": 0.0}  # an increment


@pytest.mark.parametrize("metric", ["f1", "auc", "f1/buy", "auc/buy", "precision/buy", "recall/buy", "accuracy"])
def test_a_row_is_the_best_at_telling_classes(metric: str) -> None:
    compared = table(runs_of({"finetune": FINETUNE, "replay": REPLAY}, metric))
    assert best(compared) == {metric: "replay"}
    assert not [note for note in compared.notes if "more is not better" in note]


def test_what_is_better_less_is_named(study: Path) -> None:
    compared = table(read_runs([study]).finished)
    assert "Less is better: forgetting, s/update, examples, memory." in compared.notes


def test_rows_of_other_data_or_rules_are_told(write_run: Any, tmp_path: Path) -> None:
    """A row is compared with what was tested on the same events; each seed may be a stream of its own."""
    for row, seed, base, rules in (
        ("finetune", 0, "a", ""),
        ("finetune", 1, "b", ""),
        ("ewc", 0, "a", ""),
        ("ewc", 1, "b", ""),
        ("replay", 0, "a", "data: {unseen_items: drop}"),
        ("replay", 1, "x", "data: {unseen_items: drop}"),
    ):
        run = write_run(row, seed, [0.2, 0.3 + 0.01 * seed], config=rules)
        (run / "data").mkdir()
        (run / "data" / "data.json").write_text(json.dumps({"parts": [{"digest": base}, {"digest": "c"}]}))
    said = table(read_runs([tmp_path / "runs"]).finished).notes
    assert [note for note in said if note.startswith("Other data than finetune's: replay. Their increments")]
    values = "absent: ewc, finetune; drop: replay"
    assert f"The rows were not tested by the same rules: data.unseen_items ({values})." in said
    kept = table([run for run in read_runs([tmp_path / "runs"]).finished if run.row != "replay"]).notes
    assert not [note for note in kept if "Other data" in note or "rules" in note]


def test_other_data_are_told_of_seeds_that_the_baseline_lacks(write_run: Any, tmp_path: Path) -> None:
    """Where all its seeds have one stream; where each has its own, another seed may have another."""
    for folder, streams in {"one": "aa", "each": "ab"}.items():
        for row, seed, base in (("finetune", 0, streams[0]), ("finetune", 1, streams[1]), ("ewc", 7, "x")):
            run = write_run(row, seed, [0.2], folder=folder)
            (run / "data").mkdir()
            (run / "data" / "data.json").write_text(json.dumps({"parts": [{"digest": base}]}))
        notes = table(read_runs([tmp_path / "runs" / folder]).finished).notes
        assert any(note.startswith("Other data than finetune's: ewc.") for note in notes) == (folder == "one")


def test_another_seed_of_the_data_is_told(write_run: Any, tmp_path: Path) -> None:
    """It draws the samples of tests and the held-out parts; of one file the events are the same whatever it is."""
    for row, offset in {"finetune": 0, "ewc": 0, "replay": 1}.items():
        for seed in range(2):
            write_run(row, seed, [0.2, 0.3 + 0.01 * seed], config=f"data: {{seed: {seed + offset}}}")
    runs = read_runs([tmp_path / "runs"]).finished
    said = "Another data.seed than finetune's: replay. It draws the held-out and validation parts and the samples"
    assert [note for note in table(runs).notes if note.startswith(said)]
    for others in (table(runs, rows=["row", "data.seed"]), table([run for run in runs if run.row != "replay"])):
        assert not [note for note in others.notes if "Another data.seed" in note]


def test_values_at_other_increments_are_told(write_run: Any, tmp_path: Path) -> None:
    """As of the F1 of a class that only one row predicts at an increment where it does not occur."""
    for row, middle in {"finetune": "nan", "ewc": "0.0", "replay": "nan"}.items():
        write_run(row, 0, [0.2, float(middle), 0.3])
    write_run("static", 0, [0.2, math.nan])  # of a shorter stream, which has a note of its own
    runs = read_runs([tmp_path / "runs"]).finished
    assert [note for note in table(runs).notes if "other increments" in note] == [
        "ndcg@10 has values at other increments than in finetune: ewc. A mean is over the increments that have one, so "
        "that a difference is not of the same tests."
    ]
    long = [run for run in runs if run.row != "static"]
    assert not [note for note in table(long, after=2).notes if "other increments" in note]


def test_rows_of_other_examples_are_told(write_run: Any, tmp_path: Path) -> None:
    """Also where the events and the rules of the tests are the same; but not of what a row or a column is made of."""
    for row, model, heldout, history in (
        ("finetune", "sasrec", 0.1, 50),
        ("replay", "sasrec", 0.1, 50),
        ("ewc", "sasrec", 0.0, 50),
        ("ewc", "gru4rec", 0.0, 20),
    ):
        kept = f"data: {{heldout: {heldout}, history: {history}}}\nmodel: {{_target_: models.{model}}}"
        write_run(row, 0, [0.2, 0.3], config=kept, folder=model)
    runs = read_runs([tmp_path / "runs"]).finished

    def told(**options: Any) -> list[str]:
        return [note for note in table(runs, **options).notes if "the same examples" in note]

    values = "0: ewc; 0.1: finetune, replay"
    said = f"The rows of sasrec did not train on the same examples: data.heldout ({values})."
    assert told(columns=["model"]) == [said]
    assert told(rows=["row", "data.heldout"], columns=["data.history"]) == []
    runs = [*runs, *(replace(runs[1], row=f"finetune {number}") for number in range(4))]
    assert told(rows=["row", "model"])[0].endswith(
        "data.heldout (0: 6 rows; 0.1: finetune sasrec, replay sasrec), data.history (20: ewc gru4rec; 50: 7 rows)."
    )


def test_rows_of_other_settings_are_told(write_run: Any, tmp_path: Path) -> None:
    """What the table is made of, and what a study's rows say by themselves, is no news; a baseline has no settings."""
    trained = "increment,epoch,loss\n1,1,0.5\n"
    for row, model, rate, epochs in (
        ("finetune", "sasrec", 0.001, trained),
        ("replay", "sasrec", 0.01, trained),
        ("ewc", "gru4rec", 0.001, trained),
        ("popularity", "popularity", 0.5, "increment,epoch,loss\n1,1,\n"),
    ):
        kept = f"model: {{_target_: models.{model}}}\noptimizer: {{_target_: adam, learning_rate: {rate}}}"
        write_run(row, 0, [0.2, 0.3], config=kept, epochs=epochs)
    runs = read_runs([tmp_path / "runs"]).finished

    def told(chosen: list[Run], **options: Any) -> list[str]:
        return [note for note in table(chosen, **options).notes if note.startswith("Beside the method")]

    models, rates = "gru4rec: ewc; sasrec: finetune, replay", "0.001: ewc, finetune; 0.01: replay"
    said = f"model ({models}), optimizer.learning_rate ({rates})"
    assert told(runs) == [f"Beside the method the rows differ in {said}."]
    assert told(runs, rows=["row", "optimizer.learning_rate"], columns=["model"]) == []
    assert told(runs, rows=["name"], columns=["optimizer.learning_rate"]) == []  # a name has the model
    study = [replace(run, row=f"{run.row} learning_rate={run.settings['optimizer.learning_rate']}") for run in runs]
    assert [note for note in told(study) if "learning_rate (" in note] == []
    assert [note for note in told([runs[0], *study[1:]]) if "learning_rate (" in note] != []


def test_what_looks_into_the_future_is_told(write_run: Any, tmp_path: Path) -> None:
    data = "unseen_items: known, cut: {_target_: incremental.data.cutting.leave_one_out}"
    write_run("finetune", 0, [0.2], config=f"data: {{{data}, cleaning: {{k_core: 1}}}}")
    write_run("ewc", 0, [0.2], config=f"data: {{{data}, cleaning: {{k_core: 5, duplicates: first}}}}")
    said = table(read_runs([tmp_path / "runs"]).finished).notes
    cut = "data.cut=leave_one_out"
    assert f"The runs look into the future: data.unseen_items=known, {cut}, data.cleaning.k_core=5 (ewc)." in said
