"""`method=NAME` is there for every update, strategy and baseline, a plugin's too."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from incremental.app import cli
from incremental.app.assemble import completed
from incremental.app.experiment import learned
from incremental.app.methods import names
from incremental.errors import UserError

FOLDER = cli.config_folder()


def composed(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(FOLDER), version_base="1.3"):
        values: Any = OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)
    return completed(values)


def refuse(*overrides: str) -> None:
    with hydra.initialize_config_dir(str(FOLDER), version_base="1.3"):
        config = hydra.compose("config", list(overrides), return_hydra_config=True)
    cli.refuse_contradictions(config.hydra.runtime)


def choices(group: str) -> set[str]:
    return {path.stem for path in (FOLDER / group).glob("*.yaml")}


def test_methods_are_the_updates_the_strategies_and_the_baselines() -> None:
    baselines = set()
    for name in choices("model") - {"encoder_items", "encoder_behaviour"}:  # these want a path
        if not learned(composed(f"model={name}")):
            baselines.add(name)
    assert {"popularity", "oracle"} <= baselines < choices("model")
    assert set(names([str(FOLDER)])) == choices("update") | choices("strategy") | baselines


def test_a_method_is_what_its_parts_are() -> None:
    assert composed("method=ring_replay") == {
        **composed("update=finetune", "+strategy@strategies.ring_replay=ring_replay"),
        "row": "ring_replay",
    }
    assert composed("method=window") == {**composed("update=window"), "row": "window"}
    assert composed("method=popularity") == {**composed("model=popularity"), "row": "popularity"}


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    """A user's configs: a strategy, an update, a baseline, a model with gradients, and a method of their own."""
    for name, text in {
        "strategy/mine": "_target_: incremental.strategies.replay.replay\ncapacity: 7\n",
        "update/weekly": "_target_: incremental.run.policy.update\nevery: 7\n",
        "model/mean": "_target_: incremental.models.popularity.popularity\n",
        "model/deep": "_target_: incremental.models.gru4rec.gru4rec\n",
        "method/both": "# @package _global_\ndefaults: [override /update: weekly]\nrow: two\n",
    }.items():
        file = tmp_path / "mine" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return f"hydra.searchpath=[file://{tmp_path / 'mine'}]"


def test_a_plugins_strategy_update_and_baseline_are_methods(plugin: str) -> None:
    assert composed(plugin, "method=mine")["strategies"]["mine"]["capacity"] == 7
    assert composed(plugin, "method=weekly")["update"]["every"] == 7
    assert composed(plugin, "method=mean")["model"]["_target_"].endswith("popularity")
    assert composed(plugin, "method=both")["row"] == "two"
    with pytest.raises(UserError, match=r"method=deep: there is ader, .*, both, .*, mean, .*mine, .*, weekly"):
        refuse(plugin, "method=deep")


def test_a_method_whose_choice_is_overridden_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        refuse("method=popularity", "model=sasrec")
    assert str(caught.value) == (
        "method=popularity means model=popularity, the command line says model=sasrec; leave one out. In a sweep, run "
        "method=popularity by a second command into the same runs=FOLDER, or give model= in the rows that need it "
        "(study=FILE, docs/sweeps.md)"
    )


@pytest.mark.parametrize("group", ["method", "experiment", "sweep"])
def test_a_choice_that_there_is_not_is_refused(group: str) -> None:
    wrong = {"method": "replai", "experiment": "quickstrat", "sweep": "tunning"}[group]
    right = {"method": "replay", "experiment": "quickstart", "sweep": "tuning"}[group]
    with pytest.raises(UserError, match=rf"{group}={wrong}: there is .*; did you mean {right}\?"):
        refuse(f"{group}={wrong}")


def test_help_and_globs_list_them() -> None:
    command = [sys.executable, "-m", "incremental"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert f"\nmethod: {', '.join(names([str(FOLDER)]))}\n" in shown
