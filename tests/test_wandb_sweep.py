"""The W&B sweep of experiments/tuning: what an agent makes of the file is a command that `incremental` understands."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_configs import check, composed

FILE = Path(__file__).parents[1] / "experiments" / "tuning" / "wandb.yaml"


def edges(parameter: dict[str, Any]) -> list[Any]:
    """The least and the greatest value that a sweep may give."""
    return [parameter["min"], parameter["max"]] if "distribution" in parameter else parameter["values"]


def agents(sweep: dict[str, Any], which: int) -> list[str]:
    """The command line of one trial, put together as `wandb agent` does."""
    # Not above: each worker collects this file, and one of them needs what takes seconds to import.
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    given = {"args": {key: {"value": edges(own)[which]} for key, own in sweep["parameters"].items()}}
    made = {**utils.create_sweep_command_args(given), "env": ["/usr/bin/env"], "program": [sweep["program"]]}
    line: list[str] = []
    for part in utils.create_sweep_command(list(sweep["command"])):
        line += made[part[2:-1]] if part.startswith("${") else [part]
    return line


@pytest.mark.parametrize("which", [0, -1])
def test_a_trial_of_the_agent_composes(which: int) -> None:
    sweep = yaml.safe_load(FILE.read_text())
    line = agents(sweep, which)
    assert line[:2] == ["/usr/bin/env", "incremental"]
    values = composed(*line[2:])  # an unknown key does not compose
    check(values)
    assert values["data"]["until"] == 2
    assert values["seed"] == [0, 1][which]
    assert values["strategies"]["ewc"]["weight"] == [0.1, 1000][which]
    assert values["optimizer"]["learning_rate"] == [0.0003, 0.03][which]
    # What is maximised is where the tracker's summary has it.
    assert sweep["metric"]["name"] == f"metrics.{values['evaluation']['metrics'][0]}.prequential"
