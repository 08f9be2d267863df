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


def python(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with `site` and the libraries but not the checkout on its path."""
    path = os.pathsep.join([str(site), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}])
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # what one command compiled the next one reads
        },
        capture_output=True,
        text=True,
    )


def incremental(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command."""
    return python(site, folder, "-m", "incremental", *TINY, *arguments)


def test_a_strangers_strategy_runs_by_target_and_by_name(site: Path, tmp_path: Path) -> None:
    """Three commands in one process, which imports the libraries once."""
    commands = {
        "target": ["+strategies.mine._target_=example_plugin.damped.damped"],
        "name": [SEARCH, "+strategy@strategies.mine=damped"],
        "plain": [],
    }
    script = f"""if True:
        import sys
        from incremental.app.cli import main
        shared = sys.argv[1:]
        for runs, given in {commands}.items():
            sys.argv[1:] = [*shared, *given, "runs=" + runs]
            main()
    """
    done = python(site, tmp_path, "-c", script, *TINY)
    assert done.returncode == 0, done.stderr
    target, name, plain = (json.loads(next(tmp_path.glob(f"{runs}/*/summary.json")).read_text()) for runs in commands)
    assert target["metrics"] == name["metrics"] != plain["metrics"]
    assert target["row"] == "mine"


def test_a_file_by_a_taken_name_is_refused(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "strategy"
    folder.mkdir(parents=True)
    (folder / "replay.yaml").write_text("_target_: example_plugin.damped.damped\n")
    search = f"hydra.searchpath=[file://{tmp_path / 'mine'}]"
    done = incremental(site, tmp_path, search, "+strategy@strategies.mine=replay")
    assert done.returncode == 2
    assert "strategy/replay.yaml have the same name" in done.stderr
    assert "rename the one that is yours" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_row_whose_own_choice_is_overridden_is_refused(site: Path, tmp_path: Path) -> None:
    done = incremental(site, tmp_path, "method=popularity")
    assert done.returncode == 2
    assert "method=popularity means model=popularity, the command line says model=matrix_factorization" in done.stderr
    assert "Traceback" not in done.stderr
