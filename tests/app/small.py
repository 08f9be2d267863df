"""Small runs by their command lines, which tests of many parts make."""

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from incremental.app import cli
from incremental.app.assemble import OWN
from incremental.app.experiment import named
from incremental.run import checkpoint

SMALL = [
    "data.source.users=60",
    "data.source.items=80",
    "data.source.events=2000",  # parts of at most 1,024 examples: one program serves them all
    "data.source.days=20",
    "data.cut.increments=2",
    "data.history=8",
    "model=matrix_factorization",
    "model.width=8",
    "training.batch_size=64",
    "training.epochs=3",
    "evaluation.metrics=[ndcg@10]",
    "tracking=disabled",
    "name=small",
]


BOTH = ["+strategy@strategies.memory=replay", "strategies.memory.rows=16", "+strategy@strategies.anchor=ewc",
        "strategies.anchor.samples=16"]  # fmt: skip


ANCHOR = BOTH[2:]


@cache
def chosen(*choices: str) -> Any:
    """The config of these choices, whose values may still be set: Hydra composes it once."""
    with hydra.initialize_config_dir(str(cli.config_folder()), version_base="1.3"):
        return hydra.compose("config", [*choices])


def composed(runs: Path, *overrides: str) -> dict[str, Any]:
    """The resolved config of a command line, later overrides winning."""
    given = {override.split("=")[0]: override for override in (*SMALL, *overrides)}
    values = [key for key in given if re.fullmatch(rf"\w+(\.\w+)+|{'|'.join(OWN)}", key)]
    config = copy.deepcopy(chosen(*(given[key] for key in given if key not in values)))
    for value in OverridesParser.create().parse_overrides([given[key] for key in values]):
        OmegaConf.update(config, value.key_or_group, value.value())
    config.runs = str(runs)
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    return named(resolved, {"model": "matrix_factorization", "update": "finetune"})


def only(folder: Path) -> Path:
    """The folder's one run directory."""
    (found,) = folder.iterdir()
    return found


class Stopped(Exception):
    """Stands for a kill."""


def stop_after_first_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run stops after its first save."""
    original = checkpoint.Checkpoints.save

    def stopping(self: Any, *args: Any) -> None:
        original(self, *args)
        raise Stopped

    monkeypatch.setattr(checkpoint.Checkpoints, "save", stopping)
