"""One lane: a program's functions as they are, on the device or the devices that it is laid out over."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.sharding import put, shapes
from incremental.core.spec import Input, Sizes
from incremental.core.types import Params, Program, PyTree, Ranks, Seen, State
from incremental.run.capacity import grow
from incremental.run.compiled import Compiled

Build = Callable[[Sizes], Program]


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
        self.written = Compiled(parameters_written)
        self.copy = Compiled(lambda tree: jax.tree.map(jnp.copy, tree))

    @property
    def seconds(self) -> float:
        """Spent on compilation."""
        return sum(each.seconds for each in {each for each in vars(self).values() if isinstance(each, Compiled)})


@lru_cache(maxsize=2)
def functions_of(build: Build, sizes: Sizes) -> Functions:
    """The functions of a program: the same ones for equal builds, so that the seeds of a sweep compile once."""
    return Functions(build(sizes))


def parameters_written(before: Params, after: Params) -> Array:
    """How many parameters differ."""
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).sum(), before, after)), jnp.int32(0))


class Alone:
    """How one lane's functions are compiled, and where its arrays lie. It is the case n = 1 of `incremental.run.lanes`,
    without a lane axis on the device; on the host everything has one."""

    lanes = total = 1

    def __init__(self, build: Build, seed: int = 0) -> None:
        self.build, self.key = build, jax.random.key(seed)
        self.made: dict[Sizes, Bound] = {}
        self.counted = 0.0

    def at(self, sizes: Sizes) -> "Bound":
        """The functions at these capacities; older capacities are dropped, tables only grow."""
        if sizes not in self.made:
            functions = functions_of(self.build, sizes)
            self.made, self.counted = {sizes: Bound(functions, self.key)}, functions.seconds
        return self.made[sizes]

    def inputs(self, sizes: Sizes) -> Mapping[str, Input]:
        """What the program's examples hold."""
        return self.build(sizes).inputs

    def compiling(self) -> float:
        """Seconds spent on compilation since the last call."""
        last, self.counted = self.counted, sum(each.functions.seconds for each in self.made.values())
        return self.counted - last

    def on(self, lanes: Sequence[int]) -> None:
        """What functions take to know which lanes they change."""

    def place(self, tree: PyTree) -> PyTree:
        """Host arrays on the program's device or devices."""
        return put(tree, next(iter(self.made.values())).program)

    def host(self, tree: PyTree) -> PyTree:
        """A tree on the host, with a lane axis."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], jax.device_get(tree))

    def device(self, tree: PyTree) -> PyTree:
        """The inverse of `host`."""
        return self.place(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), tree))

    def apart(self, state: State, before: Params) -> Callable[[int], tuple[State, Params]]:
        """(lane) -> its own state, and its parameters at the update's start."""
        return lambda _lane: (state, before)

    def put_together(self, found: Mapping[int, tuple[State, Params]], sizes: Sizes) -> tuple[State, Params]:
        """The lanes' states and starting parameters: new ones, and those of `found` in their places."""
        if found:
            return found[0]
        f = self.at(sizes)
        state = f.init()
        return state, f.noted(None, None, state.learner.params)


class Bound:
    """The functions at one size, of a lane with its key; `_on` is there for several lanes only."""

    def __init__(self, functions: Functions, key: Array) -> None:
        self.functions, self.key, self.program = functions, key, functions.program

    def init(self) -> State:
        state: State = self.functions.init(self.key)
        return state

    def like(self) -> State:
        """The state in ShapeDtypeStructs that say where each leaf lies."""
        return shapes(self.program)

    def grow(self, state: State) -> State:
        """A program for one use: its time is compilation."""
        return grow(state, self.program)

    def noted(self, _on: Any, _before: Params, params: Params) -> Params:
        """The parameters at an update's start."""
        return self.functions.copy(params)

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

    def rank(self, state: State, data: PyTree, seen: Seen | None) -> list[Ranks]:
        """Each lane's, on the host."""
        return [jax.device_get(self.functions.rank(state, data, seen))]

    def written(self, before: Params, params: Params) -> np.ndarray:
        """[lanes] how many parameters differ."""
        return np.asarray(self.functions.written(before, params))[None]

    def traced(self, state: State, data: PyTree) -> dict[str, Callable[[], State]]:
        """By hook, a function to the shapes of the state after it. Compiling uses the trace again."""
        f = self.functions
        return {
            "begin": lambda: f.begin.traced(state, data),
            # An epoch of an increment, which the base part does not run: what it refuses is said before any training.
            "record": lambda: f.run_epoch.traced(state, data)[0],
            "end": lambda: f.end.traced(state, data),
        }
