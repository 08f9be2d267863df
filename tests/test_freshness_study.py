"""The study's path without training: what is chosen on what, from which base part, over which events, and the table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from experiments.freshness import report, study
from experiments.freshness.measured import Measured, measured
from incremental.errors import UserError

QUALITY = {"hundred": 0.32, "day": 0.31, "never": 0.1}


def finish(config: dict[str, Any], _: Any) -> None:
    """In place of a run: four events in increments of three and of one; the quality is best at a rate of 0.004."""
    directory = study.sweep.directory_of(config).path
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(json.dumps(config))
    quality = QUALITY[config["row"]] - abs(config["optimizer"]["learning_rate"] - 0.004) + 0.01 * config["seed"]
    quality -= 0.004 * config["seed"] * (config["row"] == "day")
    lines = ["trained_until,evaluated_on,metric,value,count"]
    lines += [f"{t - 1},{t},{metric},{value},{count}" for metric in ("ndcg@10", "recall@10")
              for t, value, count in ((1, quality + 0.1, 3), (2, quality - 0.3, 1), (3, "", 0))]  # fmt: skip
    (directory / "evaluations.csv").write_text("\n".join([*lines, "0,2,ndcg@10,9.0,1", ""]))
    updates = 0 if config["row"] == "never" else 3
    content = {
        "row": config["row"],
        "seed": config["seed"],
        "increments": 3,
        "metrics": {metric: {"prequential": quality - 0.1} for metric in ("ndcg@10", "recall@10")},
        "cost": {"updates": updates, "examples": 4, "parameters_written": 50.0, "seconds_per_update": 0.5},
    }
    (directory / "summary.json").write_text(json.dumps(content))


def test_numbers_are_chosen_rows_run_and_what_is_finished_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[dict[str, Any]] = []

    def execute(config: dict[str, Any], store: Any) -> None:
        tried.append(config)
        if config["row"] == "day" and config["seed"] == 2:
            raise UserError("it diverged")
        finish(config, store)

    monkeypatch.setattr(study, "execute", execute)
    given = [
        "streams=[turnover]",
        "rows=[hundred,day,never]",
        "described.turnover.tuned.epochs=[2,1]",
        "table.day.against=null",
    ]
    settings = study.read([f"runs={tmp_path}", *given])
    means = study.chosen(settings, "turnover")
    numbers = next(iter(means))
    assert numbers == (0.004, 2)  # the first of two alike
    assert len(means) == 6
    assert {(one["seed"], one["row"]) for one in tried} == {(100, "never"), (100, "day")}
    assert len(tried) == 3 + 6  # a base part for each rate
    tried.clear()
    assert study.chosen(settings, "turnover") == means
    assert tried == []

    jobs, failures = study.reported_on(settings, "turnover", numbers)
    assert failures == ["turnover, day, seed 2: it diverged"]
    assert [(one["seed"], one["row"]) for one in tried[:5]] == [
        (0, "never"), (1, "never"), (2, "never"), (0, "hundred"), (0, "day"),
    ]  # fmt: skip
    assert {one["base"] for one in tried[3:5]} == {str(jobs[0].directory)}
    tried.clear()
    assert study.reported_on(settings, "turnover", numbers) == (jobs, failures)
    assert [(one["seed"], one["row"]) for one in tried] == [(2, "day")]  # the one that failed
    capsys.readouterr()

    report.write(settings, {"turnover": means}, study.collected(settings, jobs))
    text = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.startswith(f"\n{text}")
    lines = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    assert "**turnover**: 4 tested events, 2 seeds" in text  # seed 2 lacks a row
    assert lines["100 events"][1].startswith("0.3250 ± ")  # of four events: 3/4 · 0.1 - 1/4 · 0.3 = 0
    assert lines["100 events"][2] == "+0.0120 to a day"
    assert lines["a day"][2] == "**+0.2080** to never"
    assert lines["never"][2:4] == ["", ""]
    assert lines["100 events"][5:] == ["3", "2", "4", "150", "1.5"]
    assert lines["never"][5:] == ["0", "", "0", "0", "0"]
    assert lines["0.004, 2"][1] == "**0.9100**"
    assert imread(tmp_path / "freshness.png").shape[1] == 840


def test_rows_of_a_stream_differ_in_when_they_update_only() -> None:
    settings = study.read(["streams=[turnover,recurring]"])
    numbers = study.Numbers(0.004, 2)
    for stream in settings["streams"]:
        base = study.job(settings, stream, "never", 3, numbers)
        own = {
            row: study.job(settings, stream, row, 3, numbers, base.directory).config
            for row in settings["rows"]
            if row != "never"
        }
        assert list(own) == ["hundred", "four_hundred", "thousand", "ten_thousand", "day"]
        for key in ("model", "head", "optimizer", "training", "evaluation", "seed", "base", "update"):
            assert all(config[key] == own["hundred"][key] for config in own.values()), key
        everyone = [base.config, *own.values()]
        without_cut = [{**config["data"], "cut": config["data"]["cut"]["base"]} for config in everyone]
        assert all(data == without_cut[0] for data in without_cut)
        assert (base.config["training"]["epochs"], own["day"]["training"]["epochs"]) == (10, 2)
        assert base.config["update"]["window"] == 0
        assert base.config["data"]["source"]["seed"] == base.config["data"]["seed"] == 3
        assert (own["day"]["data"]["validation"], own["day"]["training"]["patience"]) == (0, 0)
        assert own["thousand"]["data"]["cut"]["each"] == 1000


def test_what_is_chosen_on_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated stream of another seed, and of MovieTweetings what is before the reported events."""
    monkeypatch.setattr(study, "require", lambda *_: None)
    settings = study.read([f"path={tmp_path}"])
    for stream in settings["streams"]:
        reported, tuned = (
            study.job(settings, stream, "day", seed, study.Numbers(0.004, 1)).config for seed in (0, 100)
        )
        assert "/reported/" in reported["runs"]
        assert "/tuning/" in tuned["runs"]
        if stream == "movietweetings":
            assert tuned["data"]["cleaning"]["before"] == reported["data"]["cut"]["base"]
            assert tuned["data"]["cut"]["base"] < reported["data"]["cut"]["base"]
        else:
            assert (tuned["data"]["source"]["seed"], reported["data"]["source"]["seed"]) == (100, 0)


def test_the_mean_is_of_events_and_not_of_increments(tmp_path: Path) -> None:
    settings = study.read([f"runs={tmp_path}", "streams=[turnover]"])
    one = study.job(settings, "turnover", "never", 0, study.Numbers(0.004, 1))
    finish(one.config, None)
    found = measured(one.directory)
    assert found.quality["ndcg@10"] == pytest.approx((3 * 0.2 - 0.2) / 4)  # the mean of increments is 0
    assert (found.events, found.between, found.updates, found.seconds) == (4, 2.0, 0, 0.0)


def test_rows_that_were_tested_on_other_events_are_refused(documented: Callable[[str, object], None]) -> None:
    one = Measured({"ndcg@10": 0.1}, 4000, 100.0, 40, 8000, 0.0, 0.0)
    found = {("turnover", "hundred"): [one], ("turnover", "never"): [one._replace(events=3999)]}
    with pytest.raises(UserError, match="the rows were not tested on the same events") as error:
        report.comparable(found)
    documented("rows of the freshness study that were tested on other events", error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "path: expected the folder of MovieTweetings"),
        (["path=nowhere"], "path=nowhere: there is no such folder"),
        (["rows=[weekly]"], "rows: 'weekly' is not one of hundred, four_hundred"),
        (["streams=[summer]"], "streams: 'summer' is not one of movietweetings, turnover"),
        (["streams=[turnover]", "seeds=[99,100]"], "seeds: 100 is tuning.seed"),
        (["seed=1"], "experiments/freshness/run: Could not override 'seed'; its options are streams"),
    ],
)
def test_wrong_settings_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        study.read(given)
