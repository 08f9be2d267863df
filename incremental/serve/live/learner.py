"""A learner: the ordinary loop on a live log. It saves after each increment, and then publishes a version."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from incremental.app.assemble import Parts, assemble
from incremental.app.console import Console
from incremental.app.experiment import Consumer, Execution, check_options, saving, watched
from incremental.app.rundir import RunDirectory
from incremental.core.program import Program
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.log.place import open_log
from incremental.metrics.ranking import per_event
from incremental.run.alone import Alone
from incremental.run.executor import Executor, Snapshot
from incremental.run.feed import Feed
from incremental.run.loop import run_stream
from incremental.run.progress import Event, Paused, Trained
from incremental.run.records import cutoffs
from incremental.serve.live import belonging, versions
from incremental.serve.live.feed import Cutter, LogFeed, Watch
from incremental.serve.live.making import Making
from incremental.serve.live.parent import told
from incremental.serve.live.settings import Live
from incremental.serve.live.status import Status
from incremental.serve.live.tail import Tail

Stopped = Callable[[], bool]


class Ended(Exception):
    """The learner was told to end, and what it has is saved."""


def main(config: Mapping[str, Any], live: Live, name: str) -> None:
    """Learns until SIGTERM or SIGINT; the config is that of the learner's run."""
    learn(config, live, name, told())


def learn(config: Mapping[str, Any], live: Live, name: str, stopped: Stopped) -> None:
    """Learns from the log until `stopped`, from the last checkpoint on; the champion ends the increments too.

    What is learnt is what a run of the config on the log would learn, bit for bit. A UserError where that could not
    hold, where another process learns in the same folder, and for a checkpoint of another log or configuration.
    """
    check_options(config)
    refuse(config)
    folder = live.at(name)
    directory = RunDirectory(folder.parent, name, config).at(folder)
    tail = Tail(open_log(live.log), live.log)
    directory.open()
    with contextlib.closing(directory), contextlib.closing(tail.log):
        Learner(directory, config, live, name, tail, stopped).learn()


def refuse(config: Mapping[str, Any]) -> None:
    """A UserError for what needs the end of the stream, which a log has not."""
    for wrong, why in (
        (config["evaluation"].get("matrix"), "evaluation.matrix=true: tests each model on later increments too"),
        (config["devices"].get("tables") == "whole", "devices.tables=whole: makes room for the ids of all the stream"),
        (config["devices"].get("distributed"), "devices.distributed=true: is for runs on a file"),
        (
            config["base"],
            f"base={config['base']}: the log begins with a run's events, which incremental-serve puts there",
        ),
    ):
        if wrong:
            raise UserError(f"{why}; leave it out for a learner")


class Learner:
    """A learner in its open directory."""

    def __init__(
        self,
        directory: RunDirectory,
        config: Mapping[str, Any],
        live: Live,
        name: str,
        tail: Tail,
        stopped: Stopped,
    ) -> None:
        self.directory, self.config, self.live, self.name = directory, config, live, name
        self.tail, self.stopped = tail, stopped
        self.making = Making(config["data"], live.log)
        self.parts: Parts | None = None
        self.program: Program | None = None  # any of its build: it says what an example holds
        self.at = self.updated = 0  # the increment that is learnt next, and that of the last update
        self.cutter = Cutter(
            tail,
            live.cut,
            self.making,
            self.enough,
            writes=name == live.champion,
            stopped=stopped,
            told=lambda: self.status.waits(),
            needed=self.needed,
        )
        self.status = Status(directory.path, name, self.cutter)

    def learn(self) -> None:
        """See `learn`."""
        if not self.cutter.until(0):
            return
        parts = self.parts_of(self.cutter.stream)
        begins = functools.partial(belonging.note, self.directory.path)
        feed = LogFeed(self.cutter, begins, listed=parts.evaluation.listed, sample=parts.evaluation.sample)
        way = Alone(parts.build, parts.seed)
        execution, executor = Execution(self.directory, self.config), Executor(way)
        start = execution.checkpoints.restore(lambda sizes: way.at(sizes).like())
        if start is not None:
            self.at = start.progress.increment
            self.updated = max((cost.increment for cost in start.progress.costs if cost.epochs), default=0)
            self.cutter.catch_up(self.at + start.progress.begun)
            feed.stream = self.cutter.stream or feed.stream
            if self.stopped():
                return
        belonging.check(self.directory.path, self.tail, start)
        if start is not None and not start.progress.begun and start.progress.increment:
            self.publish(feed, executor, start)  # it may have been killed between saving and publishing
        self.cutter.watch = Watch(self.live.cut, self.making, score(feed, executor, parts))
        events = run_stream(
            feed,
            executor,
            parts.update,
            metrics=parts.evaluation.metrics,
            batch_size=parts.batch_size,
            start={} if start is None else {0: start},
        )
        print(f"{self.directory.path}: learns from {self.live.log}", *feed.stream.notes, sep="\n  ", flush=True)
        self.status.write("trains")
        with Console(None, parts.epochs, str(parts.evaluation.metrics[0])) as console:
            save, publish = saving([execution], -1, self.stopped), self.publishing(feed, executor)
            consumers = (self.noting, save, publish, self.status, console, self.ending)
            with contextlib.suppress(Ended):
                for result in watched(events, consumers).values():
                    if isinstance(result, UserError):
                        raise result
        self.status.ends()

    def parts_of(self, stream: Stream | None) -> Parts:
        """The run's parts, made once: of a stream they need no more than what an example holds."""
        if self.parts is None:
            self.parts = assemble(self.config, stream)
        return self.parts

    def program_of(self, stream: Stream) -> Program:
        """A program of the run's build, of any capacities: made once."""
        if self.program is None:
            self.program = self.parts_of(stream).build(Feed(stream).sizes(len(stream) - 1))
        return self.program

    def needed(self, t: int) -> int:
        """The first increment whose events are still read once the stream has increment t: by updates and tests of
        what is learnt next, or of t, and by whoever counts what the one before brought.

        It is 0, and nothing is let go, where all that a user had is left out of rankings, and where a graph is read.
        """
        stream, at = self.cutter.stream, max(t, self.at)
        assert stream is not None
        if stream.exclude_seen or self.program_of(stream).window is not None:
            return 0
        return max(min(self.parts_of(stream).update.oldest(at, self.updated), at - 1), 0)

    def noting(self, event: Event) -> None:
        """Notes which update was the last one."""
        if isinstance(event, Trained) and event.cost.epochs:
            self.updated = event.cost.increment

    def enough(self, stream: Stream) -> bool:
        """Whether a run on the stream would take its last part: a batch of events, and an example that the model trains
        on; in the base part more items than the metrics look at."""
        parts, program, t = self.parts_of(stream), self.program_of(stream), len(stream) - 1
        if len(stream.training_examples([t], validation=False)) < (parts.batch_size or 1):
            return False
        validation, inputs = None if program.counting else False, program.inputs
        if not len(stream.training_examples([t], validation=validation, inputs=inputs)):
            return False
        return t > 0 or int(stream.label.max()) >= max(cutoffs(parts.evaluation.metrics))

    def ending(self, event: Event) -> None:
        """Ends the run where all is saved, once it was told to; a consumer behind the others."""
        paused = isinstance(event, Trained) or (isinstance(event, Paused) and not event.over)
        if paused and self.stopped():
            raise Ended

    def publishing(self, feed: LogFeed, executor: Executor) -> Consumer:
        """Publishes each increment's model."""

        def consume(event: Event) -> None:
            if isinstance(event, Paused) and event.over:
                self.publish(feed, executor, event.snapshot(0))

        return consume

    def publish(self, feed: LogFeed, executor: Executor, snapshot: Snapshot) -> None:
        """Publishes a version, unless it is the newest already."""
        number = snapshot.progress.increment - 1
        if versions.newest(self.directory.path) == number:
            return
        self.tail.read()  # what was chosen meanwhile stays
        chosen = self.tail.choices.values()
        named = {choice.version for choice in chosen if choice.learner == self.name and choice.version is not None}
        program = executor.way.at(snapshot.sizes).program
        versions.publish(
            self.directory.path,
            program,
            snapshot,
            side={} if program.at is None else feed.side(number, program, executor.way.place),
            cut=feed.cut(number).until,
            keep=self.live.keep_versions,
            never=named,
        )


def score(feed: Feed, executor: Executor, parts: Parts) -> Callable[[Stream, int, int], np.ndarray]:
    """The first metric of each event, by the model as it is."""
    value = per_event(parts.evaluation.metrics[0])

    def of(stream: Stream, t: int, trained_until: int) -> np.ndarray:
        shadow = Feed(stream, listed=feed.listed)
        shadow.placed = feed.placed
        known = {kind: ids[0] for kind, ids in executor.known().items()}
        place = executor.way.place
        rows, data, seen = shadow.tests(executor.program, known, t, trained_until, place, heldout=False)
        found: np.ndarray = value(np.asarray(executor.rank(data, seen)[0].rank[: len(rows)]))
        return found

    return of
