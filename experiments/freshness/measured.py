"""What one run came to, event by event, so that increments of every length can be compared."""

import math
from pathlib import Path
from typing import NamedTuple

from incremental.errors import UserError
from incremental.report import read_runs
from incremental.report.runs import Run


class Measured(NamedTuple):
    """One run.

    Attributes:
        quality: by metric, the mean over all events that were tested, each before any training on it
        events: that were tested
        increments: that they were tested in
        updates
        examples: rows trained on in all updates, over all epochs
        written: parameters in the rows that the updates changed, their sum
        seconds: of all updates; compilation, tests and saves apart
    """

    quality: dict[str, float]
    events: int
    increments: int
    updates: int
    examples: int
    written: float
    seconds: float


def measured(directory: Path) -> Measured:
    """What the finished run in a directory came to."""
    found = read_runs([directory])
    if not found.finished:
        raise UserError(f"{directory}: {found.unfinished[0].why}")
    (run,) = found.finished
    qualities, number = dict[str, float](), dict[str, int]()
    for metric in run.metrics:
        qualities[metric], number[metric] = over_events(run, metric)
    cost = {name: value or 0.0 for name, value in run.cost.items()}
    updates = int(cost["updates"])
    return Measured(
        qualities,
        max(number.values()),
        run.increments or 0,
        updates,
        int(cost["examples"]),
        updates * cost["parameters_written"],
        updates * cost["seconds_per_update"],
    )


def over_events(run: Run, metric: str) -> tuple[float, int]:
    """Σ_t n_t q_t / Σ_t n_t and Σ_t n_t: q_t is the prequential value of increment t, n_t counts the events that it is
    the mean of. A summary's prequential mean, (1/T) Σ_t q_t, weighs an increment of one event as one of thousands."""
    total, events = 0.0, 0
    for trained_until, evaluated_on, name, value, count in run.evaluations:
        if name == metric and trained_until == evaluated_on - 1 and trained_until >= 0 and count:
            total, events = total + value * count, events + count
    return (total / events if events else math.nan), events
