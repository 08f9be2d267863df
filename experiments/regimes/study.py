"""Chooses each row's number, runs the rows over the regimes, and draws the page; what is finished is not run again."""

import contextlib
import copy
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from experiments.regimes import report
from experiments.regimes.choice import Choice
from incremental.app import cli, sweep
from incremental.app.cli import compilation_cache, headline
from incremental.app.experiment import named
from incremental.errors import UserError
from incremental.shell import enter, reported


class Job(NamedTuple):
    """One run of a row."""

    regime: str
    row: str
    number: float | None
    """the candidate that it tries; None: it is reported"""
    config: dict[str, Any]

    @property
    def directory(self) -> Path:
        """Where it is, or will be."""
        return sweep.directory_of(self.config).path

    @property
    def value(self) -> float | None:
        """Its prequential quality, once it is finished."""
        return headline(self.config, sweep.finished(self.config))

    def __str__(self) -> str:
        return f"{self.regime} {self.row} seed {self.config['seed']}"


# -- what is to be run -----------------------------------------------------------------------------------------------


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """The study's configuration, checked."""
    study = cli.resolved(cli.study(Path(__file__).with_name("study.yaml"), arguments))
    for name in study["regimes"]:
        if not (cli.config_folder() / "data" / f"{name}.yaml").exists():
            raise UserError(f"regimes: there is no configs/data/{name}.yaml")
    for name in study["rows"]:
        if name not in study["table"]:
            raise UserError(f"rows: {name!r} is not one of {', '.join(study['table'])}")
    if study["baseline"] not in study["rows"]:
        raise UserError(f"rows: {study['baseline']} is the baseline and must be one of them")
    for name, row in study["table"].items():
        if "search" in row and len(row["search"]["values"]) != study["tuning"]["candidates"]:
            raise UserError(f"table.{name}.search.values: expected tuning.candidates={study['tuning']['candidates']}")
    return study


composed = cache(cli.composed)  # rows and seeds of one regime differ in numbers only


def job(study: dict[str, Any], regime: str, row: str, numbers: Mapping[str, Any], number: float | None = None) -> Job:
    """A run of the row in the regime with these values of its config, by dotted key."""
    common = [*study["common"], f"data={regime}", "data.seed=${seed}", f"row={row}"]
    common += [f"evaluation.matrix={study['matrix']}", f"data.heldout={0.1 if study['matrix'] else 0.0}"]
    config, choices = composed((*common, *study["overrides"], *study["table"][row]["as"]))
    config = copy.deepcopy(config)
    runs = f"{study['runs']}/{'reported' if number is None else 'tuning'}/{regime}"
    for key, value in {**numbers, "runs": runs}.items():
        OmegaConf.update(config, key, value)
    return Job(regime, row, number, named(cli.resolved(config), choices))


def trials(study: dict[str, Any], regime: str, row: str, numbers: Mapping[str, Any]) -> list[Job]:
    """A run for each candidate and seed, on a stream that ends with the first increments."""
    tuning, searched = study["tuning"], study["table"][row]["search"]
    n = tuning["increments"]
    part = {"data.seed": tuning["stream"], "data.until": n, "update.last": n - 1}  # nothing tests an update at n
    return [
        job(study, regime, row, {**numbers, **part, searched["key"]: number, "seed": seed}, number)
        for number in searched["values"]
        for seed in tuning["seeds"]
    ]


def judged(study: dict[str, Any], regime: str, row: str, jobs: Sequence[Job]) -> Choice:
    """The trials' means; a candidate of which a run failed, for instance because it diverged, has none."""
    values: dict[float, list[float | None]] = {}
    for one in jobs:
        values.setdefault(one.number or 0.0, []).append(one.value)
    means = {number: sum(map(float, own)) / len(own) for number, own in values.items() if None not in own}  # type: ignore[arg-type]
    if not means:
        raise UserError(f"{regime} {row}: no candidate has a value; mend what the errors above say, and start again")
    return Choice(regime, row, study["table"][row]["search"]["key"], means)


def chosen(study: dict[str, Any]) -> list[Choice]:
    """Every row's choice in every regime: the baseline's first, which is the rate of all, then the others' with it."""
    done: list[Choice] = []
    others = [row for row in study["rows"] if row != study["baseline"] and "search" in study["table"][row]]
    for rows in ([study["baseline"]], others):
        planned = {
            (regime, row): trials(study, regime, row, numbers_of(study, done, regime, row))
            for regime in study["regimes"]
            for row in rows
        }
        tried(planned.values())
        done += [judged(study, *place, jobs) for place, jobs in planned.items()]
    return done


def numbers_of(study: dict[str, Any], choices: Sequence[Choice], regime: str, row: str) -> dict[str, float]:
    """What a row has in a regime: the baseline's number and its own."""
    rows = (study["baseline"], row)
    return {each.key: each.number for each in choices if each.regime == regime and each.row in rows}


def jobs(study: dict[str, Any], choices: Sequence[Choice]) -> list[Job]:
    """The runs that are reported, seed by seed, so that a part of them is a table of fewer seeds."""
    return [
        job(study, regime, row, {**numbers_of(study, choices, regime, row), "seed": seed})
        for seed in study["seeds"]
        for regime in study["regimes"]
        for row in study["rows"]
    ]


# -- running ---------------------------------------------------------------------------------------------------------


def tried(planned: Iterable[Sequence[Job]]) -> None:
    """The trials that are not finished, the candidates and seeds of a row as lanes of one program."""
    left = [one for jobs in planned for one in jobs if one.value is None]
    if left:
        print(f"choosing: {len(left)} runs, those of a row as lanes of one program", flush=True)
        sweep.use_every_core()
        sweep.run([sweep.Job(f"{one}: {one.number:g}", one.config) for one in left])


def settle(cores: Any) -> None:
    """Keeps a worker on a core of its own, so that what runs beside it does not count in its seconds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})


def together(jobs: Sequence[sweep.Job]) -> list[str]:
    """Runs of one stream and seed, one after the other and silently; what kept some from their ends."""
    compilation_cache()
    with (
        open(os.devnull, "w", encoding="utf-8") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        outcomes = sweep.run(jobs)
    return [
        f"{one.name}: {outcome}" for one, outcome in zip(jobs, outcomes, strict=True) if isinstance(outcome, UserError)
    ]


def run(planned: Sequence[Job], workers: int | None) -> list[str]:
    """Every job that is not finished, a process a core, each with the rows of one stream; returns what went wrong."""
    parts: dict[tuple[int, str], list[sweep.Job]] = {}
    for one in planned:
        if one.value is None:
            place = one.config["seed"], one.regime
            parts.setdefault(place, []).append(sweep.Job(str(one), one.config))
    if not parts:
        return []
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
    workers = min(workers or len(cores), len(parts))
    print(f"running {sum(map(len, parts.values()))} of {len(planned)} runs, {workers} at once", flush=True)
    context = multiprocessing.get_context("spawn")
    free = context.Queue()
    for worker in range(workers):
        free.put(cores[worker % len(cores)])
    started, failures = time.monotonic(), []
    with ProcessPoolExecutor(workers, mp_context=context, initializer=settle, initargs=(free,)) as pool:
        running = {pool.submit(together, jobs): place for place, jobs in parts.items()}
        try:
            for count, future in enumerate(as_completed(running), 1):
                seed, regime = running[future]
                failures += future.result()
                rest = (time.monotonic() - started) / 60 / count * (len(parts) - count)
                told = f"{regime}, seed {seed}: {len(parts[seed, regime])} runs"
                print(f"  {count}/{len(parts)}  {told}; about {rest:.0f} min left", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def main() -> None:
    """The command line: overrides of study.yaml."""
    enter()
    with reported():
        study = read(sys.argv[1:])
        choices = chosen(study)
        planned = jobs(study, choices)
        failures = run(planned, study["workers"])
        report.write(study, choices, [(one.regime, one.directory) for one in planned if one.value is not None])
        if failures:
            raise UserError("\n".join([f"{len(failures)} runs failed; the table is without them:", *failures]))


if __name__ == "__main__":
    main()
