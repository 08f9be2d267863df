"""What a run says while it works: a progress bar on a terminal, a line an increment anywhere."""

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from incremental.run.progress import Cost, Epoch, EpochDone, Event, Progress, Record, Resumed, Trained

SECONDS_BETWEEN_LINES = 10.0  # where there is no progress bar


def shown(value: float | None) -> str:
    """A quality to four digits; one that is None or NaN was not measured.

    >>> shown(0.12345), shown(None)
    ('0.1235', 'not measured')
    """
    return "not measured" if value is None or math.isnan(value) else f"{value:.4f}"


class Console:
    """A consumer of one run's events, that prints; `increments` is None where there is no last one."""

    def __init__(self, increments: int | None, epochs: int, metric: str) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.increments, self.epochs, self.metric = increments, epochs, metric
        terminal = Terminal(file=sys.stderr)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
        )
        self.bar = Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)
        self.printed = time.monotonic()
        self.task = self.bar.add_task("compiling", total=epochs, note="")

    def __enter__(self) -> "Console":
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochDone):
            self.epoch(event.epoch)
        elif isinstance(event, Trained):
            self.increment(event.cost, event.tested)
        elif isinstance(event, Resumed):
            self.resumed(event.progress)

    def epoch(self, epoch: Epoch) -> None:
        note = "" if epoch.loss is None else f"loss {epoch.loss:.4f}"
        if epoch.validation is not None:
            note += f", validation {epoch.validation:.4f}"
        part = self.part(epoch.increment)
        self.bar.update(self.task, description=part, completed=epoch.epoch, note=note)
        if self.bar.disable and time.monotonic() - self.printed > SECONDS_BETWEEN_LINES:
            self.say(f"    {part}, epoch {epoch.epoch} of at most {self.epochs}" + (f": {note}" if note else ""))

    def say(self, line: str) -> None:
        """Prints a line."""
        print(line, flush=True)
        self.printed = time.monotonic()

    def increment(self, cost: Cost, tested: Sequence[Record]) -> None:
        found = [record.value for record in tested if record.metric == self.metric]
        quality = f"{self.metric} {shown(found[0])} before its update; " if found else ""
        update = (
            f"trained {cost.examples:,} examples in {cost.epochs} epoch{'s' * (cost.epochs > 1)}, {cost.seconds:.1f} s"
            + (f" (+ {cost.waited_seconds:.1f} s waiting for compilation)" if cost.waited_seconds >= 0.05 else "")
            + f", {cost.wall_seconds:.1f} s in all"
            if cost.epochs
            else "not updated"
        )
        self.say(f"  {self.part(cost.increment)}: {quality}{update}")

    def resumed(self, progress: Progress) -> None:
        """Says where the run continues."""
        over = self.increments is not None and progress.increment > self.increments
        where = "its end" if over else self.part(progress.increment) + " (in its training)" * progress.begun
        self.say(f"  continuing from the checkpoint: {where}")

    def part(self, t: int) -> str:
        """The name of part t."""
        return "base part" if t == 0 else f"increment {t}" + ("" if self.increments is None else f"/{self.increments}")
