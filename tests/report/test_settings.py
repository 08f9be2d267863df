import re
from pathlib import Path
from typing import Any

import pytest

from incremental.report import Run, read_runs
from incremental.report.settings import Settings, differing, flat


def test_a_configuration_by_dotted_key() -> None:
    config = {
        "seed": 0,
        "strategies": {"anchor": {"_target_": "incremental.strategies.ewc.ewc", "weight": 1.0}},
        "evaluation": {"metrics": ["ndcg@10", "recall@20"]},
        "debug": None,
    }
    assert flat(config) == {
        "seed": 0,
        "strategies.anchor": "ewc",
        "strategies.anchor.weight": 1.0,
        "evaluation.metrics": "ndcg@10 recall@20",
        "debug": None,
    }


def test_the_settings_of_a_run_are_its_file(write_run: Any) -> None:
    directory = write_run(
        "ewc", 1, [0.1], config="optimizer: {_target_: incremental.core.optimizers.adam, clip: 1.0e-05}\n"
    )
    run = read_runs([directory]).finished[0]
    assert run.settings == {
        "seed": 1,
        "row": "ewc",
        "name": "sasrec-ewc",
        "optimizer": "adam",
        "optimizer.clip": 1e-5,
    }
    (directory / "config.yaml").unlink()
    assert read_runs([directory]).finished[0].settings == {"seed": 1, "row": "ewc", "name": "sasrec-ewc"}


@pytest.mark.parametrize("text", ["a: [", "- 1\n"])
def test_a_broken_configuration_is_named(write_run: Any, text: str) -> None:
    directory: Path = write_run("ewc", 0, [0.1])
    (directory / "config.yaml").write_text(text)
    found = read_runs([directory])
    assert re.match(r"config\.yaml: (cannot be read|expected the configuration)", found.unfinished[0].why)


def test_differences_are_of_what_matters() -> None:
    one: Settings = {
        "seed": 0,
        "data.seed": 0,
        "runs": "a",
        "tracking.mode": "auto",
        "model": "sasrec",
        "model.width": 32,
        "lr": 0.1,
    }
    other: Settings = {"seed": 1, "data.seed": 1, "runs": "b", "model": "gru4rec", "lr": 0.2, "clip": 1.0}
    assert differing([one, other]) == {
        "clip": ["1", "absent"],
        "lr": ["0.1", "0.2"],
        "model": ["gru4rec", "sasrec"],
    }
    assert differing([one, {**one, "seed": 5}]) == {}


def test_a_run_made_in_python_has_a_row_and_a_seed() -> None:
    assert Run("ewc", 3, {}).settings == {"row": "ewc", "seed": 3}
