"""Runs of a study, one after the other: what is finished is not run again, what was stopped goes on."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from incremental.app import cli
from incremental.app.experiment import execute, named
from incremental.app.rundir import RunDirectory


class Job(NamedTuple):
    """One run.

    Attributes:
        row: what the study's table calls it
        seed
        overrides: of the `incremental` command
        config: that they compose
    """

    row: Any
    seed: int
    overrides: list[str]
    config: dict[str, Any]

    @property
    def directory(self) -> Path:
        """Where it is, or will be."""
        return RunDirectory(Path(self.config["runs"]), self.config["name"], self.config).path


def job(row: Any, seed: int, given: Any) -> Job:
    """The run with these overrides, in lists of lists; later ones win."""
    overrides = [*flat(given), f"seed={seed}"]
    config, choices = cli.composed(overrides)
    return Job(row, seed, overrides, named(cli.resolved(config), choices))


def flat(overrides: Any) -> Iterator[str]:
    """The overrides in lists of lists."""
    for each in [overrides] if isinstance(overrides, str) else overrides:
        yield from [each] if isinstance(each, str) else flat(each)


def run(planned: Iterable[Job]) -> None:
    """Every job that is not finished."""
    cli.compilation_cache()
    for each in planned:
        if not (each.directory / "summary.json").exists():
            print(f"\nincremental {' '.join(each.overrides)}", flush=True)
            execute(each.config)
