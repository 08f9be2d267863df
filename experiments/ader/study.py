"""The rows of ADER's table as runs, each after the base part that it begins with."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import files, running
from experiments.ader import table
from experiments.running import Job
from incremental.app import cli
from incremental.errors import UserError
from incremental.shell import enter, reported


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """The study's configuration, checked."""
    config = cli.study(Path(__file__).with_name("study.yaml"), arguments)
    if config.path is None:
        raise UserError(
            "path: a value is needed, the folder with period_0.txt, period_1.txt, …: path=FOLDER; "
            f"{files.DIGINETICA.name} is at {files.DIGINETICA.address}"
        )
    if config.increments is not None and (not isinstance(config.increments, int) or config.increments < 1):
        raise UserError(f"increments={config.increments}: expected a number of test periods, at least 1, or null")
    known = {"rows": config.table, "dataset": config.datasets, "variant": config.variants}
    for key, names in known.items():
        given = [config[key]] if isinstance(config[key], str) else list(config[key])
        for name in given:
            if name not in names:
                raise UserError(f"{key}: {name!r} is not one of {', '.join(names)}")
    return cli.resolved(config)


def tested(study: dict[str, Any]) -> int:
    """How many periods are tested: those asked for, or every one after the first."""
    periods: int | None = study["increments"]
    return periods if periods is not None else len([*Path(study["path"]).glob("period_*.txt")]) - 1


def job(study: dict[str, Any], row: str, seed: int, periods: int | None, *own: Any) -> Job:
    """A run over the first `periods` test periods, or all; later overrides win."""
    given = [
        study["common"],
        study["variants"][study["variant"]],
        own,
        study["overrides"],
        f"row={row}",
        f"+update.last={(tested(study) if periods is None else periods) - 1}",  # nothing tests an update after it
    ]
    given.append(f"runs={study['runs']}/{study['dataset']}/{study['variant']}")
    if periods is not None:
        given += [f"data.source.periods={periods + 1}", f"data.until={periods}"]
    return running.job(row, seed, given)


def base(study: dict[str, Any], name: str, seed: int) -> Job:
    """The run that trains the first period for all rows of a base; it tests the second one, and stops."""
    return job(study, f"base-{name}", seed, 1, study["bases"][name], "update=static")


def jobs(study: dict[str, Any]) -> list[Job]:
    """The rows' runs, each after the base that it begins with, in the order of the configuration."""
    planned: list[Job] = []
    for seed in study["seeds"]:
        bases: dict[str, Job] = {}
        for row in study["rows"]:
            of = study["table"][row]
            if of["base"] not in bases:
                bases[of["base"]] = base(study, of["base"], seed)
                planned.append(bases[of["base"]])
            begun = f"base={bases[of['base']].directory}"
            own = (study["bases"][of["base"]], of["as"], begun)
            planned.append(job(study, row, seed, study["increments"], *own))
    return planned


def main() -> None:
    """The command line: overrides of study.yaml."""
    enter()
    with reported():
        study = read(sys.argv[1:])
        said = files.wrong(Path(study["path"]), files.DIGINETICA) if study["dataset"] == "diginetica" else []
        for line in [*said, *([f"{files.DIGINETICA.name}: {files.DIGINETICA.address}"] if said else [])]:
            print(f"note: {line}", file=sys.stderr)
        known = table.published_of(study["path"])
        planned = jobs(study)
        running.run(planned)
        found = table.measured([(each.row, each.directory) for each in planned if each.row in study["table"]])
        print(table.table(found, list(study["table"]), known, table.Asked(len(study["seeds"]), tested(study))))
        print(f"\ncurves: {table.draw(found, Path(study['runs']) / study['dataset'] / study['variant'], known)}")


if __name__ == "__main__":
    main()
