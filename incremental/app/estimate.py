"""About how long a run will take, from a few batches: what a dry run says."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from incremental.data.stream import Stream
from incremental.run.policy import Update

FEW = 2048  # examples that are timed
ENOUGH = 3.0  # seconds of timed epochs, after which no further one is timed
SO_FAR: list[tuple[float, float]] = []
"""seconds of training and of compilation, of the dry runs of this process, which are the jobs of a sweep"""


class Pace(NamedTuple):
    """Seconds of training.

    Attributes:
        epoch: of an epoch, whatever its examples
        each: of each example
    """

    epoch: float
    each: float


def estimate(pace: Pace, stream: Stream, update: Update, epochs: int, shapes: int, compiling: float) -> str:
    """A line for a dry run: the seconds of this run, and of all runs that this process has tried so far.

    A run has `shapes` sizes of tables and updates, each of which takes `compiling` seconds of compilation at least.
    Early stopping makes the time less, tests and what else is compiled make it more.
    """
    parts = examples(stream, update)
    number = sum(parts) * epochs
    SO_FAR.append((pace.epoch * len(parts) * epochs + pace.each * number, shapes * compiling))
    trained, compiled = SO_FAR[-1]
    line = (
        f"  about {told(trained)} of training at most ({epochs} epoch{'s' * (epochs > 1)}, {number:,} examples), and "
        f"{told(compiled)} or more of compilation ({shapes} size{'s' * (shapes > 1)}, {compiling:.1f} s each; less "
        "where they are kept), tests apart"
    )
    if len(SO_FAR) > 1:
        together, more = (sum(part) for part in zip(*SO_FAR, strict=True))
        line += (
            f"; the {len(SO_FAR)} runs so far, one after the other: about {told(together)} and {told(more)} or more "
            "(runs of one program share its compilation)"
        )
    return line


def timed(run_epoch: Callable[[Any, Any], tuple[Any, Any]], state: Any, data: Any, rounds: int = 3) -> Pace:
    """The pace, from epochs over the first examples and over half as many.

    Of each the least of a few counts, after one that does not, which alone is enough where an epoch is slow.
    """
    few = max(min(int(data.size), FEW), 1)
    own = jax.tree.map(jnp.copy, state)  # an epoch's program may take its state over

    def least(number: int) -> float:
        nonlocal own
        part = data._replace(size=jnp.int32(number))
        seconds: list[float] = []
        while len(seconds) <= rounds and sum(seconds) < ENOUGH:
            start = time.perf_counter()
            own, _ = jax.block_until_ready(run_epoch(own, part))
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:] or seconds)

    whole = least(few)
    if few == 1:
        return Pace(0.0, whole)
    half = few // 2
    each = min(max(whole - least(half), 0.0) / (few - half), whole / few)
    return Pace(whole - few * each, each)


def examples(stream: Stream, update: Update) -> list[int]:
    """How many examples each part trains on in an epoch; at most, where the results decide on updates."""
    trained = (stream.training_events(plan.increments) for _, plan in update.plans(len(stream)))
    return [int(np.sum(~stream.validation[events])) for events in trained]


def told(seconds: float) -> str:
    """Seconds as a person says them.

    >>> told(0.3), told(42.0), told(150.0), told(9000.0), told(400_000.0)
    ('1 s', '42 s', '3 min', '2.5 h', '4.6 days')
    """
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    if seconds < 100 * 60:
        return f"{-(-seconds // 60):.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
