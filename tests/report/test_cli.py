import ast
import graphlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from incremental import report
from incremental.report.cli import main


def test_table_on_stdout_and_page_in_the_first_folder(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(study)]) == 0
    out, err = capsys.readouterr()
    assert "0.3100 ± 0.0745*" in out
    place = study / "report.html"
    assert f"page with pictures: {place}" in err
    assert place.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("name", "start"),
    [("markdown", "| strategy"), ("latex", "% ndcg@10"), ("csv", "row,metric"), ("terminal", " ")],
)
def test_formats_go_to_a_file_or_to_stdout(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, start: str
) -> None:
    assert main([str(study), "--format", name, "--no-html"]) == 0
    printed = capsys.readouterr().out
    assert printed.lstrip("\n").startswith(start) or name == "terminal"
    assert not (study / "report.html").exists()
    target = tmp_path / "table.txt"
    assert main([str(study), "--format", name, "--no-html", "--output", str(target)]) == 0
    assert target.read_text(encoding="utf-8") == printed
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("unrendered")
def test_metric_baseline_and_page_are_chosen(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "page.html"
    assert main([str(study), "--metric", "ndcg@10", "--baseline", "replay", "--html", str(place)]) == 0
    assert "paired t-test against replay" in capsys.readouterr().out
    assert place.exists()
    assert not (study / "report.html").exists()


@pytest.mark.usefixtures("unrendered")
def test_factors_are_chosen(write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("sasrec", "gru4rec"):
        for weight in (0.1, 1.0):
            config = f"model: {{_target_: {model}}}\nstrategies: {{anchor: {{weight: {weight}}}}}\n"
            write_run("ewc", 0, [weight / 10], folder=f"{model}-{weight}", config=config)
    runs, key = str(tmp_path), "strategies.anchor.weight"
    assert main([runs, "--no-html"]) == 2
    assert f"--rows row,model --sensitivity {key}." in capsys.readouterr().err
    assert main([runs, "--no-html", "--rows", f"row, {key}", "--columns", "model", "--format", "markdown"]) == 0
    assert "| row, weight | gru4rec: ndcg@10 |" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main([runs, "--rows", "row,model", "--sensitivity", key, "--html", str(page)]) == 0
    assert "against the value of the hyper-parameter" in page.read_text(encoding="utf-8")


def test_the_first_increments_may_be_left_out(write_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run("ewc", 0, [0.9, 0.1])
    assert main([str(directory), "--no-html", "--after", "1", "--format", "markdown"]) == 0
    assert "| ewc | 1 | 0.1000 |" in capsys.readouterr().out


@pytest.mark.usefixtures("unrendered")
def test_unfinished_runs_are_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (killed := study / "killed").mkdir()
    (killed / "config.yaml").write_text("seed: 0\n")
    assert main([str(study)]) == 0
    assert f"Left out: {killed} (no summary.json" in capsys.readouterr().err
    assert f"Left out: {killed}" in (study / "report.html").read_text(encoding="utf-8")


def test_no_runs_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evaluations.csv").write_text("")
    assert main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"no finished runs in {tmp_path}. Name the folder that your runs were written to" in err
    assert f"Left out: {tmp_path}" in err


def test_mistakes_are_explained_without_a_traceback(write_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run("replay", 0, [0.1])
    (directory / "summary.json").write_text("{")
    assert main([str(directory)]) == 2
    assert f"Left out: {directory} (summary.json: not readable as JSON" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = study / "no-such-folder" / "page.html"
    assert main([str(study), "--html", str(place)]) == 2
    assert f"{place}: cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("unrendered")
def test_a_folder_whose_name_is_not_utf8_has_a_page_and_a_file(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.rename(named := tmp_path / os.fsdecode(b"l\xe4ufe"))
    target, place = tmp_path / "table.csv", tmp_path / "page.html"
    assert main([str(named), "--format", "csv", "--output", str(target), "--html", str(place)]) == 0
    for file in (target, place):
        assert "l?ufe/sasrec-replay-1" in file.read_text(encoding="utf-8")
    assert "no such character" not in capsys.readouterr().err


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from incremental.report.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'jax', 'matplotlib', 'scipy', 'polars', 'jinja2', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--baseline" in done.stdout
    # Not the time on the clock, which other programs have a part in.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 2


def test_a_whole_report_needs_no_jax(study: Path) -> None:
    program = (
        "import sys\n"
        "from incremental.report.cli import main\n"
        f"assert main([{str(study)!r}]) == 0\n"
        "assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout


def test_the_report_has_no_circle_of_imports() -> None:
    folder = Path(report.__file__).parent
    places = {
        ".".join(("incremental.report", *path.relative_to(folder).with_suffix("").parts)): path
        for path in folder.rglob("*.py")
    }
    graph = {}
    for name, path in places.items():
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        of = {node.module or "" for node in imports}
        graph[name] = (of | {f"{node.module}.{each.name}" for node in imports for each in node.names}) & places.keys()
    graphlib.TopologicalSorter(graph).prepare()


EPOCHS = """increment,epoch,loss,validation,term/data,term/ewc
0,1,3.0,0.1,3.0,0.0
0,2,2.0,,2.0,0.0
1,1,4.0,0.2,3.5,0.5
"""


def test_rows_whose_names_differ_in_signs_have_a_picture_each(write_run: Any, tmp_path: Path) -> None:
    for row in ("a=1", "a=-1"):
        write_run(row, 0, [0.1], R=[[0.5, 0.2]] * 2)
    assert main([str(tmp_path), "--no-html", "--figures", str(tmp_path / "to"), "--figure-format", "svg"]) == 0
    maps = {path.name for path in (tmp_path / "to").iterdir() if path.name.startswith("matrix")}
    assert maps == {"matrix-ndcg-10-a-1.svg", "matrix-ndcg-10-a-1-2.svg"}


def test_the_pages_pictures_are_files_too(write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = write_run("ewc", 0, [0.1, 0.2], R=[[0.5, 0.2, 0.1]] * 3, epochs=EPOCHS)
    two = write_run("si", 0, [0.1, 0.2])  # a file's format is not the picture's matter
    some = {"over-time-ndcg-10", "against-cost-ndcg-10"}
    for ending, start, directory, names in (
        ("svg", b"<?xml", every, some | {"loss", "validation", "matrix-ndcg-10-ewc"}),
        ("pdf", b"%PDF", two, some),
        ("png", b"\x89PNG", two, some),
    ):
        options = ["--no-html", "--figures", str(tmp_path / ending), "--figure-format", ending]
        assert main([str(directory), *options]) == 0
        files = {path.name: path.read_bytes() for path in (tmp_path / ending).iterdir()}
        assert files.keys() == {f"{name}.{ending}" for name in names}
        assert all(content.startswith(start) for content in files.values())
        assert f"figures: {len(names)} files in {tmp_path / ending}" in capsys.readouterr().err
        assert main([str(directory), *options]) == 0
        assert files == {path.name: path.read_bytes() for path in (tmp_path / ending).iterdir()}
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    assert main([str(two), "--no-html", "--figures", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'}: cannot be written" in capsys.readouterr().err
