"""What tests of whole runs share."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from incremental.app import experiment
from incremental.app.assemble import Parts, assemble
from incremental.app.experiment import execute
from incremental.run import alone
from incremental.run.alone import Build
from tests import lab
from tests.app.small import BOTH, composed, only

BUILDS: dict[str, Build] = {}  # by all that says what is built, and on which data


@pytest.fixture(scope="module")
def one_program() -> Iterator[None]:
    """Runs that build the same share its compiled functions, from test to test."""

    def assembled(config: Any, *stream: Any) -> Parts:
        parts = assemble(config, *stream)
        apart = ("runs", "name", "row", "seed", "base", "update", "devices")  # tables' sizes are arguments
        own = {name: node for name, node in config.items() if name not in apart}
        return parts._replace(build=BUILDS.setdefault(json.dumps(own), cache(parts.build)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "assemble", assembled)
        patched.setattr(alone, "Functions", lab.functions)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with replay and EWC."""
    runs = tmp_path_factory.mktemp("runs")
    execute(composed(runs, *BOTH, "evaluation.matrix=true"))
    return only(runs)
