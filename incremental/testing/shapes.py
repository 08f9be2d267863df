"""Laws of sizes: padding, lanes, tables that grow."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.spec import Sizes
from incremental.core.types import Data, Memory, PyTree, State
from incremental.run.capacity import grow, into_corner
from incremental.testing.looks import differs, first_line, gap_between
from incremental.testing.subject import EPOCHS, LARGE, SMALL, Path, Subject

TOLERANCE = 0.05  # of weights that move by about 1, where the compiler may add in another order


def padding(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """What stands in padding rows changes nothing."""

    def spoilt(data: Data) -> Data:
        rows: Any = data.rows
        real = np.asarray(rows.valid)
        inputs = jax.tree.map(lambda leaf: np.where(real.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 5), rows.inputs)
        return data._replace(
            rows=rows._replace(
                inputs=inputs,
                labels=np.where(real, rows.labels, 6),
                weight=np.where(real, rows.weight, 3.0),
                increment=np.where(real, rows.increment, 9),
                owner=np.where(real, rows.owner, 7),
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
        valid = np.asarray(memory.rows.valid)
        rows = jax.tree.map(
            lambda leaf: np.where(valid.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, np.zeros_like(leaf)), memory.rows
        )
        return memory._replace(rows=rows)

    return jax.tree.map(cleared, path.ended.strategy, is_leaf=lambda leaf: isinstance(leaf, Memory))


def lanes_and_growth(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """Both laws in one program; only where they break are they looked at apart."""
    try:
        grown = _through_small_lanes(subject, paths[0].ended)
        last = subject.compiled(LARGE)[1](subject.floats, grown, subject.data[2])
        if gap_between(last.ended.learner.params, paths[-1].ended.learner.params) <= TOLERANCE:
            return
    except Exception:
        pass
    yield from _lanes(subject, paths)
    yield from _growth(subject, paths)


def _through_small_lanes(subject: Subject, state: State) -> State:
    """The state after increment 1, which it went through in small tables, beside the lane of another seed.

    A state is the leading corner of one with more ids, so that a small one after the base part needs no program.
    """
    init, increment = subject.compiled(LARGE)
    fresh = init(subject.floats, np.uint32(1))
    other = increment(subject.floats, fresh, subject.data[0]).ended
    small = jax.eval_shape(lambda floats, seed: subject.init(floats, seed, SMALL), subject.floats, np.uint32(0))

    def lanes(like: Any, *leaves: Any) -> Any:
        if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
            data = np.stack([np.asarray(jax.random.key_data(leaf)) for leaf in leaves])
            return jax.random.wrap_key_data(jnp.asarray(data))
        return np.stack([np.asarray(leaf)[_corner(like)] for leaf in leaves])

    def one(floats: Mapping[str, Any], state: State, epoch: Array) -> State:
        program, data = subject.program(floats, SMALL), subject.data[1]

        def where(is_here: Array, then: State, state: State) -> State:
            return jax.tree.map(lambda new, old: jnp.where(is_here, new, old), then, state)

        state = where(epoch == 0, program.begin(state, data), state)
        state, _ = program.run_epoch(state, data)
        return where(epoch == EPOCHS - 1, program.end(state, data), state)

    ended, run = jax.tree.map(lanes, small, state, other), jax.jit(jax.vmap(one, (0, 0, None)))
    for epoch in range(EPOCHS):  # not a loop inside: under vmap it would be traced several times
        ended = run(_twice(subject.floats), ended, np.int32(epoch))

    @jax.jit
    def grown(fresh: State, lanes: State) -> State:
        return jax.tree.map(lambda new, lane: into_corner(new, lane[0]), fresh, lanes)

    whole: State = grown(init(subject.floats, np.uint32(0)), ended)
    return whole


def _corner(leaf: Any) -> tuple[slice, ...]:
    return tuple(slice(n) for n in leaf.shape)


def _twice(floats: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.stack([value, value]) for name, value in floats.items()}


def _lanes_at(subject: Subject, sizes: Sizes) -> State:
    """Two lanes after increments 0 and 1, each function of the program under jax.vmap, as a packed sweep has it."""
    floats = _twice(subject.floats)

    @functools.cache
    def lanes(name: str) -> Callable[..., Any]:
        def one(floats: Mapping[str, Any], state: State, data: Data) -> State:
            changed = getattr(subject.program(floats, sizes), name)(state, data)
            return changed if isinstance(changed, State) else changed[0]  # an epoch has its report beside it

        return jax.jit(jax.vmap(one, (0, 0, None)))

    init = jax.jit(jax.vmap(lambda floats, seed: subject.init(floats, seed, sizes)))
    state, base = init(floats, np.arange(2, dtype=np.uint32)), subject.program(subject.floats, sizes).base_epoch
    for data, epoch in zip(subject.data[:2], ("base_epoch" if base else "run_epoch", "run_epoch"), strict=True):
        for name in ("begin", *[epoch] * EPOCHS, "end"):
            state = lanes(name)(floats, state, data)
    return state


def _lanes(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    try:
        lanes = _lanes_at(subject, LARGE)
    except Exception as error:
        yield f"it cannot run as a lane of a packed sweep, under jax.vmap ({first_line(error)})"
        return
    lane = jax.tree.map(lambda leaf: np.asarray(leaf)[0], lanes.learner.params)
    gap = gap_between(lane, paths[1].ended.learner.params)
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
