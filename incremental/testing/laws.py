"""The laws: each yields, in plain words, what breaks and what that means for an experiment."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.problem import Model
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Memory, Params, PyTree, Sizes, State, Step, Teacher
from incremental.run.capacity import grow
from incremental.testing.looks import (
    brief,
    differs,
    first_batch,
    first_line,
    found,
    gap_between,
    norm,
    numbered,
)
from incremental.testing.subject import BATCH, EPOCHS, LARGE, MODEL, NAME, ROWS, SMALL, Path, Subject

Kind = Literal["penalty", "memory", "distillation", "projection", "isolation", "policy"]
ROUNDING = 1e-5  # of the same sums in another program
TOLERANCE = 0.05  # of weights that move by about 1, where the compiler may add in another order


def laws(
    subject: Subject, kinds: Sequence[Kind], off: Mapping[str, Any] | None, keeps: str, draws: str, freezes: bool
) -> Iterator[str]:
    """What breaks, in words."""
    paths = subject.run()
    plain = _plain(subject.model)
    yield from _finite(paths)
    yield from _level(subject, paths, plain)
    if not freezes:
        yield from _learns(subject, paths, off)
    yield from _effect(subject, paths, plain, off)
    yield from _fill(subject, paths)
    yield from _padding(subject, paths)
    yield from _lanes_and_growth(subject, paths)
    yield from _rows_of_memories(subject, paths)
    yield from _constant_within(paths, anchors="penalty" in kinds)
    if "penalty" in kinds:
        yield from _penalty(subject, paths)
    if "memory" in kinds:
        yield from _memory(subject, paths, keeps, draws)
    if "distillation" in kinds:
        yield from _distillation(subject, paths)
    if "projection" in kinds:
        yield from _projection(subject, paths)
    if "isolation" in kinds:
        yield from _isolation(paths, plain)
    if "policy" in kinds:
        yield from _policy(paths)


def _plain(model: Model) -> list[Path]:
    """Plain fine-tuning."""
    return _plain_default() if model is MODEL else Subject(lambda _problem: Strategy(), {}, model).run()


@functools.cache
def _plain_default() -> list[Path]:
    return Subject(lambda _problem: Strategy(), {}, MODEL).run()


def _finite(paths: Sequence[Path]) -> Iterator[str]:
    for t, path in enumerate(paths):
        leaves = jax.tree.leaves((path.ended.learner.params, path.ended.strategy, path.term))
        if not all(np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)):
            yield f"NaN or infinite numbers in the weights or its state after increment {t}: the run would stop there"
            return


def _level(subject: Subject, paths: Sequence[Path], plain: Sequence[Path]) -> Iterator[str]:
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


def _learns(subject: Subject, paths: Sequence[Path], off: Mapping[str, Any] | None) -> Iterator[str]:
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


def _fill(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """What an appended row weighs beside a whole batch, and beside one with a single row."""
    strategy, begun = subject.strategy(subject.floats), paths[2].begun
    own = begun.strategy[NAME]

    @jax.jit
    def weights(rows: Array) -> Array:
        new = jax.tree.map(lambda leaf: leaf[:BATCH], subject.data[2].rows)
        valid = new.valid & (jnp.arange(BATCH) < rows)
        new = new._replace(candidates=begun.learner.catalogue.seen, step=jnp.int32(0), valid=valid)
        batch = strategy.batch(own, new, jax.random.key(0))
        return jnp.where(batch.valid, batch.weight, 0.0)[BATCH:]

    whole, single = np.asarray(weights(jnp.int32(BATCH))), np.asarray(weights(jnp.int32(1)))
    if whole.shape == single.shape and not np.allclose(whole.sum(), single.sum(), rtol=1e-3):
        yield (
            f"the rows that it appends weigh {whole.sum():.4g} beside {BATCH} new rows, {single.sum():.4g} beside one: "
            "the last batch of an epoch would change the model most. Their weights are divided by the batch size anyway"
        )


def _effect(
    subject: Subject, paths: Sequence[Path], plain: Sequence[Path], off: Mapping[str, Any] | None
) -> Iterator[str]:
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


def _padding(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    def spoilt(data: Data) -> Data:
        rows, real = data.rows, data.rows.valid
        inputs = jax.tree.map(lambda leaf: jnp.where(real.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 5), rows.inputs)
        return data._replace(
            rows=rows._replace(
                inputs=inputs,
                labels=jnp.where(real, rows.labels, 6),
                weight=jnp.where(real, rows.weight, 3.0),
                increment=jnp.where(real, rows.increment, 9),
            )
        )

    other = subject.run(data=[spoilt(part) for part in subject.data])[-1]
    if differs((other.ended.learner, _visible(other)), (paths[-1].ended.learner, _visible(paths[-1]))):
        yield (
            "padding rows (valid=False, or beyond data.size) change the result: it would depend on how the increments "
            "happen to be padded; multiply by `valid`, draw below `data.size`"
        )


def _visible(path: Path) -> PyTree:
    """The strategy's state with the contents of empty slots left out."""

    def cleared(memory: Any) -> Any:
        if not isinstance(memory, Memory):
            return memory
        valid = memory.rows.valid
        rows = jax.tree.map(
            lambda leaf: jnp.where(valid.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, jnp.zeros_like(leaf)), memory.rows
        )
        return memory._replace(rows=rows)

    return jax.tree.map(cleared, path.ended.strategy, is_leaf=lambda leaf: isinstance(leaf, Memory))


def _lanes_and_growth(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """Both laws in one program; only where they break are they looked at apart."""
    try:
        state = _lane(subject, SMALL)
        grown = grow(state, subject.program(subject.floats, LARGE))
        last = subject.compiled(LARGE)[1](subject.floats, grown, subject.data[2])
        if gap_between(last.ended.learner.params, paths[-1].ended.learner.params) <= TOLERANCE:
            return
    except Exception:
        pass
    yield from _lanes(subject, paths)
    yield from _growth(subject, paths)


def _lane(subject: Subject, sizes: Sizes) -> State:
    """The state after increments 0 and 1 of the first of two lanes, under jax.vmap."""
    lanes = (jnp.arange(2, dtype=jnp.uint32), jax.tree.map(lambda value: jnp.stack([value, value]), subject.floats))
    state = jax.jit(jax.vmap(lambda seed, floats: subject.init(floats, seed, sizes)))(*lanes)
    step = jax.jit(
        jax.vmap(lambda floats, state, data: subject.increment(floats, state, data, sizes).ended, (0, 0, None))
    )
    for data in subject.data[:2]:
        state = step(lanes[1], state, data)
    return jax.tree.map(lambda leaf: leaf[0], state)


def _lanes(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    try:
        lane = _lane(subject, LARGE)
    except Exception as error:
        yield f"it cannot run as a lane of a packed sweep, under jax.vmap ({first_line(error)})"
        return
    gap = gap_between(lane.learner.params, paths[1].ended.learner.params)
    if gap > TOLERANCE:
        yield f"as a lane of a packed sweep (jax.vmap) it trains otherwise than alone (weights differ by {gap:.2g})"


def _growth(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    small = subject.run(data=subject.data[:2], sizes=SMALL)[-1].ended
    try:
        grown = grow(small, subject.program(subject.floats, LARGE))
    except Exception as error:
        yield f"its state cannot grow with the tables ({first_line(error)}): a run would stop where new ids arrive"
        return
    last = subject.compiled(LARGE)[1](subject.floats, grown, subject.data[2])
    gap = gap_between(last.ended.learner.params, paths[-1].ended.learner.params)
    if gap > TOLERANCE:
        yield (
            f"tables grown when new ids arrive do not train as tables allocated beforehand (weights differ by "
            f"{gap:.2g}): "
            "a leaf of the state is no mirror of the parameters (a flattened one, for instance), and old values "
            "land in "
            "wrong places"
        )


def _rows_of_memories(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
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


def _constant_within(paths: Sequence[Path], *, anchors: bool) -> Iterator[str]:
    for kind, what in ((Anchor, "anchor"), (Teacher, "teacher"))[0 if anchors else 1 :]:
        for t, path in enumerate(paths):
            fixed, moved = (
                [leaf for each in found(own, kind) for leaf in jax.tree.leaves(each.params)]
                for own in (path.begun.strategy, path.strategy)
            )
            for one, other in zip(fixed, moved, strict=True):
                if (np.asarray(other) != np.asarray(one)).any():
                    yield (
                        f"its {what} changes during increment {t}: it follows the weights (by gradients, or in "
                        f"`record`), "
                        "so there is nothing left to hold on to; set it in `end` only"
                    )
                    return


def _penalty(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    terms = [np.asarray(path.term) for path in paths]
    if np.abs(terms[0]).max() > 1e-6:
        yield f"its loss term is {np.abs(terms[0]).max():.2g} in the base part, where there is nothing to remember yet"
    for t in (1, 2):
        if not terms[t][-1] > 1e-9:
            yield (
                f"its loss term is {terms[t][-1]:.2g} at the end of increment {t}: the penalty is always 0, and the "
                f"row "
                "of the table would be plain fine-tuning under another name"
            )
            return
    anchors = [found(path.ended.strategy, Anchor) for path in paths]
    if not anchors[0]:
        yield (
            "there is no `Anchor` in its state: weights that it pulls towards and keeps elsewhere are a constant under "
            "jit (the first increment's for ever), and a fresh start beside them could not be refused"
        )
        return
    for t in (1, 2):
        if not any(differs(one, other) for one, other in zip(anchors[t - 1], anchors[t], strict=True)):
            yield f"its anchor does not move at the end of increment {t}: it pulls back to older weights"
            return
    strategy, begun = subject.strategy(subject.floats), paths[2].begun
    own, anchor = begun.strategy[NAME], anchors[1][0].params

    def term(params: Params) -> Array:
        batch = first_batch(strategy, own, begun, subject.data[2])
        outputs = subject.problem(LARGE).apply(params, batch.inputs)
        return sum(jax.tree.leaves(strategy.loss(own, params, batch, outputs)), jnp.float32(0.0))

    if len(anchors[1]) == 1 and not found(own, Teacher):
        slope = jax.jit(jax.grad(term))(anchor)
        away = jax.jit(jax.grad(term))(jax.tree.map(lambda leaf: leaf + 0.1, anchor))
        if norm(slope) > 1e-3 * norm(away):
            yield (
                "its gradient at its own anchor is not 0: the penalty pulls towards something else than the anchor "
                "in its "
                "state, such as the one of an earlier increment"
            )


def _memory(subject: Subject, paths: Sequence[Path], keeps: str, draws: str) -> Iterator[str]:
    memories = found(paths[0].ended.strategy, Memory)
    if not memories:
        yield "there is no `Memory` in its state: rows kept elsewhere are neither checkpointed nor counted as its cost"
        return
    if not all(bool(memory.rows.valid.any()) for memory in memories):
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
        return jnp.concatenate([older[:again], newer])[: len(newer)]

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
    counts = np.bincount(labels, minlength=LARGE.items)
    for memory in memories:
        valid = np.asarray(memory.rows.valid)
        kept = np.bincount(np.asarray(memory.rows.labels)[valid], minlength=LARGE.items)
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
    start = jax.jit(lambda: subject.init(subject.floats, jnp.uint32(0), LARGE))()
    learner = start.learner
    everything = jax.tree.map(lambda *leaves: jnp.concatenate([leaf[:n] for leaf, n in zip(leaves, ROWS, strict=True)]),
                              *[part.rows for part in subject.data])  # fmt: skip
    # Rows say their own number as their increment, and new rows come from far in the future.
    everything = everything._replace(increment=jnp.arange(sum(ROWS), dtype=jnp.int32))
    outputs = jax.jit(problem.apply)(learner.params, everything.inputs)
    total = steps * BATCH

    def fill(key: Array) -> Any:
        def one(own: Any, i: Array) -> tuple[Any, None]:
            epoch, place = jnp.divmod(i, steps)
            index = place * BATCH + jnp.arange(BATCH)
            new = jax.tree.map(lambda leaf: leaf[index], everything)
            new = new._replace(candidates=learner.catalogue.seen, step=i)
            step_key = jax.random.fold_in(key, i)
            batch = strategy.batch(own, new, jax.random.fold_in(step_key, 0))
            extra = len(batch.labels) - BATCH
            seen = jax.tree.map(lambda leaf: jnp.pad(leaf[index], [(0, extra), (0, 0)]), outputs)
            zeros = jax.tree.map(jnp.zeros_like, learner.params)
            step = Step(batch, new, seen, zeros, zeros, zeros, learner.params, epoch == 0)
            return strategy.record(own, step, jax.random.fold_in(step_key, 1)), None

        own, _ = jax.lax.scan(one, strategy.init(learner), jnp.arange(2 * steps))
        return own

    if keeps == "uniform":
        filled = jax.jit(jax.vmap(lambda seed: fill(jax.random.key(seed))))(jnp.arange(lanes, dtype=jnp.uint32))
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
    def ready() -> Any:
        """Filled, the increment ended, and the next begun."""
        key = jax.random.key(0)
        data = Data(everything, jnp.int32(sum(ROWS)), jnp.int32(0), everything.labels, everything.labels)
        own, after = strategy.end(fill(key), learner, data, key)
        later = jnp.int32(10**6)
        return strategy.begin(own, after._replace(increment=later), data._replace(increment=later), key)[0]

    own = ready()
    if not any(bool(memory.rows.valid.any()) for memory in found(own, Memory)):
        return
    new = jax.tree.map(lambda leaf: leaf[:BATCH], everything)
    later = jnp.full(BATCH, 10**6, jnp.int32)
    new = new._replace(increment=later, candidates=learner.catalogue.seen, step=jnp.int32(0))

    def drawn(key: Array) -> tuple[Array, Array]:
        batch = strategy.batch(own, new, key)
        groups = [jax.tree.map(lambda leaf: leaf[BATCH:], (batch.valid, batch.increment))]
        groups += [(each.valid, each.increment) for each in found(batch.memory, Batch)]
        return tuple(jnp.concatenate(parts) for parts in zip(*groups, strict=True))  # type: ignore[return-value]

    valid, number = map(np.asarray, jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(1), lanes)))
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


def _distillation(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    teachers = [found(path.ended.strategy, Teacher) for path in paths]
    if not teachers[0]:
        yield "there is no `Teacher` in its state: one kept elsewhere is a constant under jit, the first one for ever"
        return
    if np.abs(np.asarray(paths[0].term)).max() > 1e-6:
        yield "its loss term is not 0 in the base part, where there is no teacher yet"
    strategy, begun = subject.strategy(subject.floats), paths[2].begun
    own = begun.strategy[NAME]
    batch = first_batch(strategy, own, begun, subject.data[2])

    def term(params: Params, own: Any) -> Array:
        outputs = subject.problem(LARGE).apply(params, batch.inputs)
        return sum(jax.tree.leaves(strategy.loss(own, params, batch, outputs)), jnp.float32(0.0))

    slopes = jax.jit(jax.grad(term, argnums=(0, 1), allow_int=True))
    later = jax.tree.map(lambda leaf: leaf[-1], paths[2].params)
    away, taught = slopes(later, own)
    at_teacher, _ = slopes(teachers[1][0].params, own)
    if norm(away) < 1e-9:
        yield "its loss has no gradient when student and teacher differ: nothing is distilled"
    if norm(at_teacher) > 1e-3 * norm(away) + 1e-7:
        yield (
            "its gradient is not 0 when student and teacher are the same model: teacher and student see different "
            "things "
            "(dropout, candidates, temperature), or the teacher is not the model of the last increment"
        )
    if any(norm(teacher.params) > 0 for teacher in found(taught, Teacher)):
        yield "the teacher receives gradients: wrap what it says in jax.lax.stop_gradient"
    for t in (1, 2):
        if not any(differs(one, other) for one, other in zip(teachers[t - 1], teachers[t], strict=True)):
            yield f"its teacher does not change at the end of increment {t}: it stays the one of an older increment"
            return


def _projection(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """What it takes out of a step must be missing from what an increment added, under Adam."""
    strategy, path = subject.strategy(subject.floats), paths[2]
    own, before = path.begun.strategy[NAME], path.begun.learner.params
    batch = first_batch(strategy, own, path.begun, subject.data[2])
    moved = jax.tree.map(lambda after, before: after[-1] - before, path.params, before)
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(before))))
    noise = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), before)

    @jax.jit
    def projected(step: Params) -> Params:
        step = strategy.grads(own, step, before, lambda _rows, _params=None: step, batch, jax.random.key(1))
        return strategy.updates(own, step, before)

    if gap_between(projected(noise), noise) < 1e-4:
        yield "in increment 2 it lets every direction through: nothing is projected"
        return
    left = norm(jax.tree.map(jnp.subtract, projected(moved), moved)) / norm(moved)
    if left > 1e-3:
        yield (
            f"{left:.1%} of what the weights moved lies where it may not: projecting gradients does not bind Adam, "
            f"whose "
            "moments move weights along directions whose gradient is 0; project in `updates`"
        )


def _isolation(paths: Sequence[Path], plain: Sequence[Path]) -> Iterator[str]:
    def kept(t: int) -> list[Any]:
        """The weights that plain training moves in increment t, and that stay bit for bit here."""
        pairs = [(run[t - 1].ended.learner.params, run[t].ended.learner.params) for run in (paths, plain)]
        # A weight that is set to 0 twice was not held.
        still, moving = (
            jax.tree.map(lambda a, b: (np.asarray(a) == np.asarray(b)) & (np.asarray(a) != 0), *pair) for pair in pairs
        )
        both = jax.tree.map(lambda here, there: here & ~there, still, moving)
        return list(jax.tree.leaves(both))

    first, second = kept(1), kept(2)
    if not any(leaf.any() for leaf in second):
        yield "no weight stays bit for bit where it was: nothing is isolated from later increments"
    moves = jax.tree.map(lambda a, b: np.asarray(a) != np.asarray(b), *(plain[t].ended.learner.params for t in (1, 2)))
    pairs = zip(first, second, jax.tree.leaves(moves), strict=True)
    leaked = sum(int((one & ~two & moving).sum()) for one, two, moving in pairs)
    if leaked:
        yield f"{leaked} weights that were held through increment 1 moved in increment 2: what is isolated must stay so"


def _policy(paths: Sequence[Path]) -> Iterator[str]:
    for t, path in enumerate(paths):
        if int(path.ended.learner.increment) != t:
            yield f"it changes the learner's number of the increment ({t}): keys and decays would repeat"
            return
