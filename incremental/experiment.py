"""One run from its resolved config: assembled, resumed, executed, tracked, written to its directory."""

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from incremental import config as schema
from incremental.assemble import Parts, assemble
from incremental.checkpoint import Checkpoints
from incremental.console import Console
from incremental.errors import UserError
from incremental.loop import Cost, Driver, Functions, Progress, Record, run
from incremental.problem import Baseline
from incremental.rundir import RunDirectory
from incremental.sharding import first_process, join
from incremental.tracking import Tracker
from incremental.types import Params, Sizes, State, bytes_of


class Kept:
    """The `Saver` of a run directory: evaluations.csv and the checkpoint."""

    def __init__(self, directory: RunDirectory, checkpoints: Checkpoints) -> None:
        self.directory, self.checkpoints = directory, checkpoints
        self.due = checkpoints.due

    def save(self, state: State, before: Params, sizes: Sizes, progress: Progress) -> None:
        self.directory.evaluations(progress.records)
        self.checkpoints.save(state, before, sizes, progress)


class Tracked:
    """A `Listener` that prints, and sends an increment's numbers to the tracker."""

    def __init__(self, console: Console, tracker: Tracker) -> None:
        self.console, self.tracker = console, tracker
        self.epoch = console.epoch

    def increment(self, cost: Cost, tested: Sequence[Record]) -> None:
        self.console.increment(cost, tested)
        self.track(cost, tested)

    def track(self, cost: Cost, tested: Sequence[Record]) -> None:
        """One point of every curve, at the increment's number."""
        costs = {f"cost/{name}": float(value) for name, value in cost._asdict().items() if name != "increment"}
        self.tracker.log(cost.increment, {**{record.metric: record.value for record in tested}, **costs})


def named(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The config with its name and row filled in, from the names of the files chosen for each group."""
    factory = schema.partial(config["model"], "model").func
    learned = inspect.signature(factory, eval_str=True).return_annotation is not Baseline
    model = str(choices["model"])
    chosen = [str(choices.get(f"strategy@strategies.{name}", name)) for name in config["strategies"] or {}]
    row = config["row"] or ("+".join(chosen) or str(choices["update"]) if learned else model)
    return {**config, "row": row, "name": config["name"] or (f"{model}-{row}" if learned else model)}


def execute(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Runs `config` to its end and returns its summary (None after a dry run). A finished run is not run again."""
    check_options(config)
    join(schema.build(config["devices"], "devices"))
    if not first_process():  # the first one writes, tracks and prints for all
        config = {**config, "tracking": {**config["tracking"], "mode": "disabled"}}
        with contextlib.redirect_stdout(None):
            return executed(config)
    return executed(config)


def executed(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """`execute` in one of the processes."""
    if config["debug"] == "nan":
        jax.config.update("jax_debug_nans", True)
    if config["dry_run"]:
        dry_run(assemble(config))
        return None
    directory = RunDirectory(Path(config["runs"]), config["name"], config)
    if directory.summary is not None:
        print(f"{directory.path}: this run is finished; its results are there, and nothing was done")
        return directory.summary
    parts = assemble(config)
    directory.open()
    with contextlib.closing(directory), tracing(directory.path / "profile", config["profile"]):
        return run_in(directory, parts, config)


def run_in(directory: RunDirectory, parts: Parts, config: Mapping[str, Any]) -> dict[str, Any]:
    """Executes the run in its directory, from its checkpoint where there is one."""
    stream = parts.stream
    start = schema.build(config["tracking"], "tracking")
    checkpoints = Checkpoints(directory.path / "checkpoint", directory.identity)
    print(f"{directory.path}")
    for note in stream.all_notes:
        print(f"  {note}")
    last = len(stream) - 1
    headline = parts.evaluation.metrics[0]
    tracker = start(directory.path.name, directory.path, config, directory.path.name)
    with Console(last, config["training"]["epochs"], headline) as console:
        listener = Tracked(console, tracker)

        def resume(functions: Callable[[Sizes], Functions]) -> tuple[State, Params, Sizes, Progress] | None:
            found = checkpoints.restore(functions)
            if found is not None:
                progress = found[3]
                where = console.part(progress.increment) + (" (in its training)" if progress.begun else "")
                print(f"  continuing from the checkpoint: {where}", flush=True)
                for cost in progress.costs:  # a resumed offline run is a file of its own: make it complete
                    listener.track(cost, prequential(progress.records, cost.increment))
            return found

        result = run(
            parts.build,
            stream,
            parts.update,
            seed=parts.seed,
            metrics=parts.evaluation.metrics,
            matrix=parts.evaluation.matrix,
            batch_size=parts.batch_size,
            listener=listener,
            saver=Kept(directory, checkpoints),
            resume=resume,
        )
    summary = directory.finish(config["name"], config["row"], result)
    tracker.finish({"metrics": summary["metrics"], "cost": summary["cost"]})
    quality = summary["metrics"][headline]["prequential"]
    print(
        f"  finished: prequential {headline} {quality:.4f}, {summary['cost']['seconds_per_update']:.2f} s an update\n"
        f"  written: {directory.path}/summary.json, evaluations.csv, checkpoint/"
        + (", profile/ (for TensorBoard or Perfetto)\n" if config["profile"] else "\n")
        + f"  next: incremental-report {directory.path.parent}  or  incremental-recommend {directory.path} --user ID",
        flush=True,
    )
    return summary


def prequential(records: Sequence[Record], t: int) -> list[Record]:
    """The evaluations of increment t just before its update."""
    return [record for record in records if record.evaluated_on == t and record.trained_until == t - 1]


def check_options(config: Mapping[str, Any]) -> None:
    """The schema of the top level's own keys."""
    for key, kinds, allowed in (
        ("seed", (int,), "a whole number"),
        ("debug", (type(None), str), "null or nan"),
        ("profile", (bool,), "true or false"),
        ("dry_run", (bool,), "true or false"),
    ):
        value = config[key]
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if wrong or (key == "debug" and value not in (None, "nan")):
            raise UserError(f"{key}={value!r}: expected {allowed}")


def dry_run(parts: Parts) -> None:
    """Compiles the base part's programs and prints parameters and memory."""
    driver = Driver(parts.build, parts.stream, parts.update, parts.evaluation.metrics)
    driver.check(parts.evaluation.matrix, parts.batch_size)
    sizes = driver.sizes(0)
    functions = driver.functions(sizes)
    data, _, _ = driver.update_data(functions.program, 0, driver.plan(Progress()))
    state = functions.init(jax.random.key(parts.seed))
    compiled = functions.run_epoch.program(state, data)
    leaves = jax.tree.leaves(state.learner.params)
    print(f"dry run: {len(parts.stream) - 1} increments; tables of {sizes.items:,} items and {sizes.users:,} users")
    print(f"  parameters: {sum(leaf.size for leaf in leaves):,} ({bytes_of(state.learner.params):,} bytes)")
    print(f"  the whole state, with moments, strategies and the best epoch: {bytes_of(state):,} bytes")
    print(f"  the base part's examples on the device: {bytes_of(data):,} bytes")
    memory = compiled.memory_analysis()
    print(f"  an epoch's working memory: {memory.temp_size_in_bytes:,} bytes" if memory else "  (no memory analysis)")
    print(f"  compiled in {functions.seconds:.1f} s; nothing was trained or written")


def tracing(folder: Path, wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """JAX's profiler, writing to `folder`."""
    return jax.profiler.trace(str(folder)) if wanted else contextlib.nullcontext()
