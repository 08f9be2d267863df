"""The jobs of a sweep in one process: those that differ in numbers only run as lanes of one program, others alone."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from incremental.app import config as schema
from incremental.app.assemble import Parts, assemble, floats, lanes, with_numbers
from incremental.app.bases import Store
from incremental.app.board import Board
from incremental.app.console import shown
from incremental.app.continuing import find, has_own_cut, summary_of
from incremental.app.experiment import (
    Execution,
    bases_of,
    check_options,
    check_parts,
    execute,
    feed_of,
    learned,
    saving,
    watched,
)
from incremental.app.rundir import RunDirectory, deciding
from incremental.app.tracking import tracked
from incremental.errors import UserError
from incremental.run import memory
from incremental.run.executor import Executor
from incremental.run.lanes import Lanes, Programs
from incremental.run.loop import run_stream
from incremental.shell import translated

Config = Mapping[str, Any]
Outcome = dict[str, Any] | None | UserError  # a summary, None after a dry run


class Job(NamedTuple):
    """One job."""

    name: str
    """its overrides"""
    config: Any
    """resolved, or the UserError that kept it from being read"""


def use_every_core() -> None:
    """A CPU is one device to JAX and runs one lane at a time; as many devices as cores run as many lanes at once.

    Too late once JAX has begun to compute; then the devices stay as they are.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def run(jobs: Sequence[Job]) -> list[Outcome]:
    """Runs every job to its end, whatever becomes of the others; a finished run is not run again."""
    outcomes: dict[int, Outcome] = {}
    store = Store()
    with Board([job.name for job in jobs]) as board:
        for i, job in enumerate(jobs):
            if isinstance(job.config, UserError):
                outcomes[i] = board.failed(i, job.config)
                continue
            try:
                summary = finished(job.config)
            except UserError as error:
                outcomes[i] = board.failed(i, error)
                continue
            if summary is not None:
                outcomes[i] = summary
                board.finished(i, before=True)
        if over := sum(not isinstance(outcome, UserError) for outcome in outcomes.values()):
            board.say(f"{over} of {len(jobs)} jobs are over already")
        for group, why in grouped({i: job.config for i, job in enumerate(jobs) if i not in outcomes}):
            configs = {i: jobs[i].config for i in group}
            if why is None:
                why = pack(configs, board, outcomes, store)
            for i in group:
                if i not in outcomes:
                    outcomes[i] = alone(i, configs[i], why or "", board, store)
    return [outcomes[i] for i in range(len(jobs))]


def finished(config: Config) -> dict[str, Any] | None:
    """The summary of a run that is over."""
    return None if config["dry_run"] else summary_of(config)


def directory_of(config: Config) -> RunDirectory:
    """The run's directory."""
    return RunDirectory(Path(config["runs"]), config["name"], config)


# -- what runs together ----------------------------------------------------------------------------------------------


def grouped(configs: Mapping[int, Config]) -> list[tuple[list[int], str | None]]:
    """The jobs that share a program, in the order of the first of each; with a reason, one that runs alone."""
    groups: dict[str, list[int]] = {}
    reasons: dict[str, str] = {}
    met: set[Path] = set()
    for job, config in configs.items():
        path = directory_of(config).path
        try:
            why = f"{path} is an earlier job's" if path in met else apart(config)
            key = f"alone {job}" if why else program_of(config)
        except UserError:
            why, key = "", f"alone {job}"  # it will say itself what is wrong
        met.add(path)
        groups.setdefault(key, []).append(job)
        if why is not None:
            reasons[key] = why
    for key, group in groups.items():
        if len(group) == 1:
            reasons.setdefault(key, "no other job has its program")
    return [(group, reasons.get(key)) for key, group in groups.items()]


def apart(config: Config) -> str | None:
    """Why a job cannot be a lane, or None."""
    for key in ("debug", "profile", "dry_run"):
        if config[key]:
            return f"{key}={config[key]} looks at one run"
    if has_own_cut(config):
        return "it has increments of its own, for its data has grown"
    if not learned(config):
        return f"{config['model']['_target_']} updates without gradients"
    spread = schema.build(config["devices"], "devices")
    if spread.batch * spread.rows > 1 or spread.distributed:
        return "devices: it takes several devices for itself"
    return None


def program_of(config: Config) -> str:
    """The config as text, without what lanes may differ in: seed, names, base parts and traced numbers."""
    kept = {key: value for key, value in deciding(config).items() if key not in ("seed", "name", "row", "base")}
    return json.dumps(with_numbers(kept, dict.fromkeys(floats(config), "a float")))


# -- running ---------------------------------------------------------------------------------------------------------


def alone(job: int, config: Config, why: str, board: Board, store: Store) -> Outcome:
    """One job as the `incremental` command runs it."""
    board.open(f"alone{f' ({why})' if why else ''}: {board.jobs[job]}", [job], [1], "")
    with board.aside():
        try:
            with translated():
                summary = execute(config, store)
        except UserError as error:
            return board.failed(job, error)
    board.moved(board.groups[-1], job, 1)
    return summary


def pack(configs: Mapping[int, Config], board: Board, outcomes: dict[int, Outcome], store: Store) -> str | None:
    """Runs the jobs as lanes and notes their outcomes; a reason where they have to run one by one instead."""
    ready: dict[int, tuple[Parts, RunDirectory]] = {}
    with contextlib.ExitStack() as stack:
        for job, config in configs.items():
            try:
                with translated():
                    opened = opening(config, store, first=not ready)
            except UserError as error:
                outcomes[job] = board.failed(job, error)
            else:
                ready[job] = opened
                stack.enter_context(contextlib.closing(opened[1]))
        if len(ready) < 2:
            return "the others of its group cannot run"
        parts = next(iter(ready.values()))[0]
        feed = feed_of(parts)
        try:
            build, numbers = lanes([configs[job] for job in ready], parts.stream)
            programs = Programs(build, numbers[0], len(ready))
            splits = memory.splits(programs, feed, parts.update, numbers)
        except Exception as error:  # whatever a factory or a hook does with a traced number
            return f"a lane's numbers cannot be traced: {place_of(error)}{first_line(error)}"
        own = dict(zip(ready, numbers, strict=True))
        events = [int(np.subtract(*parts.stream.bounds(t)[::-1])) for t in range(len(parts.stream))]
        varied = ", ".join(["seed", *numbers[0]] if len({configs[j]["seed"] for j in ready}) > 1 else numbers[0])
        for n, chunk in enumerate(np.array_split([*ready], splits)):
            jobs = chunk.tolist()
            where = f"{len(jobs)} lanes on {min(programs.mesh.size, len(jobs))} device(s)"
            rows = [*dict.fromkeys(configs[job]["row"] for job in jobs)]
            where += f", {rows[0]}" + f" and {len(rows) - 1} more" * (len(rows) > 1)
            title = f"{where}{f', part {n + 1} of {splits} for memory' if splits > 1 else ''}: {varied}"
            group = board.open(title, jobs, events, parts.evaluation.metrics[0])
            if n == 0:
                for note in store.unsaid(parts.stream.all_notes):
                    board.say(f"  {note}")
            way = Lanes(programs, [own[job] for job in jobs], [configs[job]["seed"] for job in jobs])
            try:
                with translated():
                    executions = [Execution(ready[job][1], configs[job]) for job in jobs]
                    restored = [each.checkpoints.restore(lambda sizes: way.at(sizes).like()) for each in executions]  # noqa: B023
                    streams = [ready[job][0].stream for job in jobs]
                    bases = {lane: bases_of(configs[job], streams[lane], store)[0] for lane, job in enumerate(jobs)}
                    ran = run_stream(
                        feed,
                        Executor(way),
                        parts.update,
                        metrics=parts.evaluation.metrics,
                        matrix=parts.evaluation.matrix,
                        batch_size=parts.batch_size,
                        bases=bases,
                        start={lane: found for lane, found in enumerate(restored) if found is not None},
                    )
                    trackers = tracked([each.tracker for each in executions])
                    results = watched(ran, (saving(executions, len(parts.stream)), board.seats(group), trackers))
            except UserError as error:
                outcomes |= {job: board.failed(job, error) for job in jobs}
                continue
            for lane, result in results.items():
                job, execution = jobs[lane], executions[lane]
                if isinstance(result, UserError):
                    outcomes[job] = result
                    continue
                outcomes[job] = summary = execution.finish(result)
                quality = summary["metrics"][group.metric]["prequential"]
                board.finished(job, f"  {execution.directory.path}: prequential {group.metric} {shown(quality)}")
    return None


def opening(config: Config, store: Store, *, first: bool) -> tuple[Parts, RunDirectory]:
    """The job's parts, made of its own numbers, so that what is wrong with them is said; and its directory, locked."""
    check_options(config)
    found = find(config)
    parts = assemble(config, found.stream)
    if first:
        check_parts(parts, bases_of(config, parts.stream, store))
    found.open(config)
    return parts, found.directory


def place_of(error: BaseException) -> str:
    """The last place outside installed packages that the error came through."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if "site-packages" not in file.parts and file.suffix == ".py":
            place = f"{file.name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return place


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
