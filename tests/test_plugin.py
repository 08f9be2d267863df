"""A strategy in a user's own package, installed beside the wheel, without the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = [
    "tracking=disabled",
    "data.source.events=1500",
    "data.source.users=60",
    "data.source.items=80",
    "data.cut.increments=2",
    "model=matrix_factorization",
    "optimizer=sgd",
    "training.epochs=2",
    "training.patience=0",
    "training.batch_size=64",
]
SEARCH = "hydra.searchpath=[pkg://example_plugin.configs]"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels installed by pip."""
    folder = tmp_path_factory.mktemp("plugin")
    for source in (ROOT, ROOT / "tests" / "plugin"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=source, capture_output=True, check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(folder / "site")]
    subprocess.run([*pip, *map(str, folder.glob("*.whl"))], capture_output=True, check=True)
    return folder / "site"


COMMANDS = {
    "target": ["+strategies.mine._target_=example_plugin.damped.damped"],
    "name": [SEARCH, "+strategy@strategies.mine=damped"],
    "plain": [],
    "taken": ["hydra.searchpath=[file://HERE/mine]", "+strategy@strategies.mine=replay"],
    "overridden": ["method=popularity"],
}
SCRIPT = f"""if True:
    import contextlib, io, json, os, sys
    from incremental.app.cli import main
    told = {{}}
    for runs, given in {COMMANDS}.items():
        sys.argv[1:] = [*{TINY}, *(one.replace("HERE", os.getcwd()) for one in given), "runs=" + runs]
        said, code = io.StringIO(), 0
        with contextlib.redirect_stderr(said):
            try:
                main()
            except SystemExit as stopped:
                code = stopped.code
        told[runs] = code, said.getvalue()
    with open("told.json", "w") as file:
        json.dump(told, file)
"""


@pytest.fixture(scope="module")
def folder(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands ran, in one process, which imports the libraries once: Python with `site` and the libraries
    but not the checkout on its path. `told.json` has their exit codes and what they said."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "mine" / "strategy").mkdir(parents=True)
    (folder / "mine" / "strategy" / "replay.yaml").write_text("_target_: example_plugin.damped.damped\n")
    path = os.pathsep.join([str(site), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # what one command compiled the next one reads
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def told(folder: Path, command: str) -> tuple[int, str]:
    """Its exit code, and what it said of errors."""
    code, said = json.loads((folder / "told.json").read_text())[command]
    return code, said


def test_a_strangers_strategy_runs_by_target_and_by_name(folder: Path) -> None:
    runs = ("target", "name", "plain")
    assert [told(folder, command)[0] for command in runs] == [0, 0, 0]
    target, name, plain = (json.loads(next(folder.glob(f"{each}/*/summary.json")).read_text()) for each in runs)
    assert target["metrics"] == name["metrics"] != plain["metrics"]
    assert target["row"] == "mine"


def test_a_file_by_a_taken_name_is_refused(folder: Path) -> None:
    code, said = told(folder, "taken")
    assert code == 2
    assert "strategy/replay.yaml have the same name" in said
    assert "rename the one that is yours" in said
    assert "Traceback" not in said


def test_a_row_whose_own_choice_is_overridden_is_refused(folder: Path) -> None:
    code, said = told(folder, "overridden")
    assert code == 2
    assert "method=popularity means model=popularity, the command line says model=matrix_factorization" in said
    assert "Traceback" not in said
