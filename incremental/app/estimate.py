"""About how long a run will take, from a few batches: what a dry run says."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from incremental.data.stream import Stream
from incremental.run.policy import Update

FEW = 2048  # examples that are timed
SO_FAR: list[tuple[float, float]] = []
"""seconds of training and of compilation, of the dry runs of this process, which are the jobs of a sweep"""


def estimate(each: float, stream: Stream, update: Update, epochs: int, shapes: int, compiling: float) -> str:
    """A line for a dry run: the seconds of this run, and of all runs that this process has tried so far.

    `each`: seconds an example; a run has `shapes` sizes of tables and updates, each of which takes `compiling` seconds
    of compilation at least. Early stopping makes the time less, tests and what else is compiled make it more.
    """
    number = examples(stream, update) * epochs
    SO_FAR.append((each * number, shapes * compiling))
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


def per_example(run_epoch: Callable[[Any, Any], tuple[Any, Any]], state: Any, data: Any, rounds: int = 3) -> float:
    """Seconds an example: the least of a few timed epochs over the first examples, after one that is not timed."""
    few = max(min(int(data.size), FEW), 1)
    part = data._replace(size=jnp.int32(few))
    own, seconds = jax.tree.map(jnp.copy, state), []  # an epoch's program may take its state over
    for _ in range(rounds + 1):
        start = time.perf_counter()
        own, _ = jax.block_until_ready(run_epoch(own, part))
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]) / few


def examples(stream: Stream, update: Update) -> int:
    """How many examples all parts train on in one epoch each; at most, where the results decide on updates."""
    trained = (stream.training_events(plan.increments) for _, plan in update.plans(len(stream)))
    return sum(int(np.sum(~stream.validation[events])) for events in trained)


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
