"""Laws of training: it stays finite, starts level, learns, and does what it says."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.strategy import Strategy
from incremental.testing.looks import gap_between
from incremental.testing.subject import BATCH, NAME, Path, Subject

ROUNDING = 1e-5  # of the same sums in another program


def finite(paths: Sequence[Path]) -> Iterator[str]:
    """Weights, states and loss terms are finite numbers."""
    for t, path in enumerate(paths):
        leaves = jax.tree.leaves((path.ended.learner.params, path.ended.strategy, path.term))
        if not all(np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)):
            yield f"NaN or infinite numbers in the weights or its state after increment {t}: the run would stop there"
            return


def level(subject: Subject, paths: Sequence[Path], plain: Sequence[Path]) -> Iterator[str]:
    """The base part is plain training, in its steps, at its end, and where it is tested."""
    if subject.strategy(subject.floats).early:
        return
    for what, one, other in (
        ("trains otherwise than", paths[0].params, plain[0].params),
        ("leaves another model than", paths[0].ended.learner.params, plain[0].ended.learner.params),
        ("is tested otherwise than", paths[0].scores, plain[0].scores),
    ):
        if gap_between(one, other) > ROUNDING:
            yield (
                f"its base part {what} plain training (by {gap_between(one, other):.2g}): the rows of a table would "
                "not start level. A strategy whose hooks must act there says Strategy(..., early=True)"
            )
            return


def learns(subject: Subject, paths: Sequence[Path], off: Mapping[str, Any] | None) -> Iterator[str]:
    """At its default strength, or where it is off."""

    def falls(path: Path) -> bool:
        first, *_, last = np.asarray(path.data).tolist()
        return bool(last < first - 1e-3 * abs(first))

    if falls(paths[1]) or (off is not None and falls(_quiet(subject, off)[1])):
        return
    first, *_, last = np.asarray(paths[1].data).tolist()
    yield (
        f"under it nothing is learned: in increment 1 the data loss goes from {first:.4g} to {last:.4g}. "
        "A `view` that gives the model something else than its parameters in training, or a `grads` or `updates` that "
        "returns 0, shuts training off; if that is the method, say freezes=True"
    )


def fill(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """What an appended row weighs beside a whole batch, and beside one with a single row."""
    strategy, begun = subject.strategy(subject.floats), paths[2].begun
    if strategy.batch is Strategy().batch:
        return
    own = begun.strategy[NAME]

    @jax.jit
    def weights(rows: Array) -> Array:
        new = jax.tree.map(lambda leaf: leaf[:BATCH], subject.data[2].rows)
        valid = new.valid & (jnp.arange(BATCH) < rows)
        new = new._replace(candidates=begun.learner.catalogue.seen, step=jnp.int32(0), valid=valid, own=BATCH)
        batch = strategy.batch(own, new, jax.random.key(0))
        return jnp.where(batch.valid, batch.weight, 0.0)[BATCH:]

    whole, single = np.asarray(weights(jnp.int32(BATCH))), np.asarray(weights(jnp.int32(1)))
    if whole.shape == single.shape and not np.allclose(whole.sum(), single.sum(), rtol=1e-3):
        yield (
            f"the rows that it appends weigh {whole.sum():.4g} beside {BATCH} new rows, {single.sum():.4g} beside one: "
            "the last batch of an epoch would change the model most. Their weights are divided by the batch size anyway"
        )


def effect(
    subject: Subject, paths: Sequence[Path], plain: Sequence[Path], off: Mapping[str, Any] | None
) -> Iterator[str]:
    """It changes what the model says; switched off, it is plain fine-tuning."""
    gap = max(gap_between(one.scores, other.scores) for one, other in zip(paths[1:], plain[1:], strict=True))
    if gap < 1e-3:
        yield (
            "after three increments the model scores as after plain fine-tuning: the strategy does nothing (a penalty "
            "that is always 0, a memory that is never drawn), and its row of the table would be fine-tuning's"
        )
    if off is None:
        return
    one = _quiet(subject, off)[1]
    gap = gap_between(one.ended.learner.params, plain[1].ended.learner.params)
    if gap > 1e-3:
        yield (
            f"with {dict(off)} it is not plain fine-tuning (weights differ by {gap:.2g}): a sweep over the strength "
            f"would "
            "not start at the baseline, and part of the method is not under its control"
        )


def _quiet(subject: Subject, off: Mapping[str, Any]) -> list[Path]:
    """The paths with the arguments `off`."""
    floats, fixed = dict(subject.floats), dict(subject.fixed)
    for name, value in off.items():
        (floats if name in floats else fixed)[name] = jnp.float32(value) if name in floats else value
    same = fixed == subject.fixed
    quiet = subject if same else Subject(subject.factory, {**fixed, **floats}, subject.model)
    return quiet.run(floats)
