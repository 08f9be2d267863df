"""Names stay as they were typed, and a run's configuration is read back as it was written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from hydra_plugins.incremental_study.sweeper import rows
from incremental.app import names
from incremental.app.rundir import LONGEST, Literal, RunDirectory
from incremental.errors import UserError
from incremental.report.settings import read_config

Documented = Callable[[str, object], None]
PARSER = OverridesParser.create()


@pytest.mark.parametrize(
    ("given_", "read"),
    [
        ("name=1_1_1", "name='1_1_1'"),
        ("name=true", "name='true'"),
        ("runs=2024_11_05", "runs='2024_11_05'"),
        ("base=20241105", "base='20241105'"),
        ("+label=1e5", "+label='1e5'"),
        ("row=1e5,nan,b 2", "row='1e5','nan',b 2"),
        ("row=null", "row=null"),  # the default
        ("row=on", "row=on"),
        ("name='a,1_0,b'", "name='a,1_0,b'"),
        ("runs=${oc.env:HOME}/5", "runs=${oc.env:HOME}/5"),
        ("seed=1_0", "seed=1_0"),
        ("name=", "name="),
        ("-m", "-m"),
    ],
)
def test_a_name_that_looks_like_a_number_is_a_text(given_: str, read: str) -> None:
    assert names.typed(given_) == read


@given(st.from_regex(r"[-+]?[0-9][0-9_]*(\.[0-9_]+)?(e[-+]?[0-9]+)?|true|false|inf|nan", fullmatch=True))
def test_hydra_reads_every_such_name_as_it_was_typed(text: str) -> None:
    assert PARSER.parse_override(names.typed(f"name={text}")).value() == text


@pytest.mark.parametrize("home", ["/home/ada", "/home/ada b", "/home/zoë", "/home/o'hara"])
def test_a_path_from_home_is_one_although_shells_leave_it(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    for given_ in ("data.source.path=~/x y.csv", "runs=~/x y.csv", "runs='~/x y.csv'", 'base="~/x y.csv"'):
        assert PARSER.parse_override(names.typed(given_)).value() == f"{home}/x y.csv"
    for same in ("runs=x~/y", "name='~/x'", "data.text.path='~/m'", "~data.cut", "study=a,~/b"):
        assert names.typed(same) == same


def test_the_rows_of_a_study_keep_their_names(tmp_path: Path, documented: Documented) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("common: [seed=1]\nrows:\n  1e5: [name=1_0]\n  on: []\n  2024-01-01: []\n  1_000: []\n")
    found = rows(file)
    assert [*found] == ["1e5", "on", "2024-01-01", "1_000"]
    assert found["1e5"] == ["seed=1", "name='1_0'"]
    file.write_text("rows:\n  on: []\n  yes: []\n")
    with pytest.raises(UserError, match="two names of rows are one to YAML") as error:
        rows(file)
    documented("a study's rows with names that YAML makes one", error.value)


def refused(**config: Any) -> str:
    with pytest.raises(UserError) as error:
        names.check({"runs": "runs", **config})
    return str(error.value)


def test_names_that_no_folder_or_table_can_have_are_refused(documented: Documented) -> None:
    documented("a name that leaves the folder of the runs", refused(name="../x"))
    documented("a name of a hidden folder", refused(name=".x"))
    documented("a name of a run that is too long", refused(name="ü" * 60))
    documented("a row of two lines", refused(row="one\ntwo"))
    documented("a name that a YAML file gives as a number", refused(name=20241105))
    documented("a folder of runs that a YAML file gives as a number", refused(runs=1.5))
    assert "expected a text" in refused(label=True)
    for name in ("..", "a/../../b", "a\\..\\b", ".", "x\udcff", "\x1b[31m"):
        assert refused(name=name)
    for fine in ("exp/ewc", "50%", "why?", "ünï", "a..b", "two words", "-x", "lr:0.1", None):
        names.check({"runs": "runs", "name": fine, "row": fine})


def directory(root: Path, name: str, **config: Any) -> RunDirectory:
    return RunDirectory(root, name, {"seed": 0, "devices": {}, "runs": str(root), **config})


def test_a_run_lies_in_its_folder_whatever_its_name(tmp_path: Path) -> None:
    for name in ("exp/ewc", "why?", "a#b", "x" * 100, "ü" * 50, "label"):
        path = directory(tmp_path, name, label="y=" + "z" * 300).path
        assert path.parent == tmp_path
        assert len(path.name.encode()) < LONGEST + 30
    (one, other) = (directory(tmp_path, "x" * 100, label="y" * 300, model=model).path for model in "ab")
    assert one != other


LITERAL = {
    "name": "${x}", "path": "\\${seed}/$(date)", "row": "1e5", "label": "1_1", "a": "on", "b": "nan", "c": "null",
    "d": "2024-11-05", "e": 1e-05, "f": [1, "2", True, None], "g": "a: b #c", "h": "zwei\nZeilen", "i": "\x85", "j": "",
    "k": "/K\udcffn.csv", "l": float("inf"), "m": "é漢" * 60, "n": {"_target_": "x", "weight": 0.1},
}  # fmt: skip


def test_a_configuration_is_read_back_as_it_was(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, "literal", {"seed": 0, "devices": {}, **LITERAL})
    run.open()
    assert read_config(run.path / "config.yaml") == run.config
    again = RunDirectory(tmp_path, "literal", read_config(run.path / "config.yaml"))
    assert again.identity == run.identity
    run.close()


@given(st.recursive(st.text() | st.integers() | st.booleans() | st.none(), lambda each: st.lists(each), max_leaves=3))
def test_every_reader_of_yaml_reads_the_same_values(value: Any) -> None:
    text = yaml.dump({"key": value}, Dumper=Literal, sort_keys=False, allow_unicode=True)
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        assert yaml.load(text, Loader=loader) == {"key": value}
