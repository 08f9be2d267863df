"""A run directory that a stranger has made runs nothing of theirs."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from incremental.app.bases import config_of
from incremental.app.trust import refuse_strangers
from incremental.errors import UserError
from incremental.report import read_runs
from incremental.report.cli import main as report
from incremental.serve import export, recommend
from incremental.serve.model import load
from tests.app.test_continuing import command, events, execute, only, write

PLANTED = """
import os
from pathlib import Path
Path(os.environ["INCREMENTAL_TEST_RAN"]).write_text("imported")
from incremental.models.popularity import popularity
def system(**kwargs):
    Path(os.environ["INCREMENTAL_TEST_RAN"]).write_text("called")
    return popularity()
def source(*, path: str): ...
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write(folder, events(160))
    execute(command(folder))
    return only(folder / "runs")


@pytest.fixture
def stranger(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """(old, new) -> the run with that text of its config replaced; whether anything of it ran is looked at after."""
    monkeypatch.setenv("INCREMENTAL_TEST_RAN", str(tmp_path / "ran"))
    (tmp_path / "planted_module.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)

    def changed(old: str, new: str) -> Path:
        run = shutil.copytree(made, tmp_path / "runs" / "theirs", dirs_exist_ok=True)
        text = (made / "config.yaml").read_text()
        assert old in text
        (run / "config.yaml").write_text(text.replace(old, new))
        return run

    yield changed
    assert not (tmp_path / "ran").exists()


MODEL = "incremental.models.popularity.popularity"
SYSTEM = MODEL, "planted_module.system"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        SYSTEM,
        (MODEL, "os.system\n  command: echo"),
        (MODEL, "incremental.app.contents.os.system"),  # through a module of this package
        (MODEL, "incremental.app.rundir.Path"),  # what this package imports is not of it
        (MODEL, "incremental.__main__.main"),  # importing it runs it
        (f"{MODEL}\n", f"{MODEL}\n  nested: [{{_target_: planted_module.system}}]\n"),
        ("data:\n", "data:\n  task: {_target_: planted_module.system}\n"),
        ("data:\n", "data:\n  features: {mine: {_target_: planted_module.system}}\n"),
        ("- ndcg@5", "- {_target_: planted_module.system}"),
    ],
)
def test_another_package_s_factory_is_refused_and_not_imported(
    stranger: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(os, "system", called.append)
    with pytest.raises(UserError, match=r"is not of this package|has no factory|no module|cannot be read"):
        load(stranger(old, new))
    assert not called


def test_every_command_that_reads_runs(
    stranger: Callable[[str, str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str, object], None],
) -> None:
    run = stranger(*SYSTEM)
    assert recommend.main([str(run), "--user", "5"]) == 2
    said = capsys.readouterr().err.removeprefix("error: ")
    documented("a run whose config names a factory of another package", said)
    assert "model._target_ is 'planted_module.system', a factory that is not of this package" in said
    assert "--plugin planted_module" in said
    assert export.main([str(run), "--to", str(tmp_path / "out")]) == 2
    assert report([str(run), "--no-html"]) == 0
    assert len(read_runs([run]).finished) == 1
    write(tmp_path, events(160))
    with pytest.raises(UserError, match=r"base=.*: its model is another"):
        execute(command(tmp_path, f"base={run}"))


def test_what_the_model_does_not_need_is_not_asked_for(stranger: Callable[[str, str], Path]) -> None:
    """The run holds its data: the source is not imported, nor the tracker; with other data the source is."""
    run = stranger("incremental.data.sources.columns.columns", "planted_module.source")
    assert load(run).recommend("5", 1)
    with pytest.raises(UserError, match=r"data\.source\._target_ is 'planted_module\.source'"):
        load(run, data="events.csv")
    assert load(stranger("incremental.app.tracking.tracker", "planted_module.system")).recommend("5", 1)


def test_a_plugin_that_the_user_names_is_trusted(made: Path) -> None:
    config = config_of(made)
    config["model"] = {"_target_": "some_plugin.models.theirs"}
    refuse_strangers(config, ["some_plugin"], "config.yaml")
    for others in ([], ["some"], ["some_plugin.models.theirs"], ["some_plugin_too"]):
        with pytest.raises(UserError, match=r"is 'some_plugin\.models\.theirs'.*--plugin some_plugin "):
            refuse_strangers(config, others, "config.yaml")


def test_nothing_in_a_run_s_config_is_resolved(
    stranger: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like an interpolation is text, and reads no variable of this machine."""
    monkeypatch.setenv("INCREMENTAL_TEST_SECRET", "secret")
    run = stranger("label: null", "label: ${oc.env:INCREMENTAL_TEST_SECRET}")
    assert config_of(run)["label"] == "${oc.env:INCREMENTAL_TEST_SECRET}"


@pytest.mark.parametrize("text", ["a: [", "- 1", "seed: 0", "data: 3"])
def test_a_config_that_is_none_is_named(stranger: Callable[[str, str], Path], text: str) -> None:
    run = stranger("seed", "seed")
    (run / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: "):
        load(run)
