"""Runs the rows of the study one after the other; what is finished is not run again, what was stopped goes on."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.pisa import table
from incremental.app import cli
from incremental.app.cli import compilation_cache
from incremental.app.experiment import execute, named
from incremental.app.rundir import RunDirectory
from incremental.errors import UserError
from incremental.shell import enter, reported


class Job(NamedTuple):
    """One run."""

    row: str
    seed: int
    overrides: list[str]
    """of the `incremental` command"""
    config: dict[str, Any]

    @property
    def directory(self) -> Path:
        """Where it is, or will be."""
        return RunDirectory(Path(self.config["runs"]), self.config["name"], self.config).path


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """The study's configuration, checked."""
    config = cli.study(Path(__file__).with_name("study.yaml"), arguments)
    if config.path is None:
        raise UserError("path: a value is needed, the folder with interactions.csv (Amazon Games): path=FOLDER")
    if not (Path(config.path) / "interactions.csv").is_file():
        raise UserError(f"path={config.path}: there is no interactions.csv; give the folder that holds it")
    for row in config.rows:
        if row not in config.table:
            raise UserError(f"rows: {row!r} is not one of {', '.join(config.table)}")
    return cli.resolved(config)


def flat(overrides: Any) -> Iterator[str]:
    """The overrides in lists of lists."""
    for each in [overrides] if isinstance(overrides, str) else overrides:
        yield from [each] if isinstance(each, str) else flat(each)


def job(study: dict[str, Any], row: str, seed: int, *own: str) -> Job:
    """A run; later overrides win."""
    given = [study["common"], study["table"][row]["as"], own, study["overrides"]]
    overrides = list(flat([*given, f"row={row}", f"seed={seed}", f"runs={study['runs']}"]))
    config, choices = cli.composed(overrides)
    return Job(row, seed, overrides, named(cli.resolved(config), choices))


def jobs(study: dict[str, Any]) -> list[Job]:
    """The runs, seed by seed; the static one first, whose base part the others begin with."""
    planned = []
    for seed in study["seeds"]:
        static = job(study, "static", seed)
        planned.append(static)
        for row in study["rows"]:
            if row != "static":
                shared = [f"base={static.directory}"] if study["table"][row]["base"] else []
                planned.append(job(study, row, seed, *shared))
    return planned


def run(planned: Iterable[Job]) -> None:
    """Every job that is not finished."""
    compilation_cache()
    for each in planned:
        if not (each.directory / "summary.json").exists():
            print(f"\nincremental {' '.join(each.overrides)}", flush=True)
            execute(each.config)


def main() -> None:
    """The command line: overrides of study.yaml."""
    enter()
    with reported():
        study = read(sys.argv[1:])
        planned = jobs(study)
        run(planned)
        print(table.table([(each.row, each.directory) for each in planned], table.published_of(Path(study["path"]))))


if __name__ == "__main__":
    main()
