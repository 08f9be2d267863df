import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from incremental.errors import UserError
from incremental.report import read_runs
from incremental.report.runs import read_evaluations


def test_runs_are_found_below_a_folder_each_once(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study)
    found = read_runs([study, study / "sasrec-replay-1", study.parent, "."])
    assert len(found.finished) == 9
    assert found.unfinished == []
    run = next(run for run in found.finished if (run.row, run.seed) == ("replay", 1))
    assert run.name == "sasrec-replay"
    assert run.increments == 2
    assert run.metrics["ndcg@10"]["prequential"] == pytest.approx(0.31)
    assert run.cost["examples"] == 1200
    assert run.evaluations[0] == (0, 1, "ndcg@10", pytest.approx(0.33), 10)
    assert run.directory == study / "sasrec-replay-1"


def test_unfinished_runs_are_named_and_left_out(write_run: Any, tmp_path: Path) -> None:
    finished = write_run("replay", 0, [0.1])
    (killed := tmp_path / "runs/killed").mkdir()
    (killed / "config.yaml").write_text("seed: 1\n")
    (midway := tmp_path / "runs/midway").mkdir()
    (midway / "evaluations.csv").write_text("trained_until,evaluated_on,metric,value,count\n")
    diverged = write_run("ewc", 0, [0.1], status="diverged")
    found = read_runs([tmp_path])
    assert [run.directory for run in found.finished] == [finished]
    why = {unfinished.directory: unfinished.why for unfinished in found.unfinished}
    assert set(why) == {killed, midway, diverged}
    assert why[killed] == "no summary.json: still running, killed, or ended by an error; the same command goes on"
    assert "diverged" in why[diverged]


def test_other_folders_with_a_config_are_not_runs(write_run: Any, tmp_path: Path) -> None:
    run = write_run("replay", 0, [0.1])
    for folder, text in {
        "configs": "defaults:\n  - model: sasrec\n",
        ".hydra": "seed: 1\n",
        "wandb/offline-run/files": "seed: 1\n",
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.yaml").write_text(text)
    (run / "files").mkdir()
    (run / "files/config.yaml").write_text("seed: 1\n")
    found = read_runs([tmp_path])
    assert [found.directory for found in found.finished] == [run]
    assert found.unfinished == []


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder\. Name run directories"):
        read_runs([tmp_path / "nowhere"])
    (tmp_path / "summary.json").touch()
    with pytest.raises(UserError, match=r"summary.json: a file\. Name run directories"):
        read_runs([tmp_path / "summary.json"])


def test_a_broken_run_is_left_out_and_the_others_are_read(
    write_run: Any, monkeypatch: pytest.MonkeyPatch, documented: Any, tmp_path: Path
) -> None:
    good, bad, linked, cells, closed = (write_run("ewc", seed, [0.1]) for seed in range(5))
    (bad / "summary.json").write_text("{")
    (linked / "summary.json").unlink()
    (linked / "summary.json").symlink_to("gone.json")
    (cells / "evaluations.csv").write_text("trained_until\n")
    walked = os.walk(tmp_path)

    def walk(path: Path, onerror: Any) -> Any:
        for folder, children, files in walked:
            if Path(folder) == closed:
                onerror(PermissionError(13, "Permission denied", str(path / folder)))
            else:
                yield folder, children, files

    monkeypatch.setattr(os, "walk", walk)
    found = read_runs([tmp_path])
    assert [run.directory for run in found.finished] == [good]
    assert [each.directory for each in found.unfinished] == [bad, linked, cells, closed]
    for situation, each in zip(
        ("a run with a broken summary", "a run whose summary is a link to nothing", "a run with broken evaluations",
         "a run that may not be entered"), found.unfinished, strict=True):  # fmt: skip
        documented(f"{situation}, in a report", f"Left out: {each.directory} ({each.why}).")


def left_out(directory: Path) -> str:
    """Why the run is not reported."""
    found = read_runs([directory])
    assert found.finished == []
    return found.unfinished[0].why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": None}, "row must be a text, found None"),
        ({"seed": "0"}, "seed must be a whole number, found '0'"),
        ({"seed": True}, "seed must be a whole number, found True"),
        ({"metrics": []}, r"metrics must be an object, found \[\]"),
        ({"metrics": {"ndcg@10": 0.1}}, "metrics.ndcg@10 must be an object, found 0.1"),
        (
            {"metrics": {"ndcg@10": {"prequential": "x"}}},
            "metrics.ndcg@10.prequential must be a number or null, found 'x'",
        ),
        ({"cost": {"examples": True}}, "cost.examples must be a number or null, found True"),
        ({"increments": 1.5}, "increments must be a whole number, found 1.5"),
    ],
)
def test_a_wrong_summary_names_file_and_key(write_run: Any, change: dict[str, Any], message: str) -> None:
    directory = write_run("replay", 0, [0.1], **change)
    assert re.search(f"summary.json: {message}", left_out(directory))


@pytest.mark.parametrize("key", ["row", "seed", "metrics"])
def test_a_summary_without_a_key_names_it(write_run: Any, key: str) -> None:
    path = write_run("replay", 0, [0.1]) / "summary.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    assert re.search(rf"summary\.json: {key} is missing", left_out(path.parent))


@pytest.mark.parametrize("text", ["", '{"row": "rep', "\xff"])
def test_a_summary_that_is_not_json_names_the_file(write_run: Any, text: str) -> None:
    path = write_run("replay", 0, [0.1]) / "summary.json"
    path.write_bytes(text.encode("latin-1"))
    assert re.search(r"summary\.json: not readable as JSON", left_out(path.parent))


def test_a_summary_that_is_a_list_is_refused(write_run: Any) -> None:
    path = write_run("replay", 0, [0.1]) / "summary.json"
    path.write_text("[1]")
    assert re.search(r"summary.json: expected an object", left_out(path.parent))


def test_not_a_number_in_a_summary_is_not_measured(write_run: Any) -> None:
    directory = write_run("replay", 0, [0.1], metrics={"ndcg@10": {"prequential": math.nan}})
    assert read_runs([directory]).finished[0].metrics["ndcg@10"]["prequential"] is None


HEADER = "trained_until,evaluated_on,metric,value,count\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header must be trained_until,"),
        ("a,b\n", "the header must be .* found 'a,b'"),
        (HEADER + "0,1,ndcg@10,0.5,3\n0,1,ndcg@10\n", "line 3: expected 5 columns, found 3"),
        (HEADER + "0,1,ndcg@10,high,3\n", "line 2, column value: expected a number, found 'high'"),
        (HEADER + "x,1,ndcg@10,0.5,3\n", "line 2, column trained_until: expected a number, found 'x'"),
        (HEADER + "-2,1,ndcg@10,0.5,3\n", "column trained_until: expected a whole number of at least -1"),
        (HEADER + "0,-1,ndcg@10,0.5,3\n", "column evaluated_on: expected a whole number of at least 0"),
        (HEADER + "0,1,ndcg@10,0.5,2.5\n", "column count: expected a whole number"),
        (HEADER + "0,nan,ndcg@10,0.5,2\n", "column evaluated_on: expected a whole number"),
        (HEADER + "0,1,ndcg@10,0.5,3\n0,1,ndcg@10,0.4,3\n", "line 3: the same evaluation"),
    ],
)
def test_broken_evaluations_name_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "evaluations.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"evaluations\.csv.*{message}"):
        read_evaluations(path)


def test_missing_evaluations_name_the_file(write_run: Any) -> None:
    directory = write_run("replay", 0, [0.1])
    (directory / "evaluations.csv").unlink()
    assert left_out(directory).startswith("evaluations.csv: cannot be read")


def test_an_empty_value_is_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.csv"
    path.write_text(HEADER + "0,1,ndcg@10/cold_users,,0\n")
    assert math.isnan(read_evaluations(path)[0][3])
