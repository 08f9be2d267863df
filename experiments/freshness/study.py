"""Chooses the rate and the epochs, runs every interval on every stream; what is finished is not run again."""

import contextlib
import copy
import os
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from experiments.files import MOVIETWEETINGS, require
from experiments.freshness import report
from experiments.freshness.measured import Measured, measured
from incremental.app import cli, sweep
from incremental.app.bases import Store
from incremental.app.experiment import execute, named
from incremental.errors import UserError
from incremental.shell import enter, reported


class Numbers(NamedTuple):
    """What is chosen for all rows and streams."""

    rate: float
    epochs: int


class Job(NamedTuple):
    """One run: how old the model may get, on a stream."""

    stream: str
    row: str
    seed: int
    config: dict[str, Any]

    @property
    def directory(self) -> Path:
        """Where it is, or will be."""
        return sweep.directory_of(self.config).path

    @property
    def finished(self) -> bool:
        return sweep.finished(self.config) is not None

    def __str__(self) -> str:
        return f"{self.stream}, {self.row}, seed {self.seed}"


# -- what is to be run -----------------------------------------------------------------------------------------------


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """The study's configuration, checked."""
    study = cli.resolved(cli.study(Path(__file__).with_name("study.yaml"), arguments))
    rows = study["table"]
    for key, own, there in (
        ("streams", study["streams"], study["described"]),
        ("rows", study["rows"], rows),
        ("tuning.rows", study["tuning"]["rows"], rows),
    ):
        for name in own:
            if name not in there:
                raise UserError(f"{key}: {name!r} is not one of {', '.join(there)}")
    if study["tuning"]["seed"] in study["seeds"]:
        raise UserError(f"seeds: {study['tuning']['seed']} is tuning.seed, whose streams are not reported")
    if "movietweetings" in study["streams"]:
        if study["path"] is None:
            raise UserError(
                f"path: expected the folder of {MOVIETWEETINGS.name}, which is at {MOVIETWEETINGS.address}; "
                "streams=[turnover,recurring] goes without"
            )
        require(Path(study["path"]), MOVIETWEETINGS)
    return study


composed = cache(cli.composed)  # the runs of a row on a stream differ in numbers and places only


def job(study: dict[str, Any], stream: str, row: str, seed: int, numbers: Numbers, base: Path | None = None) -> Job:
    """A run of the row on the stream, from the base part of the run `base`; without one it trains the base part. With
    the seed of the tuning, on the stream's events to choose on."""
    described, tuning = study["described"][stream], seed == study["tuning"]["seed"]
    part = described["tuned"] if tuning else {"as": [], "base": described["base"]}
    common = [*study["common"], f"evaluation.metrics=[{','.join(study['metrics'])}]", f"row={row}", *described["as"]]
    common += [*part["as"], *study["table"][row]["as"], f"data.cut.base='{part['base']}'"]
    config, choices = composed((*common, *study["overrides"]))
    config = copy.deepcopy(config)
    own = {
        "optimizer.learning_rate": numbers.rate,
        "training.epochs": study["base_epochs"] if base is None else numbers.epochs,
        "base": None if base is None else str(base),
        "seed": seed,
        "runs": f"{study['runs']}/{'tuning' if tuning else 'reported'}/{stream}",
    }
    for key, value in own.items():
        OmegaConf.update(config, key, value)
    return Job(stream, row, seed, named(cli.resolved(config), choices))


def updated(study: dict[str, Any], rows: Iterable[str], base: Job, numbers: Numbers) -> list[Job]:
    """The rows that update, from this base part; none where it failed."""
    rows = rows if base.finished else []
    return [job(study, base.stream, row, base.seed, numbers, base.directory) for row in rows if row != "never"]


def chosen(study: dict[str, Any], stream: str) -> dict[Numbers, float]:
    """The mean quality of each candidate over the tuning's rows, the best one first."""
    tuning, tuned, means = study["tuning"], study["described"][stream]["tuned"], dict[Numbers, float]()
    begun = {rate: job(study, stream, "never", tuning["seed"], Numbers(rate, 0)) for rate in tuned["rates"]}
    run(f"{stream}: base parts to choose on", [*begun.values()])
    candidates = [Numbers(*each) for each in product(tuned["rates"], tuned["epochs"])]
    tried = {each: updated(study, tuning["rows"], begun[each.rate], each) for each in candidates}
    run(f"{stream}: choosing", [one for own in tried.values() for one in own])
    for each, jobs in tried.items():
        found = [measured(one.directory).quality[study["metrics"][0]] for one in jobs if one.finished]
        if len(found) == len(tuning["rows"]):  # one that diverged has no value
            means[each] = sum(found) / len(found)
    if not means:
        raise UserError(f"{stream}: no candidate has a value; mend what the errors above say, and start again")
    return dict(sorted(means.items(), key=lambda item: -item[1]))


# -- running ---------------------------------------------------------------------------------------------------------


def run(title: str, jobs: Sequence[Job]) -> list[str]:
    """Runs what is not finished, one after the other, a line each; returns what kept some from their ends."""
    left, failures, store = [one for one in jobs if not one.finished], list[str](), Store()
    if left:
        print(f"{title}: {len(left)} of {len(jobs)} runs", flush=True)
    for count, one in enumerate(left, 1):
        started = time.monotonic()
        try:
            with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stdout(nothing):
                execute(one.config, store)
        except UserError as error:
            failures.append(f"{one}: {error}")
            print(f"  {failures[-1]}", flush=True)
        else:
            print(f"  {count}/{len(left)}  {one}: {time.monotonic() - started:.0f} s", flush=True)
    return failures


def collected(study: dict[str, Any], jobs: Iterable[Job]) -> dict[tuple[str, str], list[Measured]]:
    """By stream and row what each seed came to; a seed that lacks a row is left out, so that tests are paired."""
    own = {(one.stream, one.row, one.seed): one for one in jobs if one.finished}
    return {
        (stream, row): [
            measured(own[stream, row, seed].directory)
            for seed in study["seeds"]
            if all((stream, each, seed) in own for each in study["rows"])
        ]
        for stream, row in product(study["streams"], study["rows"])
    }


def reported_on(study: dict[str, Any], stream: str, numbers: Numbers) -> tuple[list[Job], list[str]]:
    """The stream's runs, and what kept some from their ends: seed by seed, so that a part of them is a table."""
    bases = [job(study, stream, "never", seed, numbers) for seed in study["seeds"]]
    failures = run(f"{stream}: base parts", bases)
    jobs = [one for base in bases for one in updated(study, study["rows"], base, numbers)]
    failures += run(f"{stream}: reported", jobs)
    return [*bases, *jobs], failures


def main() -> None:
    """The command line: overrides of study.yaml."""
    enter()
    with reported():
        study = read(sys.argv[1:])
        cli.compilation_cache()
        choices, done, failures = {}, list[Job](), list[str]()
        for stream in study["streams"]:
            choices[stream] = chosen(study, stream)
            jobs, failed = reported_on(study, stream, next(iter(choices[stream])))
            done, failures = done + jobs, failures + failed
        report.write(study, choices, collected(study, done))
        if failures:
            raise UserError("\n".join([f"{len(failures)} runs failed; the table is without their seeds:", *failures]))


if __name__ == "__main__":
    main()
