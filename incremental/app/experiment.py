"""One run from its resolved config: assembled, resumed, executed, tracked, written to its directory."""

import contextlib
import inspect
import itertools
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from incremental.app import config as schema
from incremental.app import names
from incremental.app.assemble import LIVE, NODES, Evaluation, Parts, assemble, completed, refuse_unknown
from incremental.app.bases import OfRun, Store, needed, said
from incremental.app.console import Console, shown
from incremental.app.continuing import find
from incremental.app.estimate import estimate, timed
from incremental.app.rundir import RunDirectory, settings
from incremental.app.tracking import Tracker, tracked
from incremental.app.trust import strangers
from incremental.core.problem import Baseline
from incremental.core.sharding import Devices, first_process, join
from incremental.core.types import bytes_of
from incremental.data.stream import Stream
from incremental.domains import Seed, refuse
from incremental.errors import UserError
from incremental.run.alone import Alone
from incremental.run.check import check
from incremental.run.checkpoint import Checkpoints, Schedule
from incremental.run.executor import Executor, Snapshot
from incremental.run.exhausted import largest, remedy, spoken
from incremental.run.feed import Feed, unfit
from incremental.run.loop import Bases, run_stream
from incremental.run.memory import available
from incremental.run.progress import Event, Failed, Finished, Paused, Result


def named(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run, completed, with its name and row, which are those of the files chosen for each group."""
    refuse_unknown(config)
    config = {key: value for key, value in config.items() if key != LIVE}
    names.check(config)
    config = completed(config)
    model = str(choices["model"])
    chosen = [str(choices.get(f"strategy@strategies.{name}", name)) for name in config["strategies"] or {}]
    update = [] if chosen and choices["update"] == "finetune" else [str(choices["update"])]
    row = config["row"] or ("+".join([*update, *chosen]) if learned(config) else model)
    return {**config, "row": row, "name": config["name"] or (f"{model}-{row}" if learned(config) else model)}


def learned(config: Mapping[str, Any]) -> bool:
    """Whether the model is trained by gradients, as its factory's annotation says."""
    factory = schema.partial(config["model"], "model").func
    return inspect.signature(factory, eval_str=True).return_annotation is not Baseline


def execute(config: Mapping[str, Any], store: Store | None = None) -> dict[str, Any] | None:
    """Runs `config` to its end and returns its summary (None after a dry run). A finished run is not run again.

    `store` has the base parts and the compiled functions of the jobs before.
    """
    config = completed(config)
    check_options(config)
    join(schema.build(config["devices"], "devices", kind=Devices))
    if not first_process():  # the first one writes, tracks and prints for all
        config = {**config, "tracking": {**config["tracking"], "mode": "disabled"}}
        with contextlib.redirect_stdout(None):
            return executed(config, store)
    return executed(config, store)


def executed(config: Mapping[str, Any], store: Store | None) -> dict[str, Any] | None:
    """`execute` in one of the processes."""
    if config["debug"] == "nan":
        jax.config.update("jax_debug_nans", True)
    if config["dry_run"]:
        dry_run(assemble(config), short=store is not None)
        return None
    found = find(config)
    directory = found.directory
    if found.summary is not None:
        print(f"{directory.path}: this run is finished; its results are there, and nothing was done")
        return found.summary
    parts = assemble(config, found.stream)
    if found.grown:
        try:
            check_parts(parts, bases_of(config, parts.stream, store))
        except UserError as error:
            raise UserError(
                f"{directory.path}: the run cannot go on with these new events, and stays as it is: {error}. Or give "
                "the same command again when there are more events"
            ) from None
    found.open(config)
    with contextlib.closing(directory), tracing(directory.path / "profile", config["profile"]):
        return run_in(directory, parts, config, store, found.notes)


class Execution:
    """A run in its open directory: what saves, tracks, resumes and finishes it, alone or as a lane of many."""

    def __init__(self, directory: RunDirectory, config: Mapping[str, Any]) -> None:
        self.directory, self.config = directory, config
        self.checkpoints = Checkpoints(directory.path / "checkpoint", settings(config))

    @cached_property
    def tracker(self) -> Tracker:
        """The run's tracker, started once something has happened."""
        start, path = schema.build(self.config["tracking"], "tracking"), self.directory.path
        tracker: Tracker = start(path.name, path, self.config, self.directory.run_id())
        return tracker

    def save(self, snapshot: Snapshot) -> None:
        """Writes evaluations.csv, epochs.csv and the checkpoint."""
        self.directory.progress(snapshot.progress)
        self.checkpoints.save(snapshot)

    def fail(self, event: Failed) -> None:
        """Writes how the run came to diverge: evaluations.csv, epochs.csv and error.txt."""
        self.directory.progress(event.progress)
        self.directory.failed(event.error)

    def finish(self, result: Result) -> dict[str, Any]:
        """Writes the summary and closes the tracker."""
        summary = self.directory.finish(self.config["name"], self.config["row"], result)
        self.tracker.finish({"metrics": summary["metrics"], "cost": summary["cost"]})
        return summary


Consumer = Callable[[Event], None]


def saving(executions: Sequence[Execution], parts: int, told: Callable[[], bool] = lambda: False) -> Consumer:
    """Saves the lanes at the increments' ends, and now and then between two epochs, where it is worth the time; at the
    end of a stream of `parts` parts, and each increment's of an endless one (-1); at once where `told` says so. Of a
    lane that has diverged it notes that."""
    schedule = Schedule()

    def consume(event: Event) -> None:
        if isinstance(event, Failed):
            executions[event.lane].fail(event)
        if not isinstance(event, Paused):
            return
        last = parts < 0 or any(progress.increment == parts for progress in event.progress.values())
        if not (event.over and last) and not schedule.due(over=event.over) and not told():
            return
        with schedule.saving():
            for lane in event.progress:
                executions[lane].save(event.snapshot(lane))

    return consume


def watched(events: Iterable[Event], consumers: Sequence[Consumer]) -> dict[int, Result | UserError]:
    """What became of each lane, once every event was given to every consumer."""
    found: dict[int, Result | UserError] = {}
    for event in events:
        for consume in consumers:
            consume(event)
        if isinstance(event, Finished):
            found[event.lane] = event.result
        elif isinstance(event, Failed):
            found[event.lane] = event.error
    return found


def feed_of(parts: Parts) -> Feed:
    """The stream as the run's configuration feeds it."""
    measured = parts.evaluation
    return Feed(parts.stream, listed=measured.listed, whole=parts.whole, sample=measured.sample)


def check_parts(parts: Parts, bases: Mapping[int, Bases] = {}) -> None:
    """A UserError where the parts do not fit together."""
    check(
        feed_of(parts),
        Executor(Alone(parts.build)),
        parts.update,
        parts.evaluation.metrics,
        matrix=parts.evaluation.matrix,
        batch_size=parts.batch_size,
        bases=bases,
    )


def bases_of(config: Mapping[str, Any], stream: Stream, store: Store | None) -> dict[int, Bases]:
    """Where lane 0 finds its base part: in the run that it names, or in what the sweep has trained."""
    if config["base"] is not None:
        return {0: OfRun(config["base"], config, stream)}
    if store is None or config["devices"].get("distributed"):  # of a split table a process has a part only
        return {}
    return {0: store.of(config)}


def run_in(
    directory: RunDirectory,
    parts: Parts,
    config: Mapping[str, Any],
    store: Store | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Executes the run in its directory, from its checkpoint where there is one."""
    stream = parts.stream
    print(f"{directory.path}")
    said = stream.all_notes if store is None else store.unsaid(stream.all_notes)
    for note in (*said, *notes):
        print(f"  {note}")
    headline = parts.evaluation.metrics[0]
    way = Alone(parts.build, parts.seed, None if store is None else store.compiled(config, parts))
    with Console(len(stream) - 1, parts.epochs, headline) as console:
        execution = Execution(directory, config)
        feed = feed_of(parts)
        start = execution.checkpoints.restore(lambda sizes: way.at(sizes).like())
        events = run_stream(
            feed,
            Executor(way),
            parts.update,
            metrics=parts.evaluation.metrics,
            matrix=parts.evaluation.matrix,
            batch_size=parts.batch_size,
            bases=bases_of(config, stream, store),
            start={} if start is None else {0: start},
        )
        first = next(events)  # what is refused is refused here, before a tracker knows of it
        consumers = (saving([execution], len(stream)), console, tracked([execution.tracker]))
        result = watched(itertools.chain([first], events), consumers)[0]
    if isinstance(result, UserError):
        raise result
    summary = execution.finish(result)
    quality, seconds = summary["metrics"][headline]["prequential"], summary["cost"]["seconds_per_update"]
    then = ""
    if not unfit(stream, way.at(result.sizes).program.inputs):
        plugins = "".join(f" --plugin {package}" for package in strangers(needed(config)))
        then = f"  or  incremental-recommend {shlex.quote(str(directory.path))} --user ID{plugins}"
    print(
        f"  finished: prequential {headline} {shown(quality)}, {seconds:.2f} s an update\n"
        f"  written: {directory.path}/summary.json, evaluations.csv, epochs.csv, checkpoint/"
        + (", profile/ (for TensorBoard or Perfetto)\n" if config["profile"] else "\n")
        + f"  next: incremental-report {shlex.quote(str(directory.path.parent))}{then}",
        flush=True,
    )
    return summary


def check_options(config: Mapping[str, Any]) -> None:
    """The schema of the top level: its own keys, and every node, those too that this run does not use."""
    refuse_unknown(config)
    for key, kinds, allowed in (
        ("seed", (int,), "a whole number"),
        ("base", (type(None), str), "null or the directory of a finished run"),
        ("continue", (type(None), bool), "null, true or false"),
        ("debug", (type(None), str), "null or nan"),
        ("profile", (bool,), "true or false"),
        ("dry_run", (bool,), "true or false"),
    ):
        value = config.get(key)
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if wrong or (key == "debug" and value not in (None, "nan")):
            raise UserError(f"{key}={value!r}: expected {allowed}")
    refuse("seed", config["seed"], [Seed])
    schema.build(config["evaluation"], "evaluation", kind=Evaluation)  # first: training.metric follows from it
    for key in NODES:
        schema.partial(config[key], key)


def dry_run(parts: Parts, *, short: bool = False) -> None:
    """Compiles what the largest increment runs, and prints parameters, memory and about how long a run takes; in two
    lines where it is `short`. Only where an epoch fits into the memory that is free, a few batches are timed."""
    feed, way = feed_of(parts), Alone(parts.build, parts.seed)
    metrics, matrix, update = parts.evaluation.metrics, parts.evaluation.matrix, parts.update
    executor = Executor(way)
    check(feed, executor, update, metrics, matrix=matrix, batch_size=parts.batch_size)
    inputs = way.inputs(feed.sizes(0))
    t, plan = largest(feed, update)
    sizes = feed.sizes(len(feed.stream) - 1, inputs)
    executor.sizes = sizes
    with spoken(feed, executor, update, parts.batch_size):
        functions, state = way.at(sizes).functions, way.at(sizes).like().state
        data = feed.update(functions.program, t, plan, way.place).data
        known = {kind: np.ones(sizes[kind], bool) for kind in sizes}
        _, test, seen = feed.tests(functions.program, known, len(feed.stream) - 1, t, way.place, heldout=False)
        compiled = functions.run_epoch.program(state, data), functions.rank.program(state, test, seen)
        params, needs = bytes_of(state.learner.params), [each.memory_analysis() for each in compiled]
        epoch, ranking = (each.temp_size_in_bytes if each else 0 for each in needs)
        number = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.learner.params))
        where = f"increment {t}" if t else "the base part"
        if short:
            print(f"dry run: {number:,} parameters; the state {bytes_of(state):,}, an epoch {epoch:,} bytes more")
        else:
            print(f"dry run: {len(parts.stream) - 1} increments; tables of {said(sizes)} ids at the end")
            print(f"  parameters: {number:,} ({params:,} bytes)")
            print(f"  the whole state, with moments and strategies: {bytes_of(state):,} bytes")
            print(f"  the examples of {where}, the largest, on the device: {bytes_of(data):,} bytes")
            print(f"  an epoch's working memory there: {epoch:,} bytes; a test's: {ranking:,} bytes")
            print(f"  compiled in {functions.spent.seconds:.1f} s; nothing was trained or written")
        free = available(jax.local_devices()[0])
        if bytes_of(state) * 2 + bytes_of(data) + max(epoch, ranking) > free:
            print(
                f"  more than the {free:,} bytes that are free, so that nothing was timed; {remedy(parts.batch_size)}"
            )
            return
        executor.load({}, sizes)
        pace = timed(functions.run_epoch, executor.state, data)
    shapes = {
        (feed.sizes(at, inputs), feed.capacities.rows(len(feed.stream.training_events(plan.increments))))
        for at, plan in update.plans(len(feed.stream))
    }
    print(estimate(pace, parts.stream, update, parts.epochs, len(shapes), functions.spent.seconds))


def tracing(folder: Path, wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """JAX's profiler, writing to `folder`."""
    return jax.profiler.trace(str(folder)) if wanted else contextlib.nullcontext()
