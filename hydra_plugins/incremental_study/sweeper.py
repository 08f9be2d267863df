"""What Hydra finds when it looks for plugins: light, for it looks at each start.

As Hydra's own sweeper, with two things more: `study=FILE` sweeps over the rows of a file, each with grids of its own,
and each job is told what it differs in (`label`), for the name of its folder.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

UNTOLD = ("seed", "method", "model", "row", "name", "runs", "label", "study")
"""keys that a folder's name has anyway, or that do not belong there"""


class StudySweeper(Sweeper):
    """All combinations of the values given on the command line, for each row of the study where there is one."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}
        self.hydra_context: HydraContext | None = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from incremental.app.jobs import launched, summed_up
        from incremental.shell import reported

        with reported():
            given = self.parse([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
            batches = self.split_arguments(given, self.max_batch_size)
            folder = Path(str(self.config.hydra.sweep.dir))
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.config, folder / "multirun.yaml")
            returns: list[list[Any]] = []
            loader = self.hydra_context and self.hydra_context.config_loader
            for batch in batches:
                first = sum(map(len, returns))
                returns.append(launched(self.launcher, loader, self.config, batch, first))
            summed_up([job for batch in batches for job in batch], [one for own in returns for one in own])
            return returns

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """The jobs' overrides, in batches."""
        from incremental.app.overrides import quoted

        file = next((str(one.value()) for one in overrides if one.get_key_element() == "study"), None)
        given = [one for one in overrides if one.get_key_element() != "study"]
        labels = [one.get_key_element() for one in given if one.is_sweep_override() and told(one.get_key_element())]
        jobs = []
        studied = rows(Path(file)) if file else {"": []}
        common = set.intersection(*map(set, studied.values()))
        for name, own in studied.items():
            parsed = self.parse(own)
            tell_replaced(name, [one for one in parsed if one.input_line not in common], given)
            grid = [one.get_key_element() for one in parsed if one.is_sweep_override()]
            for job in combined([*parsed, *given]):
                row = " ".join([name, *(f"{short(key)}={job[key]}" for key in grid if key != "seed")])
                if name:
                    job.setdefault("row", quoted(row))
                if labels:
                    job.setdefault("label", quoted(",".join(f"{short(key)}={job[key]}" for key in labels)))
                jobs.append([f"{key}={value}" for key, value in job.items()])
        size = max_batch_size or max(len(jobs), 1)
        return [jobs[first : first + size] for first in range(0, len(jobs), size)]

    def parse(self, overrides: list[str]) -> list[Override]:
        """Overrides, by the rules of the command line."""
        from incremental.app.overrides import check

        check(overrides, multirun=True)
        parser = OverridesParser.create(config_loader=self.hydra_context and self.hydra_context.config_loader)
        return list(parser.parse_overrides(overrides))


def combined(overrides: Sequence[Override]) -> list[dict[str, str]]:
    """Every combination of the values, by key; of a key given twice the last counts. Intervals have no combinations."""
    from incremental.errors import UserError

    values: dict[str, list[str]] = {}
    for one in overrides:
        if not one.is_sweep_override():
            values[one.get_key_element()] = [one.get_value_element_as_str()]
        elif one.is_discrete_sweep():
            values[one.get_key_element()] = [*one.sweep_string_iterator()]
        else:
            raise UserError(f"{one.input_line}: an interval is searched by hydra/sweeper=optuna (docs/sweeps.md)")
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def tell_replaced(row: str, own: Sequence[Override], given: Sequence[Override]) -> None:
    """Notes what a row says itself and the command line says otherwise: the row may no longer be what its name says."""
    from incremental.shell import once

    said = {one.get_key_element(): one for one in given}
    for one in own:
        other = said.get(one.get_key_element())
        if other is not None and other.input_line != one.input_line:
            once(f"note: row {row}: {other.input_line} of the command line replaces {one.input_line}")


def rows(file: Path) -> dict[str, list[str]]:
    """The rows of a study's file, each with the overrides that make it, those of `common` first."""
    import yaml

    from incremental.app.names import typed
    from incremental.errors import UserError

    if not file.is_file():
        what = "a folder" if file.is_dir() else "no such file"
        raise UserError(f"study={file}: {what}; expected a YAML file with rows: {{NAME: [OVERRIDE, ...]}}")
    try:
        read: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"study={file}: cannot be read ({str(error).splitlines()[0]})") from None
    except Exception as error:  # of the YAML parser, which has no common class in OmegaConf
        raise UserError(f"study={file}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(read, Mapping) or not isinstance(read.get("rows"), Mapping) or not read["rows"]:
        raise UserError(f"study={file}: expected rows: {{NAME: [OVERRIDE, ...]}}")
    if unknown := sorted(read.keys() - {"rows", "common"}):
        raise UserError(f"study={file}: {unknown[0]}: unknown key; a study has rows and common")
    # Of YAML's keys some are numbers and truth values; a row's name is a text.
    names = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)["rows"]
    if len(names) != len(read["rows"]):
        raise UserError(f"study={file}: two names of rows are one to YAML, such as on and yes; put them in quotes")
    by_name = dict(zip(names, read["rows"].values(), strict=True))
    found = {}
    for name, own in {
        "common": read.get("common") or [],
        **by_name,
    }.items():
        if not isinstance(own, list) or not all(isinstance(one, str) for one in own):
            raise UserError(f"study={file}: {name}: expected a list of overrides as on the command line, got {own!r}")
        found[name] = [*map(typed, own)]
    common = found.pop("common")
    return {name: [*common, *own] for name, own in found.items()}


def told(key: str) -> bool:
    """Whether a key that differs is part of a folder's name."""
    return key not in UNTOLD and "@" not in key and not key.startswith("hydra.")


def short(key: str) -> str:
    """The end of a dotted key."""
    return key.lstrip("+~").rpartition(".")[2]


@dataclass
class StudyConfig:
    """Hydra's own settings."""

    _target_: str = "hydra_plugins.incremental_study.sweeper.StudySweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudyConfig, provider="incremental")
