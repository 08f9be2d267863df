"""One lane: a program's functions as they are, on the device or the devices that it is laid out over."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.program import Program
from incremental.core.sharding import put, shapes
from incremental.core.spec import Input, Sizes
from incremental.core.types import Params, PyTree, Ranks, Seen, State
from incremental.run.capacity import grow, into_corner
from incremental.run.compiled import Compiled, Spent, spent_by
from incremental.run.stopping import Best, better, restored, started

Build = Callable[[Sizes], Program]
COLUMNS = 16


class Functions:
    """A program's functions at given capacities, compiled as they are met."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.init = Compiled(program.init)
        self.restart = Compiled(program.restart, donate=(0,))
        self.begin = Compiled(program.begin, donate=(0,))
        self.run_epoch = Compiled(program.run_epoch, donate=(0,))
        self.base_epoch = Compiled(program.base_epoch, donate=(0,)) if program.base_epoch else self.run_epoch
        self.validate = Compiled(program.validate, donate=(0,))
        self.end = Compiled(program.end, donate=(0,))
        self.rank = Compiled(program.rank)
        self.rank_lists = Compiled(program.rank_lists) if program.rank_lists else self.rank
        self.sums = Compiled(checksums)
        self.written = Compiled(parameters_written)
        self.started = Compiled(started)
        self.better = Compiled(better, donate=(0,))
        self.grow = Compiled(lambda state: grow(state, program))

    @property
    def spent(self) -> Spent:
        """On compilation."""
        return spent_by(self)


def checksums(params: Params) -> PyTree:
    """[rows] uint32 of each leaf: Σ bits · (odd numbers), modulo 2^32, so that one changed number changes its row's."""

    def of(leaf: Array) -> Array:
        kind = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = leaf.astype(kind) if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, kind)
        bits = bits.astype(jnp.uint32).reshape(leaf.shape[0] if leaf.ndim else 1, -1)
        odd = jnp.uint32(2654435761) * (2 * jnp.arange(bits.shape[1], dtype=jnp.uint32) + 1)
        return row_sums(bits * odd)

    return jax.tree.map(of, params)


def row_sums(terms: Array) -> Array:
    """[rows] uint32 of [rows, n] uint32, modulo 2^32, where the order does not matter: of as many columns at once as a
    processor adds, for along a row XLA on a CPU adds number by number, which takes five times as long."""
    if terms.shape[1] < COLUMNS:
        return terms.sum(1, dtype=jnp.uint32)
    even = jnp.pad(terms, ((0, 0), (0, -terms.shape[1] % COLUMNS)))
    sums = even.reshape(len(terms), -1, COLUMNS).sum(1, dtype=jnp.uint32)
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0]


def parameters_written(before: PyTree, after: PyTree, params: Params) -> Array:
    """How many of the `params` are in rows whose checksums `before` and `after` differ. A row is what the first axis
    counts."""

    def of(old: Array, new: Array, leaf: Array) -> Array:
        return (old != new).sum() * (leaf.size // max(len(old), 1))

    return sum(jax.tree.leaves(jax.tree.map(of, before, after, params)), jnp.int32(0))


def total(functions: Iterable[Any]) -> Spent:
    """What `Functions` have spent together."""
    each = [one.spent for one in [*functions]]
    return Spent(sum(one.seconds for one in each), sum(one.waited for one in each))


class Kept(NamedTuple):
    """What is kept of a run between two epochs."""

    state: State
    best: Best | None  # None: no epoch is better than the state's own, or no update is running
    before: PyTree  # checksums of the parameters at the update's start; None: no update is running


def like(program: Program) -> Kept:
    """What is kept of one lane, in ShapeDtypeStructs that say where each leaf lies."""
    state = jax.eval_shape(program.init, jax.random.key(0))
    best = Best(state.learner, state.strategy) if program.keeps else None
    whole: Kept = shapes(program, Kept(state, best, jax.eval_shape(checksums, state.learner.params)))
    return whole


class Alone:
    """How one lane's functions are compiled, and where its arrays lie. It is the case n = 1 of `incremental.run.lanes`,
    without a lane axis on the device; on the host everything has one.

    `made` are the functions of the same build by capacities, which a sweep's runs share; None: its own.
    """

    lanes = total = 1

    def __init__(self, build: Build, seed: int = 0, made: dict[Sizes, Functions] | None = None) -> None:
        self.build, self.key = build, jax.random.key(seed)
        self.shared = made is not None
        self.made: dict[Sizes, Functions] = {} if made is None else made
        self.making = threading.Lock()
        self.counted = self.spent()

    def at(self, sizes: Sizes) -> "Bound":
        """The functions at these capacities."""
        found = self.made.get(sizes)
        if found is None:
            with self.making:
                if sizes not in self.made:
                    self.made[sizes] = Functions(self.build(sizes))
                found = self.made[sizes]
        return Bound(found, self.key)

    def only(self, sizes: Sizes) -> None:
        """Of functions of its own it drops those at other capacities: tables only grow."""
        if not self.shared:
            with self.making:
                past = [each for at, each in self.made.items() if at != sizes]
                self.made = {sizes: self.made[sizes]}
                self.counted = self.counted.less(total(past))

    def ahead(self) -> bool:
        """Whether programs may be compiled before their arguments are there. Over several devices they may not: where
        the arguments will lie is XLA's choice."""
        return self.program.shardings is None

    @property
    def program(self) -> Program:
        """One of those that there are; another thread may add some, so that they are copied first."""
        first, *_ = [*self.made.values()]
        return first.program

    def spent(self) -> Spent:
        """On the compilation of what there is."""
        return total(self.made.values())

    def inputs(self, sizes: Sizes) -> Mapping[str, Input]:
        """What the program's examples hold."""
        return self.build(sizes).inputs

    def compiling(self) -> Spent:
        """What was spent on compilation since the last call."""
        last, self.counted = self.counted, self.spent()
        return self.counted.less(last)

    def on(self, lanes: Sequence[int]) -> None:
        """What functions take to know which lanes they change."""

    def place(self, tree: PyTree) -> PyTree:
        """Host arrays on the program's device or devices."""
        return put(tree, self.program)

    def host(self, tree: PyTree) -> PyTree:
        """A tree on the host, with a lane axis."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], jax.device_get(tree))

    def device(self, tree: PyTree) -> PyTree:
        """The inverse of `host`."""
        return self.place(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), tree))

    def apart(self, kept: Kept) -> Callable[[int], Kept]:
        """(lane) -> its own."""
        return lambda _lane: kept

    def put_together(self, found: Mapping[int, Kept], sizes: Sizes) -> Kept:
        """What the lanes keep: new states, and those of `found` in their places.

        Tables of `found` may be smaller: one that is grown later equals one allocated beforehand.
        """
        f = self.at(sizes)
        if not found:
            return Kept(f.init(), None, None)
        state, best, before = found[0]
        if jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, f.like().state):
            return found[0]
        if best is not None:
            best = Best(*f.grow(state._replace(learner=best.learner, strategy=best.strategy))[:2])
        if before is not None:
            before = jax.tree.map(into_corner, f.sums(f.init()), before)
        return Kept(f.grow(state), best, before)


class Bound:
    """The functions at one size, of a lane with its key; `_on` is there for several lanes only."""

    def __init__(self, functions: Functions, key: Array) -> None:
        self.functions, self.key, self.program = functions, key, functions.program

    def init(self) -> State:
        state: State = self.functions.init(self.key)
        return state

    def like(self) -> Kept:
        """What a lane keeps, in ShapeDtypeStructs that say where each leaf lies."""
        return like(self.program)

    def grow(self, state: State) -> State:
        """The state in larger tables, these."""
        grown: State = self.functions.grow(state)
        return grown

    def sums(self, state: State) -> PyTree:
        """The checksums of the parameters."""
        return self.functions.sums(state.learner.params)

    def begun(self, _on: Any, _before: PyTree, sums: PyTree) -> PyTree:
        """The checksums at an update's start."""
        return sums

    def keep(self, _on: Any, best: Best | None, state: State) -> Best:
        """The best epoch, which is the state's."""
        kept: Best = self.functions.started(state) if best is None else self.functions.better(best, state)
        return kept

    def restored(self, _on: Any, state: State, best: Best) -> State:
        """The state as its best epoch left it."""
        return restored(state, best)

    def restart(self, _on: Any, state: State, data: PyTree) -> State:
        changed: State = self.functions.restart(state, data)
        return changed

    def begin(self, _on: Any, state: State, data: PyTree) -> State:
        changed: State = self.functions.begin(state, data)
        return changed

    def epoch(self, _on: Any, state: State, _number: int, data: PyTree, *, base: bool) -> tuple[State, Any]:
        """The state after an epoch, of the base part or an increment, and what the epoch came to."""
        run = self.functions.base_epoch if base else self.functions.run_epoch
        changed: tuple[State, Any] = run(state, data)
        return changed

    def validate(self, _on: Any, state: State, validation: PyTree, seen: Seen | None) -> State:
        changed: State = self.functions.validate(state, validation, seen)
        return changed

    def end(self, _on: Any, state: State, data: PyTree) -> State:
        changed: State = self.functions.end(state, data)
        return changed

    def ranks(self, state: State, data: PyTree, seen: Seen | None, *, lists: bool = False) -> Ranks:
        rank = self.functions.rank_lists if lists else self.functions.rank
        found: Ranks = rank(state, data, seen)
        return found

    def of_lanes(self, ranks: Ranks) -> list[Ranks]:
        """Each lane's, on the host."""
        return [jax.device_get(ranks)]

    def written(self, before: PyTree, after: PyTree, params: Params) -> Array:
        """How many parameters differ, by their checksums."""
        found: Array = self.functions.written(before, after, params)
        return found

    def traced(self, state: State, data: PyTree) -> dict[str, Callable[[], State]]:
        """By hook, a function to the shapes of the state after it. Compiling uses the trace again."""
        f = self.functions
        return {
            "begin": lambda: f.begin.traced(state, data),
            # An epoch of an increment, which the base part does not run: what it refuses is said before any training.
            "record": lambda: f.run_epoch.traced(state, data)[0],
            "end": lambda: f.end.traced(state, data),
        }
