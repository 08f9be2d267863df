"""What a sweep says while it works: a live table on a terminal, a line an increment of each group elsewhere."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from incremental.errors import UserError
from incremental.run.progress import EpochDone, Event, Failed, Record, Resumed, Trained

ROWS = 8  # groups in the table: the last ones begun


@dataclass
class Group:
    """Jobs that run as one program, or one that runs alone."""

    title: str
    jobs: list[int]
    events: list[int]  # of each part of the stream
    metric: str
    parts: dict[int, int] = field(default_factory=dict)  # job -> parts of the stream behind it
    quality: dict[int, list[float]] = field(default_factory=dict)  # job -> its tests so far
    epoch: int = 0

    def at(self) -> str:
        """Where the slowest job is."""
        part = min(self.parts.values(), default=len(self.events))
        if part >= len(self.events):
            return "finished"
        where = "base part" if part == 0 else f"increment {part}/{len(self.events) - 1}"
        return where + (f", epoch {self.epoch}" if self.epoch else "")


class Board:
    """The view of a whole sweep, whose jobs are named by their overrides."""

    def __init__(self, jobs: Sequence[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.jobs = jobs
        self.groups: list[Group] = []
        self.share = [0.0] * len(jobs)  # of each job's work that is done
        self.skipped = 0.0  # the sum of the shares that were done before
        self.failures = 0
        self.started = time.monotonic()
        terminal = Console(file=sys.stderr)
        self.live = Live(console=terminal, get_renderable=self.table, refresh_per_second=2, transient=True)
        self.shown = terminal.is_terminal

    def __enter__(self) -> "Board":
        if self.shown:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.live.stop()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the terminal to a run that shows itself."""
        self.live.stop()
        try:
            yield
        finally:
            if self.shown:
                self.live.start()

    def say(self, line: str) -> None:
        """Prints a line."""
        print(line, flush=True)

    def open(self, title: str, jobs: Sequence[int], events: Sequence[int], metric: str) -> Group:
        """A new group of jobs, over the parts of a stream."""
        group = Group(title, list(jobs), list(events), metric, dict.fromkeys(jobs, 0))
        self.groups.append(group)
        self.say(title)
        return group

    def seats(self, group: Group) -> Callable[[Event], None]:
        """A consumer of the events of the group's run, whose lanes are its jobs."""
        jobs = list(group.jobs)

        def consume(event: Event) -> None:
            if isinstance(event, EpochDone):
                group.epoch = event.epoch.epoch
            elif isinstance(event, Trained):
                self.heard(group, jobs[event.lane], event.tested)
                self.moved(group, jobs[event.lane], event.cost.increment + 1)
                self.line(group)
            elif isinstance(event, Resumed):
                job, progress = jobs[event.lane], event.progress
                # The running increment's test is told again once it is over.
                over = [r for r in progress.records if r.trained_until == r.evaluated_on - 1 < progress.increment - 1]
                self.heard(group, job, over)
                self.moved(group, job, progress.increment, before=True)
                self.say(f"  continuing from its checkpoint: {self.jobs[job]}")
            elif isinstance(event, Failed):
                self.failed(jobs[event.lane], event.error)

        return consume

    @staticmethod
    def heard(group: Group, job: int, tested: Sequence[Record]) -> None:
        """Adds prequential tests."""
        found = [r.value for r in tested if r.metric == group.metric and r.evaluated_on > 0]
        group.quality.setdefault(job, []).extend(found)

    def finished(self, job: int, line: str = "", *, before: bool = False) -> None:
        """A job is over; `before`: what it had left is not the work of this sweep."""
        self.skipped += (1.0 - self.share[job]) if before else 0.0
        self.share[job] = 1.0
        if line:
            self.say(line)

    def failed(self, job: int, error: UserError) -> UserError:
        """A job is over, by an error, which is told at once and given back; what it had left was not done."""
        self.finished(job, before=True)
        self.failures += 1
        for group in self.groups:
            group.parts.pop(job, None)
        print(f"error: {self.jobs[job] or 'the job'}: {error}", file=sys.stderr, flush=True)
        return error

    def moved(self, group: Group, job: int, part: int, *, before: bool = False) -> None:
        """The job has `part` parts behind it."""
        share = sum(group.events[:part]) / sum(group.events)
        self.skipped += (share - self.share[job]) if before else 0.0
        self.share[job], group.parts[job], group.epoch = share, part, 0

    def left(self) -> str:
        """The time left, if the rest goes as fast as what was done."""
        done = sum(self.share) - self.skipped
        elapsed = time.monotonic() - self.started
        if done <= 0.0:
            return "time left: not known yet"
        return f"about {clock(elapsed * (len(self.jobs) - sum(self.share)) / done)} left at the pace so far"

    def best(self, group: Group) -> str:
        """The job with the highest mean of its tests so far."""
        measured = {job: [one for one in values if not math.isnan(one)] for job, values in group.quality.items()}
        means = {job: sum(values) / len(values) for job, values in measured.items() if values}
        if not means:
            return ""
        job = max(means, key=lambda job: means[job])
        return f"{group.metric} {means[job]:.4f} ({self.jobs[job]})"

    def table(self) -> Any:
        """The live view."""
        from rich.table import Table
        from rich.text import Text

        over = sum(share == 1.0 for share in self.share)
        failures = f", {self.failures} failed" if self.failures else ""
        caption = f"{over} of {len(self.jobs)} jobs over{failures}; {self.left()}"
        table = Table("group", "running", "at", "best mean so far", caption=caption, expand=False)
        for group in self.groups[-ROWS:]:
            running = sum(part < len(group.events) for part in group.parts.values())
            cells = group.title, f"{running}/{len(group.jobs)}", group.at(), self.best(group)
            table.add_row(*map(Text, cells))  # names are no markup
        return table

    def line(self, group: Group) -> None:
        """The plain form of the live view, once all jobs of the group have passed a part."""
        if not self.shown and len(set(group.parts.values())) == 1:
            part = next(iter(group.parts.values())) - 1
            where = "base part" if part == 0 else f"increment {part}/{len(group.events) - 1}"
            best = self.best(group)
            self.say(f"  {where}{f': best mean so far {best}' if best else ''}; {self.left()}")


def clock(seconds: float) -> str:
    """A duration in words.

    >>> clock(42.4), clock(150), clock(7_300)
    ('42 s', '2 min', '2 h 1 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
