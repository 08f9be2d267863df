import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from incremental.errors import UserError
from incremental.report import Run, read_runs, table
from incremental.report.front import point
from incremental.report.runs import read_evaluations
from incremental.run.progress import Cost, Record, Result


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
        ({"early": ["packnet", 1]}, r"early must be a list of texts, found \['packnet', 1\]"),
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


def test_evaluations_that_were_cut_off_are_told(write_run: Any) -> None:
    """The pictures and --after would be of the increments that are left, and no number would say so."""
    directory = write_run("replay", 0, [0.1, 0.2], R=[[0.5, 0.2, 0.1]] * 3)
    path = directory / "evaluations.csv"
    lines = path.read_text().splitlines(keepends=True)
    for kept in (1, 2, len(lines) - 1):  # the header; without the last test; without the last entry of R
        path.write_text("".join(lines[:kept]))
        assert left_out(directory) == (
            "evaluations.csv: it ends before increment 2, the run's last one; copy the run again"
        )
    for whole in (lines, lines[:3]):  # with R and without
        path.write_text("".join(whole))
        assert len(read_runs([directory]).finished) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,0.5,0.1,0.7", "line 3: expected 4 columns, found more"),
        (",1,0.5,0.1", "line 3, column increment: expected a number, found ''"),
        ("1", "line 3, column epoch: expected a number, found None"),
        ("inf,1,0.5,0.1", "line 3, column increment: expected a whole number of at least 0, found 'inf'"),
        ("1,nan,0.5,0.1", "line 3, column epoch: expected a whole number of at least 0, found 'nan'"),
        ("1,1,high,0.1", "line 3, column loss: expected a number, found 'high'"),
    ],
)
def test_broken_epochs_name_file_line_and_column(write_run: Any, line: str, message: str) -> None:
    directory = write_run("replay", 0, [0.1], epochs=f"increment,epoch,loss,validation\n0,1,0.5,\n{line}\n")
    assert left_out(directory) == f"epochs.csv, {message}"


def test_a_result_of_this_process_is_the_run_that_it_would_be_on_disk() -> None:
    """So is its place in the front, which counts the increments without an update, and what the notes say of it."""
    cost = Cost(0, 1.0, 0.0, 0.0, 1.5, 10, 1, 5, 0, lanes=2)
    costs = (cost, cost._replace(increment=1, seconds=6.0), cost._replace(increment=2, epochs=0, seconds=0.0))
    tests = tuple(Record(t - 1, t, "ndcg@10", 0.1 * t, 10) for t in (1, 2))
    run = Run.of("drift", 0, Result(None, None, tests, costs, early=("packnet",)))
    assert (run.increments, run.lanes, run.early) == (2, 2, ("packnet",))
    found = table([run])
    spent = point(found.rows[0], "ndcg@10")
    assert spent is not None
    assert spent.cost == 3.0
    assert any(note.startswith("The rows of packnet do not start level") for note in found.notes)


def test_missing_evaluations_name_the_file(write_run: Any) -> None:
    directory = write_run("replay", 0, [0.1])
    (directory / "evaluations.csv").unlink()
    assert left_out(directory).startswith("evaluations.csv: cannot be read")


def test_an_empty_value_is_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.csv"
    path.write_text(HEADER + "0,1,ndcg@10/cold_users,,0\n")
    assert math.isnan(read_evaluations(path)[0][3])
