"""`incremental -m study=FILE`: rows with grids of their own, and directories that say what differs."""

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.incremental_study.sweeper import StudySweeper, rows
from incremental.app.rundir import RunDirectory
from incremental.errors import UserError
from incremental.report import read_runs, table
from tests.app.test_sweep import called

STUDY = """
common: [training.epochs=2, training.batch_size=64, model=matrix_factorization, model.width=4]
rows:
  finetune: [method=finetune]
  replay: [method=replay, "strategies.replay.capacity=20,50,80"]
  ewc: [method=ewc, "strategies.ewc.weight=1,10"]
"""


def jobs(*arguments: str) -> list[list[str]]:
    sweeper = StudySweeper(max_batch_size=None, params=None)
    (batch,) = sweeper.split_arguments(OverridesParser.create().parse_overrides(list(arguments)), None)
    return batch


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path / "study.yaml"


def test_each_row_has_a_grid_of_its_own(study: Path) -> None:
    found = jobs(f"study={study}", "seed=0,1,2", "tracking=disabled")
    assert len(found) == (1 + 3 + 2) * 3
    labels = [next(one for one in job if one.startswith("row=")) for job in found]
    assert list(dict.fromkeys(labels)) == [
        "row='finetune'",
        *(f"row='replay capacity={n}'" for n in (20, 50, 80)),
        *(f"row='ewc weight={n}'" for n in (1, 10)),
    ]
    assert all("tracking=disabled" in job and "training.epochs=2" in job for job in found)
    assert not any(one.startswith(("study=", "label=")) for job in found for one in job)


def test_the_command_lines_own_values_win_and_are_told(study: Path) -> None:
    found = jobs(f"study={study}", "training.epochs=5", "optimizer.learning_rate=0.1,0.2", "seed=0")
    assert all("training.epochs=5" in job and "training.epochs=2" not in job for job in found)
    assert found[0][-1] == "label='learning_rate=0.1'"


def test_what_a_row_loses_to_the_command_line_is_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs(f"study={study}", "training.epochs=5", "model=popularity", "strategies.ewc.weight=3", "seed=0")
    said = "note: row ewc: strategies.ewc.weight=3 of the command line replaces strategies.ewc.weight=1,10\n"
    assert capsys.readouterr().err == said  # and nothing of what the rows have in common


def test_a_plain_sweep_is_hydras() -> None:
    assert jobs("seed=0,1", "a=x,y") == [
        ["seed=0", "a=x", "label='a=x'"],
        ["seed=0", "a=y", "label='a=y'"],
        ["seed=1", "a=x", "label='a=x'"],
        ["seed=1", "a=y", "label='a=y'"],
    ]
    assert jobs("method=finetune,ewc", "seed=0") == [["method=finetune", "seed=0"], ["method=ewc", "seed=0"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [a]", "expected rows: {NAME:"),
        ("rows: {a: [x=1]}\nrow: 3", "row: unknown key; a study has rows and common"),
        ("rows: {a: x=1}", "a: expected a list of overrides as on the command line, got 'x=1'"),
        ("rows: {a: [", "not YAML"),
    ],
)
def test_a_file_that_is_no_study_says_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        rows(tmp_path / "wrong.yaml")
    assert f"study={tmp_path / 'wrong.yaml'}: " in str(error.value)
    assert message in str(error.value)
    with pytest.raises(UserError, match="a folder; expected a YAML file with rows"):
        rows(tmp_path)
    with pytest.raises(UserError, match="no such file; expected a YAML file with rows"):
        rows(tmp_path / "none.yaml")


def test_a_directory_says_what_differs_and_is_found_without(tmp_path: Path) -> None:
    config = {"seed": 0, "devices": {}, "strategies": {}}
    made = RunDirectory(tmp_path, "sasrec-ewc weight=1", {**config, "label": "learning_rate=0.1,width=3"})
    assert made.path.name == f"sasrec-ewc-weight=1-learning_rate=0.1,width=3-seed0-{made.identity}"
    made.path.mkdir()
    assert RunDirectory(tmp_path, "sasrec-ewc weight=1", config).path == made.path


def test_memory_sizes_and_weights_over_seeds_in_one_command(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study.write_text(STUDY.replace("20,50,80", "20,50"))
    monkeypatch.chdir(study.parent)
    source = ["data.source.events=1200", "data.source.users=60", "data.source.items=80", "data.cut.increments=1"]
    # Nothing here looks at what they learn: each of the four programs is as short as it can be.
    source += ["update.window=0", "optimizer=sgd", "training.patience=0"]
    arguments = ["-m", "hydra/launcher=packed", "study=study.yaml", "seed=0,1", "tracking=disabled", *source]
    assert called(monkeypatch, "incremental", *arguments) == 0
    directories = sorted(path.parent for path in study.parent.glob("runs/*/summary.json"))
    assert len(directories) == 10
    assert sum(path.name.startswith("matrix_factorization-replay-capacity=50-seed") for path in directories) == 2
    made = table(read_runs([study.parent / "runs"]).finished)
    assert {row.label for row in made.rows} == {
        *["finetune", "ewc weight=1", "ewc weight=10"],
        *(f"replay capacity={n}" for n in (20, 50)),
    }
    assert made.baseline == "finetune"
    assert all(len(row.runs) == 2 for row in made.rows)
    assert json.loads((directories[0] / "summary.json").read_text())["status"] == "finished"
