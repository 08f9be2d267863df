"""Laws of memories: which rows they keep, and what is drawn from them."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.strategy import chain
from incremental.core.types import Batch, Data, Memory, Step
from incremental.testing.looks import brief, found, numbered
from incremental.testing.subject import BATCH, EPOCHS, LARGE, NAME, ROWS, Path, Subject


def rows_as_offered(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """Every row that any memory ever holds was trained on before, and is stored as it came."""
    offered: dict[int, Any] = {}
    for t, path in enumerate(paths):
        for memory in found(path.begun.strategy, Memory):
            for number, row in numbered(memory.rows):
                if number not in offered:
                    yield (
                        f"after `begin` of increment {t} a memory holds row {number}, which is not yet trained on "
                        f"({brief(row)}): "
                        "rows leak from the future, and replay would be better than it can be"
                    )
                    return
        offered |= dict(numbered(subject.data[t].rows))
        for memory in found(path.ended.strategy, Memory):
            numbers = [number for number, _ in numbered(memory.rows)]
            for number, row in numbered(memory.rows):
                if number not in offered:
                    yield (
                        f"after increment {t} a memory holds a row that was never trained on ({brief(row)}): it comes "
                        "from the future or from padding, or its fields were changed"
                    )
                    return
                if row != offered[number]:
                    yield (
                        f"a memory holds a row otherwise than it came ({brief(row)} for "
                        f"{brief(offered[number])}): ids "
                        "renamed within a step mean other users and items in the next, so store catalogue ids"
                    )
                    return
            if len(numbers) != len(set(numbers)):
                yield (
                    f"after increment {t} a memory holds the same row twice: rows were inserted once an epoch, not "
                    f"once "
                    "(`step.offered`), or selected twice, and count double"
                )
                return


def memory_of_rows(subject: Subject, paths: Sequence[Path], keeps: str, draws: str) -> Iterator[str]:
    """It keeps and draws what it promises."""
    memories = found(paths[0].ended.strategy, Memory)
    if not memories:
        yield "there is no `Memory` in its state: rows kept elsewhere are neither checkpointed nor counted as its cost"
        return
    if not all(np.asarray(memory.rows.valid).any() for memory in memories):
        yield "its memory is empty after the base part: there is nothing to replay"
        return
    if keeps == "quota":
        yield from _quota(subject, memories)
    if keeps == "uniform":
        total = sum(ROWS)
        counted = int(found(paths[-1].ended.strategy, Memory)[0].inserted)
        if counted != total:
            yield (
                f"its memory was offered {counted} rows, of {total} trained on over {EPOCHS} epochs each: a "
                f"reservoir that "
                "counts epochs is not uniform over the stream; insert `step.offered`"
            )
        yield from _window(subject)
    yield from _chances(subject, keeps, draws)


def _window(subject: Subject) -> Iterator[str]:
    """An update that trains on older rows again, as a sliding window does, offers the new ones only."""
    old, new = subject.data[:2]
    again, first = 20, int(old.size) + int(new.size)

    def joined(older: Array, newer: Array) -> Array:
        return jnp.asarray(np.concatenate([np.asarray(older)[:again], newer])[: len(newer)])

    size = min(again + int(new.size), len(new.rows.labels))
    window = new._replace(rows=jax.tree.map(joined, old.rows, new.rows), size=jnp.int32(size))
    memory = found(subject.run(data=[old, window])[-1].ended.strategy, Memory)[0]
    expected = first - (again + int(new.size) - size)
    if int(memory.inserted) != expected:
        yield (
            f"where an update trains on {again} rows of the last increment again, its memory was offered "
            f"{int(memory.inserted)} rows in all, of {expected} that there are: under a sliding window old rows would "
            "be kept several times; insert `step.offered`"
        )


def _quota(subject: Subject, memories: Sequence[Memory]) -> Iterator[str]:
    """After the base part: within one of capacity * share, by label, and never more than there are."""
    rows = subject.data[0].rows
    labels = np.asarray(rows.labels)[np.asarray(rows.valid)]
    counts = np.bincount(labels, minlength=LARGE.slots)
    for memory in memories:
        valid = np.asarray(memory.rows.valid)
        kept = np.bincount(np.asarray(memory.rows.labels)[valid], minlength=LARGE.slots)
        share = min(len(valid), len(labels)) * counts / counts.sum()
        wrong = np.flatnonzero((kept > np.ceil(share - 1e-4)) | (kept < np.floor(share + 1e-4)))
        if len(wrong):
            label = int(wrong[0])
            yield (
                f"label {label} has {kept[label]} rows in the memory, its quota is {share[label]:.2f}: exemplars "
                f"exceed the "
                "largest-remainder quotas, and frequent items crowd out the others"
            )
            return


def _chances(subject: Subject, keeps: str, draws: str) -> Iterator[str]:
    """Inclusion of rows and of draws over many keys, by the hooks alone: χ² at 1e-5."""
    from scipy import stats

    strategy = subject.strategy(subject.floats)
    problem, lanes, steps = subject.problem(LARGE), 500, sum(ROWS) // BATCH
    learner = subject.compiled(LARGE)[0](subject.floats, jnp.uint32(0)).learner

    def joined(*leaves: Array) -> Array:
        return jnp.asarray(np.concatenate([np.asarray(leaf)[:n] for leaf, n in zip(leaves, ROWS, strict=True)]))

    everything = jax.tree.map(joined, *[part.rows for part in subject.data])
    # Rows say their own number as their increment, and new rows come from far in the future.
    everything = everything._replace(increment=jnp.arange(sum(ROWS), dtype=jnp.int32))
    outputs = jax.jit(problem.apply)(learner.params, everything.inputs)
    total = steps * BATCH

    def fill(seed: Array) -> Any:
        key = jax.random.key(seed)

        def one(own: Any, i: Array) -> tuple[Any, None]:
            epoch, place = jnp.divmod(i, steps)
            index = place * BATCH + jnp.arange(BATCH)
            new = jax.tree.map(lambda leaf: leaf[index], everything)
            new = new._replace(candidates=learner.catalogue.seen, step=i, own=BATCH)
            step_key = jax.random.fold_in(key, i)
            batch = strategy.batch(own, new, jax.random.fold_in(step_key, 0))
            extra = len(batch.labels) - BATCH
            seen = jax.tree.map(lambda leaf: jnp.pad(leaf[index], [(0, extra), (0, 0)]), outputs)
            zeros = jax.tree.map(jnp.zeros_like, learner.params)
            step = Step(batch, new, seen, zeros, zeros, zeros, learner.params, epoch == 0)
            return strategy.record(own, step, jax.random.fold_in(step_key, 1)), None

        own, _ = jax.lax.scan(one, strategy.init(learner), jnp.arange(2 * steps))
        return own

    filled = jax.jit(jax.vmap(fill))(np.arange(lanes if keeps == "uniform" else 1, dtype=np.uint32))
    if keeps == "uniform":
        for memory in found(filled, Memory):
            valid, number = np.asarray(memory.rows.valid), np.asarray(memory.rows.increment)
            capacity = valid.shape[1]
            if capacity >= total:
                continue
            counts = np.bincount(number[valid], minlength=total)[:total]
            share = min(capacity / total, 1.0)
            statistic = ((counts - lanes * share) ** 2 / (lanes * share * (1 - share))).sum()
            first, second = counts[: total // 2].mean(), counts[total // 2 :].mean()
            if stats.chi2.sf(statistic * (total - 1) / total, total - 1) < 1e-5:
                yield (
                    "its memory is not uniform over the rows offered (an early row is kept with probability "
                    f"{first / lanes:.2f}, a late one with {second / lanes:.2f}, expected {share:.2f}): it favours "
                    f"a part "
                    "of the stream, counts epochs, or uses a key that does not vary"
                )

    @jax.jit
    def ready(filled: Any) -> Any:
        """The first lane, the increment ended, and the next begun."""
        key, own = jax.random.key(0), jax.tree.map(lambda leaf: leaf[0], filled)
        last = jnp.int32(sum(ROWS) - 1)
        data = Data(everything, last + 1, last, everything.labels, everything.labels)
        whole = chain(**{NAME: strategy})  # gives `fit` where it is asked for
        given: Any = ({NAME: own}, learner._replace(increment=last), data, key, lambda params, *_, **__: params)
        own, after = whole.end(*given)
        later = jnp.int32(10**6)
        given = (own, after._replace(increment=later), data._replace(increment=later), *given[3:])
        return whole.begin(*given)[0][NAME]

    own = ready(filled)
    if not any(np.asarray(memory.rows.valid).any() for memory in found(own, Memory)):
        return
    new = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[:BATCH]), everything)
    later = jnp.full(BATCH, 10**6, jnp.int32)
    new = new._replace(increment=later, candidates=learner.catalogue.seen, step=jnp.int32(0), own=BATCH)

    def drawn(key: Array) -> tuple[Array, Array]:
        batch = strategy.batch(own, new, key)
        groups = [jax.tree.map(lambda leaf: leaf[BATCH:], (batch.valid, batch.increment))]
        groups += [(each.valid, each.increment) for each in found(batch.memory, Batch)]
        return tuple(jnp.concatenate(parts) for parts in zip(*groups, strict=True))  # type: ignore[return-value]

    many = jax.jit(lambda: jax.vmap(drawn)(jax.random.split(jax.random.key(1), lanes)))
    valid, number = map(np.asarray, many())
    if not valid.any():
        yield "a batch draws nothing from its memory although there are rows in it"
        return
    held = np.concatenate([np.asarray(m.rows.increment)[np.asarray(m.rows.valid)] for m in found(own, Memory)])
    if (number == number[0]).all() and len(np.unique(number[0][valid[0]])) < len(held):
        yield (
            "it draws the same rows whatever the key: every batch would replay the same few rows; derive all draws "
            "from "
            "the key that the hook is given"
        )
        return
    counts = np.bincount(number[valid], minlength=total)[held]
    if draws == "uniform" and stats.chisquare(counts).pvalue < 1e-5:
        yield (
            f"its draws are not uniform over its memory (between {counts.min()} and {counts.max()} of "
            f"{counts.sum()} draws "
            "for a row): some rows are replayed more than others; say draws='other' if that is the method"
        )
