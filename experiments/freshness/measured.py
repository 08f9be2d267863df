"""What one run came to, event by event, so that increments of every length can be compared."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from incremental.errors import UserError
from incremental.report import read_runs
from incremental.report.runs import Run


class Measured(NamedTuple):
    """One run.

    Attributes:
        quality: by metric, the mean over all events that were tested, each before any training on it
        events: that were tested
        between: events between two updates, the median of the increments
        updates
        examples: rows trained on in all updates, over all epochs
        written: parameters in the rows that the updates changed, their sum
        seconds: of all updates; compilation, tests and saves apart
    """

    quality: dict[str, float]
    events: int
    between: float
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
    curves = {metric: curve(run, metric) for metric in run.metrics}
    whole = max(curves.values(), key=lambda own: sum(count for _, count in own))  # of a group there are fewer events
    counts = [count for _, count in whole]
    cost = {name: value or 0.0 for name, value in run.cost.items()}
    updates = int(cost["updates"])
    return Measured(
        {metric: over_events(own) for metric, own in curves.items()},
        sum(counts),
        float(np.median(counts)),
        updates,
        int(cost["examples"]),
        updates * cost["parameters_written"],
        updates * cost["seconds_per_update"],
    )


def curve(run: Run, metric: str) -> list[tuple[float, int]]:
    """The prequential value of each increment, and how many events it is the mean of; increments of none left out."""
    return [
        (value, count)
        for trained_until, evaluated_on, name, value, count in run.evaluations
        if name == metric and trained_until == evaluated_on - 1 and trained_until >= 0 and count
    ]


def over_events(own: Sequence[tuple[float, int]]) -> float:
    """Σ_t n_t q_t / Σ_t n_t of a curve's (q_t, n_t). A summary's prequential mean, (1/T) Σ_t q_t, weighs an increment
    of one event as one of thousands."""
    events = sum(count for _, count in own)
    return sum(value * count for value, count in own) / events if events else math.nan
