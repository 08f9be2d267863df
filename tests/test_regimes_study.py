"""The study's path on a small stream: what is chosen on what, what is reported, resumed and drawn."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from experiments.regimes import report, study
from incremental.errors import UserError
from incremental.report import Run, Table, table

FIRST = "trained_until,evaluated_on,metric,value,count\n"


def finish(config: dict[str, Any]) -> None:
    """In place of a run: a directory whose quality is best at a learning rate of 0.002, and better with a strategy."""
    directory = study.sweep.directory_of(config).path
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(json.dumps(config))
    better = 0.01 * bool(config["strategies"]) * (1 + 0.001 * config["seed"])  # of each seed another difference
    quality = 0.3 - abs(config["optimizer"]["learning_rate"] - 0.002) + better
    last = config["data"].get("until") or 8
    lines = [f"{t - 1},{t},ndcg@10,{quality + 0.002 * t * config['seed']},9" for t in range(1, last + 1)]
    (directory / "evaluations.csv").write_text(FIRST + "\n".join(lines) + "\n")
    content = {
        "row": config["row"],
        "seed": config["seed"],
        "increments": last,
        "metrics": {"ndcg@10": {"prequential": quality}},
        "cost": {"seconds_per_update": 1.0 + config["seed"]},
    }
    (directory / "summary.json").write_text(json.dumps(content))


def test_numbers_are_chosen_rows_run_and_what_is_finished_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def run(jobs: list[study.sweep.Job]) -> list[UserError | None]:
        """All but a trial and a reported run."""
        tried.extend(job.name for job in jobs)
        failed = [job.name in ("recurring finetune seed 100: 0.0005", "recurring oracle seed 1") for job in jobs]
        for job, fails in zip(jobs, failed, strict=True):
            if not fails:
                finish(job.config)
        return [UserError("it diverged") if fails else None for fails in failed]

    monkeypatch.setattr(study.sweep, "run", run)
    monkeypatch.setattr(study.sweep, "use_every_core", lambda: None)
    monkeypatch.setattr(study, "compilation_cache", lambda: None)
    monkeypatch.setattr(study, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(workers))
    settings = study.read([f"runs={tmp_path}", "regimes=[recurring]", "rows=[finetune,replay,oracle]", "seeds=[0,1]"])
    choices = study.chosen(settings)
    lanes = settings["tuning"]["candidates"] * len(settings["tuning"]["seeds"])
    assert len(tried) == 2 * lanes
    assert tried[lanes : lanes + 2] == ["recurring replay seed 100: 0.1", "recurring replay seed 101: 0.1"]
    assert [(each.row, each.key, each.number) for each in choices] == [
        ("finetune", "optimizer.learning_rate", 0.002),
        ("replay", "strategies.it.weight", 0.1),  # all alike: the first
    ]
    assert len(choices[0].means) == 5  # without the candidate that diverged
    planned = study.jobs(settings, choices)
    assert study.run(planned, 1) == ["recurring oracle seed 1: it diverged"]
    assert "  2/2  recurring, seed 1: 3 runs; about 0 min left\n" in capsys.readouterr().out
    assert study.run(planned, None) == ["recurring oracle seed 1: it diverged"]
    assert "running 1 of 6 runs, 1 at once" in capsys.readouterr().out
    report.write(settings, choices, [(one.regime, one.directory) for one in planned if one.value is not None])
    text = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.startswith(f"\n{text}")
    lines = dict(line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| "))
    assert lines["ndcg@10, difference to finetune"] == "recurring"
    assert lines["finetune"] == "0.3065"  # over increments 5 to 8: 0.3, and 0.3 + 0.013
    assert lines["replay"] == "**+0.0100**"
    assert "Only increments after 4 count" in text
    assert (lines["finetune: learning_rate"], lines["replay: weight"]) == ("0.002", "**0.1**")
    assert "finetune: learning_rate | 0.002" in (tmp_path / "report.html").read_text()
    assert imread(tmp_path / "regimes.png").shape[1] == 2000

    tried.clear()
    assert [each.number for each in study.chosen(settings)] == [0.002, 0.1]
    assert tried == ["recurring finetune seed 100: 0.0005"]  # the one without a value


def test_rows_of_a_seed_differ_in_what_they_are_only() -> None:
    settings = study.read(["seeds=[3]", "regimes=[recurring]"])
    choices = [
        study.Choice("recurring", row, settings["table"][row]["search"]["key"], {7.0: 0.2, 0.5: 0.3, 0.6: 0.1})
        for row in settings["rows"]
        if "search" in settings["table"][row]
    ]
    planned = study.jobs(settings, choices)
    assert len({one.directory for one in planned}) == len(planned) == 16
    own = {one.row: one.config for one in planned}
    assert list(own) == settings["rows"] == list(settings["table"])
    for key in ("data", "optimizer", "training", "evaluation", "seed"):
        assert all(config[key] == own["finetune"][key] for config in own.values()), key
    assert own["ewc"]["data"]["source"]["seed"] == own["ewc"]["data"]["seed"] == 3
    assert own["ewc"]["optimizer"]["learning_rate"] == own["ewc"]["strategies"]["it"]["weight"] == 0.5
    assert own["ewc"]["strategies"]["it"]["samples"] == 512
    assert [own[row]["update"]["window"] for row in ("static", "finetune", "window", "retrain")] == [0, 1, 3, "all"]
    assert own["ema"]["row"] == "ema"
    assert own["ring"]["strategies"]["it"]["_target_"].endswith("ring_replay")


def test_what_is_chosen_on_is_not_reported() -> None:
    settings = study.read([])
    tuning = settings["tuning"]
    assert tuning["stream"] not in settings["seeds"]
    assert not set(tuning["seeds"]) & set(settings["seeds"])
    searched = {row: each["search"] for row, each in settings["table"].items() if "search" in each}
    assert {len(set(each["values"])) for each in searched.values()} == {tuning["candidates"]}
    for row, each in searched.items():
        jobs = study.trials(settings, "recurring", row, {"optimizer.learning_rate": 0.5})
        assert len(jobs) == tuning["candidates"] * len(tuning["seeds"])
        assert len({study.sweep.program_of(one.config) for one in jobs}) == 1  # lanes of one program
        for one in jobs:
            assert one.config["data"]["until"] == tuning["increments"] == one.config["update"]["last"] + 1
            assert one.config["data"]["source"]["seed"] == one.config["data"]["seed"] == tuning["stream"]
            if row != "finetune":
                assert one.config["optimizer"]["learning_rate"] == 0.5
        assert [one.number for one in jobs[:: len(tuning["seeds"])]] == each["values"]


@pytest.fixture
def made() -> Table:
    """Two regimes: replay is above fine-tuning in one, and as good in the other."""
    qualities = {
        "one": {"finetune": 0.2, "replay": 0.3, "oracle": 0.5, "static": 0.1},
        "two": {"finetune": 0.3, "replay": 0.3, "oracle": 0.6},
    }
    noise = np.random.default_rng(0)
    runs = [
        Run(
            row,
            seed,
            {"ndcg@10": {"prequential": value + 0.002 * noise.standard_normal()}},
            {"seconds_per_update": {"finetune": 1.0, "replay": 2.0, "oracle": 0.0, "static": 0.0}[row]},
            config={"regime": regime},
        )
        for regime, rows in qualities.items()
        for row, value in rows.items()
        for seed in range(5)
    ]
    return table(runs, columns=["regime"])


def test_the_table_marks_what_is_significant_and_the_place_in_the_readme_is_filled(made: Table, tmp_path: Path) -> None:
    settings = {**study.read([]), "regimes": ["one", "two"]}
    choices = [
        study.Choice("one", "replay", "strategies.it.weight", {0.1: 0.3, 0.25: 0.2}),
        study.Choice("two", "replay", "strategies.it.weight", {0.1: 0.2, 0.25: 0.3}),
    ]
    text = report.markdown(settings, made, choices)
    lines = dict(line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| "))
    marked, plain = lines["replay"].split(" | ")
    assert marked.startswith("**+0.1")
    assert marked.endswith("**")
    assert float(plain) == pytest.approx(0, abs=0.005)
    assert lines["finetune"].startswith("0.20")
    assert lines["static"].startswith("**-0.1")
    assert lines["static"].endswith("| –")
    assert lines["replay: weight"] == "**0.1** | 0.25"
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.published(readme, text)
    report.published(readme, text)
    assert readme.read_text() == f"before\n{report.BEGIN}\n\n{text}\n{report.END}\nafter\n"
    assert report.BEGIN in (report.HERE / "README.md").read_text()


def test_the_picture(made: Table, tmp_path: Path) -> None:
    figure = report.picture(made, "ndcg@10")
    figure.savefig(tmp_path / "regimes.png")
    drawn = [text.get_text() for part in figure.subfigs for axes in part.axes for text in axes.texts]
    assert {"finetune", "replay", "static"} <= set(drawn)  # the front's names
    assert any(text.startswith("+0.1") and text.endswith("*") for text in drawn)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["rows=[finetune,nothing]"], "rows: 'nothing' is not one of finetune, static"),
        (["rows=[replay]"], "rows: finetune is the baseline and must be one of them"),
        (["regimes=[summer]"], "regimes: there is no configs/data/summer.yaml"),
        (["tuning.candidates=3"], "table.finetune.search.values: expected tuning.candidates=3"),
        (["seed=1"], "experiments/regimes/run: Could not override 'seed'; its options are regimes"),
    ],
)
def test_wrong_settings_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        study.read(given)
