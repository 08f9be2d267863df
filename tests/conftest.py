"""What all tests share."""

import functools
import gc
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest

# Traces are many small objects that live on: collections would be a tenth of the suite's time.
gc.set_threshold(50_000, 20, 20)
# Before jax is imported. The laws compare bits on the host, whatever device is there.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is XLA's compilation. The first line has it optimise less, the second compiles a program in
# one part, as the workers have the cores already. The third gives eight devices, for what runs on several; all else
# runs on the first.
FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1 "
    "--xla_force_host_platform_device_count=8"
)
# The older code generator needs half the time. XLA ends a process that names it where it has it no more.
OLDER = " --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}{OLDER}".strip()
# As the workers have the cores, threads of a small table's columns would wait for one another.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
# Of the processes that tests start as users do, which compile otherwise than the tests. Programs are kept for the next
# time, in a folder a worker, for JAX does not write entries atomically.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
OWN = Path(__file__).parents[1] / ".pytest_cache" / "programs" / WORKER
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(OWN)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# No law depends on how fast the machine is.
hypothesis.settings.register_profile("laws", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("laws")
# `from tests import lab` for a plain `pytest` too; `python -m pytest` has the folder on the path anyway.
sys.path.insert(0, str(Path(__file__).parents[1]))

from incremental import shell  # noqa: E402
from tests import errors  # noqa: E402


def pytest_collection_finish() -> None:
    """What was imported and collected stays until the end: no later collection looks at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real data sets, or a skip."""
    named = os.environ.get("INCREMENTAL_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data: set INCREMENTAL_DATA to the folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> None:
    """What a test compiles draws its random bits in C, and is there for the others."""
    from tests import programs

    programs.install(write=False)


@pytest.fixture(scope="session", autouse=True)
def _configs_read_once() -> None:
    """What Hydra composes it composes of files that this process read before."""
    from tests import composing

    composing.install()


@pytest.fixture
def shared_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one program share its compiled functions, from test to test."""
    from incremental.run import alone
    from tests import lab

    monkeypatch.setattr(alone, "Functions", lab.functions)


@pytest.fixture
def shared_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study's runs of one program share its compiled functions."""
    from experiments import running
    from incremental.app.bases import Store
    from incremental.app.experiment import execute

    monkeypatch.setattr(running, "execute", functools.partial(execute, store=Store()))


@pytest.fixture(autouse=True)
def _notes_are_new() -> None:
    """What one test was told once, the next one is told again."""
    shell.once.cache_clear()


@pytest.fixture
def documented(tmp_path: Path) -> Callable[[str, object], None]:
    """`documented(situation, message)`: this row of docs/errors.md says what the program says.

    `scripts/document_errors` writes the page: it runs these tests, which then append their rows to its file.
    """

    def told(situation: str, message: object) -> None:
        row = errors.row(situation, str(message).replace(str(tmp_path), "FOLDER"))
        written = os.environ.get(errors.VARIABLE)
        if written:
            with Path(written).open("a", encoding="utf-8") as file:
                file.write(row)
        else:
            assert row in errors.PAGE.read_text(encoding="utf-8"), f"run scripts/document_errors; not there: {row}"

    return told


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests whose messages are in docs/errors.md are marked."""
    for item in items:
        if "documented" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.documented)
