"""The rows of the study as runs: the static one first, whose base part the others begin with."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import running
from experiments.pisa import table
from experiments.running import Job
from incremental.app import cli
from incremental.errors import UserError
from incremental.shell import enter, reported


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
    if config.negatives not in config.heads:
        raise UserError(f"negatives={config.negatives}: expected one of {', '.join(config.heads)}")
    return cli.resolved(config)


def job(study: dict[str, Any], row: str, seed: int, *own: str) -> Job:
    """A run; later overrides win."""
    given = [study["common"], study["heads"][study["negatives"]], study["table"][row]["as"], own, study["overrides"]]
    return running.job(row, seed, [*given, f"row={row}", f"runs={study['runs']}"])


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


def main() -> None:
    """The command line: overrides of study.yaml."""
    enter()
    with reported():
        study = read(sys.argv[1:])
        planned = jobs(study)
        running.run(planned)
        print(table.table([(each.row, each.directory) for each in planned], table.published_of(Path(study["path"]))))


if __name__ == "__main__":
    main()
