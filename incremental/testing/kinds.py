"""Laws of one kind of strategy each: penalties, distillation, projections, isolation, policies."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.types import Anchor, Params, Teacher
from incremental.testing.looks import differs, first_batch, found, gap_between, norm
from incremental.testing.subject import LARGE, NAME, Path, Subject


def constant_within(paths: Sequence[Path], *, anchors: bool) -> Iterator[str]:
    """Teachers, and anchors where the strategy is a penalty, stay as they are within an increment."""
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


def penalty(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """0 in the base part, positive later, towards an anchor that moves with the increments."""
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
        slopes = jax.jit(jax.grad(term))
        slope, away = slopes(anchor), slopes(jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), anchor))
        if norm(slope) > 1e-3 * norm(away):
            yield (
                "its gradient at its own anchor is not 0: the penalty pulls towards something else than the anchor "
                "in its "
                "state, such as the one of an earlier increment"
            )


def distillation(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """A teacher that is the last increment's model, gets no gradient, and asks nothing of its equal."""
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
    later = jax.tree.map(lambda leaf: np.asarray(leaf)[-1], paths[2].params)
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


def projection(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """What it takes out of a step must be missing from what an increment added, under Adam."""
    strategy, path = subject.strategy(subject.floats), paths[2]
    own, before = path.begun.strategy[NAME], path.begun.learner.params
    batch = first_batch(strategy, own, path.begun, subject.data[2])
    moved = jax.tree.map(lambda after, before: np.asarray(after)[-1] - np.asarray(before), path.params, before)
    rng = np.random.default_rng(0)
    noise = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), before)

    @jax.jit
    def projected(step: Params) -> Params:
        step = strategy.grads(own, step, before, lambda _rows, _params=None: step, batch, jax.random.key(1))
        return strategy.updates(own, step, before)

    if gap_between(projected(noise), noise) < 1e-4:
        yield "in increment 2 it lets every direction through: nothing is projected"
        return
    left = norm(jax.tree.map(np.subtract, projected(moved), moved)) / norm(moved)
    if left > 1e-3:
        yield (
            f"{left:.1%} of what the weights moved lies where it may not: projecting gradients does not bind Adam, "
            f"whose "
            "moments move weights along directions whose gradient is 0; project in `updates`"
        )


def isolation(paths: Sequence[Path], plain: Sequence[Path]) -> Iterator[str]:
    """Some weights stay bit for bit, and what stayed once stays for ever."""

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


def policy(paths: Sequence[Path]) -> Iterator[str]:
    """The learner keeps the number of its increment."""
    for t, path in enumerate(paths):
        if int(path.ended.learner.increment) != t:
            yield f"it changes the learner's number of the increment ({t}): keys and decays would repeat"
            return
