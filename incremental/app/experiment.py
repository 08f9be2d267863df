"""One run from its resolved config: assembled, resumed, executed, tracked, written to its directory."""

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from incremental.app import config as schema
from incremental.app.assemble import NODES, Parts, assemble, completed, refuse_unknown
from incremental.app.bases import OfRun, Store
from incremental.app.console import Console
from incremental.app.rundir import RunDirectory
from incremental.app.tracking import Tracker
from incremental.core.problem import Baseline
from incremental.core.sharding import first_process, join
from incremental.core.types import Params, Sizes, State, bytes_of
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.run.checkpoint import Checkpoints
from incremental.run.loop import Bases, Driver, Listener, run
from incremental.run.progress import Cost, Epoch, Progress, Record, Result


class Kept:
    """The `Saver` of a run directory: evaluations.csv, epochs.csv and the checkpoint."""

    def __init__(self, directory: RunDirectory, checkpoints: Checkpoints) -> None:
        self.directory, self.checkpoints = directory, checkpoints
        self.due = checkpoints.due

    def save(self, state: State, before: Params, sizes: Sizes, progress: Progress) -> None:
        self.directory.evaluations(progress.records)
        self.directory.epochs(progress.epochs)
        self.checkpoints.save(state, before, sizes, progress)


class Teller(Listener, Protocol):
    """A `Listener` that is also told where a run continues."""

    def resumed(self, progress: Progress) -> None: ...


class Tracked:
    """A `Listener` that prints, and sends the numbers of epochs and increments to the tracker.

    The curves of epochs (`train/...`, `report/...`) stand over "epoch", counted over the whole stream, those of
    increments over "increment".
    """

    def __init__(self, console: Teller, tracker: Tracker) -> None:
        self.console, self.tracker = console, tracker
        self.points = self.epochs = 0

    def epoch(self, epoch: Epoch) -> None:
        self.console.epoch(epoch)
        self.track_epoch(epoch)

    def increment(self, cost: Cost, tested: Sequence[Record]) -> None:
        self.console.increment(cost, tested)
        self.track(cost, tested)

    def resumed(self, progress: Progress) -> None:
        """A resumed offline run is a file of its own: tells the tracker again what was before."""
        self.console.resumed(progress)
        epochs = list(progress.epochs)
        for cost in progress.costs:
            while epochs and epochs[0].increment == cost.increment:
                self.track_epoch(epochs.pop(0))
            self.track(cost, prequential(progress.records, cost.increment))
        for epoch in epochs:  # of the update that it continues
            self.track_epoch(epoch)

    def track_epoch(self, epoch: Epoch) -> None:
        """One point of every curve over epochs."""
        self.epochs += 1
        told = {"loss": epoch.loss, "validation": epoch.validation}
        values = {f"train/{name}": value for name, value in told.items() if value is not None}
        values |= {f"train/term/{name}": value for name, value in epoch.terms.items()}
        values |= {f"report/{name}": value for name, value in epoch.reports.items()}
        self.log("epoch", self.epochs, values)

    def track(self, cost: Cost, tested: Sequence[Record]) -> None:
        """One point of every curve over increments."""
        costs = {f"cost/{name}": float(value) for name, value in cost._asdict().items() if name != "increment"}
        self.log("increment", cost.increment, {**{record.metric: record.value for record in tested}, **costs})

    def log(self, axis: str, at: int, values: dict[str, float]) -> None:
        """Points are counted in the order of the run: a resumed one gives the same numbers again."""
        self.tracker.log(self.points, axis, {axis: float(at), **values})
        self.points += 1


def named(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """The config completed, with its name and row, which are those of the files chosen for each group."""
    refuse_unknown(config)
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

    `store` has the base parts of the jobs before.
    """
    config = completed(config)
    check_options(config)
    join(schema.build(config["devices"], "devices"))
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
        dry_run(assemble(config))
        return None
    directory = RunDirectory(Path(config["runs"]), config["name"], config)
    if directory.summary is not None:
        print(f"{directory.path}: this run is finished; its results are there, and nothing was done")
        return directory.summary
    parts = assemble(config)
    directory.open()
    with contextlib.closing(directory), tracing(directory.path / "profile", config["profile"]):
        return run_in(directory, parts, config, store)


class Execution:
    """A run in its open directory: what saves, tells, tracks, resumes and finishes it, alone or as a lane of many."""

    def __init__(self, directory: RunDirectory, config: Mapping[str, Any], console: Teller) -> None:
        self.directory, self.config, self.console = directory, config, console
        start = schema.build(config["tracking"], "tracking")
        self.checkpoints = Checkpoints(directory.path / "checkpoint", directory.identity)
        self.tracker: Tracker = start(directory.path.name, directory.path, config, directory.path.name)
        self.listener = Tracked(console, self.tracker)
        self.saver = Kept(directory, self.checkpoints)

    def resume(self, functions: Callable[[Sizes], Any]) -> tuple[State, Params, Sizes, Progress] | None:
        """Where the last checkpoint left the run, or None."""
        found = self.checkpoints.restore(functions)
        if found is not None:
            self.listener.resumed(found[3])
        return found

    def finish(self, result: Result, lanes: int = 1) -> dict[str, Any]:
        """Writes the summary and closes the tracker; `lanes` shared the seconds."""
        summary = self.directory.finish(self.config["name"], self.config["row"], result, lanes)
        self.tracker.finish({"metrics": summary["metrics"], "cost": summary["cost"]})
        return summary


def bases_of(config: Mapping[str, Any], stream: Stream, store: Store | None) -> Bases | None:
    """Where the run finds its base part: in the run that it names, or in what the sweep has trained."""
    if config["base"]:
        return OfRun(config["base"], config, stream)
    if store is None or config["devices"].get("distributed"):  # of a split table a process has a part only
        return None
    return store.of(config)


def run_in(
    directory: RunDirectory, parts: Parts, config: Mapping[str, Any], store: Store | None = None
) -> dict[str, Any]:
    """Executes the run in its directory, from its checkpoint where there is one."""
    stream = parts.stream
    print(f"{directory.path}")
    for note in stream.all_notes:
        print(f"  {note}")
    headline = parts.evaluation.metrics[0]
    with Console(len(stream) - 1, config["training"]["epochs"], headline) as console:
        execution = Execution(directory, config, console)
        result = run(
            parts.build,
            stream,
            parts.update,
            seed=parts.seed,
            metrics=parts.evaluation.metrics,
            matrix=parts.evaluation.matrix,
            listed=parts.evaluation.listed,
            batch_size=parts.batch_size,
            listener=execution.listener,
            saver=execution.saver,
            resume=execution.resume,
            bases=bases_of(config, stream, store),
            whole=parts.whole,
        )
    summary = execution.finish(result)
    quality = summary["metrics"][headline]["prequential"]
    then = f"  or  incremental-recommend {directory.path} --user ID" if stream.question is None else ""
    print(
        f"  finished: prequential {headline} {quality:.4f}, {summary['cost']['seconds_per_update']:.2f} s an update\n"
        f"  written: {directory.path}/summary.json, evaluations.csv, epochs.csv, checkpoint/"
        + (", profile/ (for TensorBoard or Perfetto)\n" if config["profile"] else "\n")
        + f"  next: incremental-report {directory.path.parent}{then}",
        flush=True,
    )
    return summary


def prequential(records: Sequence[Record], t: int) -> list[Record]:
    """The evaluations of increment t just before its update."""
    return [record for record in records if record.evaluated_on == t and record.trained_until == t - 1]


def check_options(config: Mapping[str, Any]) -> None:
    """The schema of the top level: its own keys, and every node, those too that this run does not use."""
    refuse_unknown(config)
    for key, kinds, allowed in (
        ("seed", (int,), "a whole number"),
        ("base", (type(None), str), "null or the directory of a finished run"),
        ("debug", (type(None), str), "null or nan"),
        ("profile", (bool,), "true or false"),
        ("dry_run", (bool,), "true or false"),
    ):
        value = config[key]
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if wrong or (key == "debug" and value not in (None, "nan")):
            raise UserError(f"{key}={value!r}: expected {allowed}")
    for key in NODES:
        schema.partial(config[key], key)


def dry_run(parts: Parts) -> None:
    """Compiles an increment's epoch at the base part's size, and prints parameters and memory."""
    driver = Driver(parts.build, parts.stream, parts.update, parts.evaluation.metrics, whole=parts.whole)
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
