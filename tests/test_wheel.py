"""A wheel built from the tree works from any folder, without the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HELP = """
import runpy, sys
import incremental
print(incremental.__file__)
sys.argv = ["incremental", "--help"]
try:
    runpy.run_module("incremental", run_name="__main__")
except SystemExit as exit:
    assert not exit.code, exit.code
heavy = {"jax", "flax", "optax", "orbax", "transformers", "wandb", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("incremental-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python says with the wheel on its path; -S leaves out the editable install of the checkout."""
    path = os.pathsep.join([str(installed), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}])
    done = subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_carries_every_config_and_the_licence(installed: Path) -> None:
    configs = {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    carried = {path.relative_to(installed / "incremental") for path in installed.rglob("*.yaml")}
    assert Path("configs/config.yaml") in carried
    assert carried == configs
    assert len(list(installed.glob("incremental-*.dist-info/licenses/LICENSE"))) == 1


def test_help_answers_from_another_folder_without_the_checkout_and_imports_nothing_heavy(
    installed: Path, tmp_path: Path
) -> None:
    where, *said = run(installed, tmp_path, "-c", HELP).splitlines()
    assert where == str(installed / "incremental" / "__init__.py")
    assert any("incremental" in line for line in said)
    assert list(tmp_path.iterdir()) == []


def test_the_packed_launcher_is_found(installed: Path, tmp_path: Path) -> None:
    assert "PackedLauncher" in run(installed, tmp_path, "-m", "incremental", "--info", "plugins")
