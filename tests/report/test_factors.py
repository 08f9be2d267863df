from dataclasses import replace
from pathlib import Path

import pytest

from incremental.errors import UserError
from incremental.report import Run, table

NDCG = "ndcg@10"
WEIGHT = "strategies.anchor.weight"


def test_each_combination_of_values_is_a_row(sweep: list[Run]) -> None:
    compared = table(sweep, rows=["model", "row", WEIGHT])
    assert compared.labels == [
        "gru4rec ewc weight=0.1",
        "sasrec ewc weight=10",
        "sasrec ewc weight=1",
        "sasrec ewc weight=0.1",
        "gru4rec ewc weight=1",
        "gru4rec finetune",
        "sasrec finetune",
        "gru4rec ewc weight=10",
    ]
    assert all(len(row.runs) == 3 for row in compared.rows)
    assert compared.rows[0].factors == {"model": "gru4rec", "row": "ewc", WEIGHT: 0.1}


def test_columns_are_compared_apart(sweep: list[Run]) -> None:
    compared = table(sweep, rows=["row", WEIGHT], columns=["model"])
    assert compared.columns == ["gru4rec", "sasrec"]
    for column, best in {"gru4rec": "ewc weight=0.1", "sasrec": "ewc weight=10"}.items():
        rows = compared.of(column)
        alone = table([run for run in sweep if run.settings["model"] == column], rows=["row", WEIGHT])
        assert {row.label: row.comparisons for row in rows} == {row.label: row.comparisons for row in alone.rows}
        assert [row.label for row in rows if row.best] == [best]
    # The same rows stand in the same place in both columns.
    assert [row.label for row in compared.of("sasrec")] == [row.label for row in compared.of("gru4rec")]


def test_columns_of_numbers_are_in_their_order(sweep: list[Run]) -> None:
    compared = table(sweep, rows=["model"], columns=["row", WEIGHT])
    assert compared.columns == ["ewc weight=0.1", "ewc weight=1", "ewc weight=10", "finetune"]


def test_a_column_without_the_baseline_says_so(sweep: list[Run]) -> None:
    kept = [run for run in sweep if not (run.row == "finetune" and run.settings["model"] == "gru4rec")]
    compared = table(kept, rows=["row", WEIGHT], columns=["model"])
    assert "No tests in gru4rec: the baseline finetune is not there." in compared.notes
    assert all(row.comparisons[NDCG].p is None for row in compared.of("gru4rec"))


def test_a_sensitivity_makes_rows_in_the_order_of_the_values(sweep: list[Run]) -> None:
    compared = table(sweep, sensitivity=WEIGHT, rows=["model", "row"])
    assert [(row.line, row.factors.get(WEIGHT)) for row in compared.rows] == [
        *[("sasrec ewc", weight) for weight in (0.1, 1.0, 10.0)],
        ("gru4rec finetune", None),
        ("sasrec finetune", None),
        *[("gru4rec ewc", weight) for weight in (0.1, 1.0, 10.0)],
    ]
    together = f"ordered by {NDCG}, highest first, those that differ in {WEIGHT} alone together, by its value."
    assert compared.notes[0].endswith(together)


def test_names_are_the_rows_where_they_tell_runs_apart() -> None:
    pair = [Run("replay", 0, {NDCG: {"prequential": q}}, name=n) for n, q in {"gru": 0.1, "sasrec": 0.2}.items()]
    assert table(pair).labels == ["sasrec", "gru"]
    assert table(pair, rows=["name"]).labels == ["sasrec", "gru"]


def test_a_collision_says_what_differs_and_what_to_do(sweep: list[Run]) -> None:
    sasrec = [run for run in sweep if run.settings["model"] == "sasrec"]
    with pytest.raises(UserError) as error:
        table(sasrec)
    assert str(error.value).startswith("3 runs are row 'ewc' with seed 0: sasrec-ewc and sasrec-ewc and others. ")
    assert f"They differ in {WEIGHT} (0.1, 1, 10)." in str(error.value)
    assert f"--rows row,{WEIGHT};" in str(error.value)
    assert f"--columns {WEIGHT};" in str(error.value)
    assert str(error.value).endswith(f"--sensitivity {WEIGHT}.")
    # What it says works.
    assert len(table(sasrec, rows=["row", WEIGHT]).rows) == 4
    assert len(table(sasrec, columns=[WEIGHT]).columns) == 4
    assert len(table(sasrec, sensitivity=WEIGHT).rows) == 4


def test_runs_of_two_folders_may_be_columns() -> None:
    two = [
        Run("ewc", 0, {NDCG: {"prequential": 0.1}}, config={"runs": folder, "data": {"history": history}})
        for folder, history in {"runs/a": 10, "runs/b": 50}.items()
    ]
    with pytest.raises(UserError, match=r"; for a column a folder: --columns runs;"):
        table(two)
    assert table(two, columns=["runs"]).columns == ["runs/a", "runs/b"]
    one = [replace(run, config={**(run.config or {}), "runs": "runs/a"}) for run in two]
    with pytest.raises(UserError) as error:
        table(one)
    assert "a folder" not in str(error.value)


def test_a_collision_of_names_is_of_the_choice_and_not_its_parts(sweep: list[Run]) -> None:
    with pytest.raises(
        UserError, match=r"They differ in model \(gru4rec, sasrec\)\. For a row each: --rows row,model; "
    ):
        table(sweep, rows=["row"], columns=[WEIGHT])


def test_a_run_that_is_there_twice_is_to_be_left_out() -> None:
    twice = [Run("replay", 0, {NDCG: {"prequential": 0.1}}, directory=Path(d), config={}) for d in ("one", "two")]
    with pytest.raises(UserError, match=r"one and two\. Their configurations do not differ otherwise; leave one out"):
        table(twice)


def test_a_mean_over_different_runs_is_noted(sweep: list[Run]) -> None:
    mixed = [run for run in sweep if (run.settings["model"] == "gru4rec") == (run.seed == 2) and run.row == "finetune"]
    assert len(mixed) == 3
    notes = table(mixed).notes
    assert "finetune is a mean over runs that differ in more than the seed: model (gru4rec, sasrec)." in notes
    assert not any("more than the seed" in note for note in table(sweep, rows=["name", WEIGHT]).notes)


def test_each_seed_begins_with_a_base_part_of_its_own() -> None:
    """With base=RUN the runs of a row name another run each: that is the seed's difference, and no other."""
    runs = [
        Run(row, seed, {NDCG: {"prequential": 0.1}}, config={"base": f"runs/base-seed{seed}"})
        for row in ("finetune", "ewc")
        for seed in range(2)
    ]
    assert not any("more than the seed" in note for note in table(runs).notes)
    twice = [*runs, Run("ewc", 0, {NDCG: {"prequential": 0.1}}, config={"base": "runs/another"})]
    with pytest.raises(UserError, match=r"They differ in base \(runs/another, runs/base-seed0\)"):
        table(twice, rows=["row"])


def test_unknown_keys_say_what_there_is(sweep: list[Run]) -> None:
    with pytest.raises(UserError, match=r"no run's configuration has the key 'model\.name'; there is model\.width"):
        table(sweep, columns=["model.name"])
    with pytest.raises(UserError, match="has the key 'modl'; there is model"):
        table(sweep, rows=["modl"])
    with pytest.raises(UserError, match="model is gru4rec, sasrec in some runs, and a sensitivity is of numbers"):
        table(sweep, sensitivity="model")
    with pytest.raises(UserError, match=r"For a row each: --rows row$"):
        table(sweep, sensitivity="row")
    with pytest.raises(UserError, match=r"has the key 'method'; there is row$"):
        table(sweep, columns=["method"])
    with pytest.raises(UserError, match="both a column and the sensitivity"):
        table(sweep, columns=[WEIGHT], sensitivity=WEIGHT)


def test_values_that_differ_in_the_tenth_digit_are_rows_of_their_own() -> None:
    def of(weights: list[float]) -> list[Run]:
        return [
            Run("ewc", seed, {NDCG: {"prequential": weight}}, config={"strategies": {"anchor": {"weight": weight}}})
            for weight in weights
            for seed in range(2)
        ]

    near = [0.1234567891, 0.1234567892, 0.5]
    compared = table(of(near), sensitivity=WEIGHT)
    assert compared.labels == ["ewc weight=0.1234567891", "ewc weight=0.1234567892", "ewc weight=0.5"]
    assert [row.factors[WEIGHT] for row in compared.rows] == near
    assert [row.line for row in compared.rows] == ["ewc"] * 3
    assert table(of([0.1234567891, 0.5]), sensitivity=WEIGHT).labels == ["ewc weight=0.123457", "ewc weight=0.5"]
    last = [0.3, 0.1 + 0.2]
    assert len(table(of(last), rows=["row", WEIGHT]).rows) == 2
    assert len(table(of(last), columns=[WEIGHT]).columns) == 2
