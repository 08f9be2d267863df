"""Several lanes: runs that differ only in their seed and in floats, mapped over the devices by one compiled program.

Lanes are mapped over the devices by `jax.shard_map` (of which `jax.pmap` is a wrapper, in maintenance since JAX 0.8)
and, on each device, by `jax.vmap`; on a CPU, whose batched small operations are slower than one after the other, by
`jax.lax.map`. All lanes share the stream and the capacities. A lane that is ahead after a resume, has stopped early,
diverged, waits for its next update or only fills a device up is off: its state stays as it is.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from incremental.core.program import Program
from incremental.core.spec import Input, Sizes
from incremental.core.types import PyTree, Ranks, Seen, State
from incremental.run.alone import Kept, checksums, like, parameters_written, total
from incremental.run.capacity import into_corner
from incremental.run.compiled import Compiled, Spent, spent_by
from incremental.run.stopping import Best, better, restored

Numbers = Mapping[str, Array]  # by dotted key; [lanes] float32, or [] of one lane
LaneBuild = Callable[[Sizes, Numbers], Program]


def mapped_on(platform: str) -> Callable[[Callable[[Any], Any], Any], Any]:
    """How the lanes of one device run: `map(function, lanes)`."""
    return jax.lax.map if platform == "cpu" else lambda function, lanes: jax.vmap(function)(lanes)


class Functions:
    """A program's functions over lanes, at given capacities, compiled as they are met.

    The first arguments are the lanes' numbers and, where a state changes, which lanes are on.
    """

    def __init__(self, build: LaneBuild, sizes: Sizes, mesh: Mesh, first: Mapping[str, float]) -> None:
        self.build, self.sizes, self.mesh = build, sizes, mesh
        self.program = build(sizes, {key: jnp.float32(value) for key, value in first.items()})
        self.init = self.over(lambda numbers, key: build(sizes, numbers).init(key), lanes=2)
        self.grow = self.over(lambda numbers, state: grown(build(sizes, numbers), state), lanes=2)
        self.restart = self.changing(lambda program, state, data: (program.restart(state, data), ()), shared=1)
        self.begin = self.changing(lambda program, state, data: (program.begin(state, data), ()), shared=1)
        self.run_epoch = self.changing(partial(run_epoch, "run_epoch"), shared=2)
        self.base_epoch = self.run_epoch
        if self.program.base_epoch is not None:
            self.base_epoch = self.changing(partial(run_epoch, "base_epoch"), shared=2)
        self.validate = self.changing(lambda program, *given: (program.validate(*given), ()), shared=2)
        self.end = self.changing(lambda program, state, data: (program.end(state, data), ()), shared=1)
        self.rank, self.rank_lists = (
            self.over(
                lambda numbers, *given, kind=kind: getattr(build(sizes, numbers), kind)(*given), lanes=2, shared=2
            )
            for kind in ("rank", "rank_lists")
        )
        self.written = self.over(lambda _, *params: parameters_written(*params), lanes=4)
        self.sums = self.over(lambda _, params: checksums(params), lanes=2)
        self.noted = self.over(noted, lanes=4)
        self.better = self.over(
            lambda numbers, on, best, state: noted(numbers, on, best, better(best, state)), lanes=4, donate=(2,)
        )

    def over(
        self, function: Callable[..., Any], *, lanes: int, shared: int = 0, donate: tuple[int, ...] = ()
    ) -> Compiled:
        """`function(numbers, …)` for each lane: the first `lanes` arguments have a lane axis, the others are shared."""

        def local(*given: Any) -> Any:
            own, common = given[:lanes], given[lanes:]

            def one(own: tuple[Any, ...]) -> Any:
                return function(*own, *common)

            return mapped_on(self.mesh.devices.flat[0].platform)(one, own)

        specs = (Spec("lanes"),) * lanes + (Spec(),) * shared
        mapped = jax.shard_map(local, mesh=self.mesh, in_specs=specs, out_specs=Spec("lanes"), check_vma=False)
        placed = tuple(NamedSharding(self.mesh, spec) for spec in specs)
        return Compiled(mapped, donate, in_shardings=placed, out_shardings=NamedSharding(self.mesh, Spec("lanes")))

    def changing(self, change: Callable[..., tuple[State, Any]], *, shared: int) -> Compiled:
        """`change(program, state, …) -> (state, report)` for each lane that is on; others keep state, and report 0."""

        @jax.jit  # traced once, for the shapes of the report and for the branch
        def changed(numbers: Numbers, state: State, *common: Any) -> tuple[State, Any]:
            return change(self.build(self.sizes, numbers), state, *common)

        def one(numbers: Numbers, on: Any, state: State, *common: Any) -> tuple[State, Any]:
            report = jax.eval_shape(changed, numbers, state, *common)[1]

            def off(state: State) -> tuple[State, Any]:
                return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), report)

            return jax.lax.cond(on, lambda state: changed(numbers, state, *common), off, state)

        return self.over(one, lanes=3, shared=shared, donate=(2,))

    @property
    def spent(self) -> Spent:
        """On compilation."""
        return spent_by(self)


def run_epoch(kind: str, program: Program, state: State, epoch: Array, data: PyTree) -> tuple[State, Any]:
    """The epoch's number is the same for all lanes that are on: given once, it leaves the branches on it branches."""
    return getattr(program, kind)(state._replace(fit=state.fit._replace(epoch=epoch)), data)


def grown(program: Program, state: State) -> State:
    """`capacity.grow` of one lane."""
    return jax.tree.map(into_corner, program.init(state.key), state)


def noted(numbers: Numbers, on: Any, old: PyTree, new: PyTree) -> PyTree:
    """`new` where a lane is on."""
    del numbers
    return jax.lax.cond(on, lambda: new, lambda: old)


class Programs:
    """What the lanes of a group share: the functions at each of the capacities, and the devices."""

    def __init__(self, build: LaneBuild, first: Mapping[str, float], lanes: int) -> None:
        devices = jax.local_devices()[:lanes]
        self.build, self.first = build, first
        self.mesh = jax.make_mesh((len(devices),), ("lanes",), (AxisType.Auto,), devices=devices)
        self.made: dict[Sizes, Functions] = {}
        self.making = threading.Lock()

    def at(self, sizes: Sizes) -> Functions:
        """The functions at these capacities."""
        found = self.made.get(sizes)
        if found is None:
            with self.making:
                if sizes not in self.made:
                    self.made[sizes] = Functions(self.build, sizes, self.mesh, self.first)
                found = self.made[sizes]
        return found

    def total(self, lanes: int) -> int:
        """The lanes, and those that only fill the devices up."""
        return self.mesh.size * math.ceil(lanes / self.mesh.size)

    def placed(self, tree: PyTree) -> PyTree:
        """A tree with a lane axis, on the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, Spec("lanes")))

    def everywhere(self, tree: PyTree) -> PyTree:
        """A tree that the lanes share, on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, Spec()))


class Lanes:
    """How the functions of several lanes are compiled, and where their arrays lie. Each lane has its numbers and its
    seed; those at the end that only fill a device up are the last one's."""

    def __init__(self, programs: Programs, numbers: Sequence[Mapping[str, float]], seeds: Sequence[int]) -> None:
        self.programs, self.lanes = programs, len(seeds)
        self.total = programs.total(self.lanes)
        filled = [*range(self.lanes), *[self.lanes - 1] * (self.total - self.lanes)]
        self.keys = [jax.random.key(seeds[i]) for i in filled]
        self.numbers: Numbers = programs.placed(
            {key: np.array([numbers[i][key] for i in filled], np.float32) for key in numbers[0]}
        )
        self.counted = self.spent()

    def at(self, sizes: Sizes) -> "Bound":
        """The functions at these capacities."""
        return Bound(self.programs.at(sizes), self)

    def inputs(self, sizes: Sizes) -> Mapping[str, Input]:
        """What the program's examples hold."""
        return self.at(sizes).program.inputs

    def only(self, sizes: Sizes) -> None:
        """The lanes that come after these use the functions at all capacities again."""

    def ahead(self) -> bool:
        """Where arguments will lie is known."""
        return True

    def spent(self) -> Spent:
        """On the compilation of what there is."""
        return total(self.programs.made.values())

    def compiling(self) -> Spent:
        """What was spent on compilation since the last call."""
        last, self.counted = self.counted, self.spent()
        return self.counted.less(last)

    def on(self, lanes: Sequence[int]) -> Array:
        """[lanes] bool, True for these."""
        found: Array = self.programs.placed(np.isin(np.arange(self.total), lanes))
        return found

    def place(self, tree: PyTree) -> PyTree:
        """Host arrays that the lanes share, on every device."""
        return self.programs.everywhere(tree)

    def host(self, tree: PyTree) -> PyTree:
        """A tree on the host, with a lane axis."""
        return jax.tree.map(np.array, jax.device_get(tree))

    def device(self, tree: PyTree) -> PyTree:
        """The inverse of `host`."""
        return self.programs.placed(tree)

    def apart(self, kept: Kept) -> Callable[[int], Kept]:
        """(lane) -> its own."""
        host = jax.device_get((kept.state[:3], kept.best, kept.before))

        def own(lane: int) -> Kept:
            parts, best, before = jax.device_put(jax.tree.map(lambda leaf: leaf[lane], host))
            return Kept(State(parts[0], parts[1], parts[2], self.keys[lane]), best, before)

        return own

    def put_together(self, found: Mapping[int, Kept], sizes: Sizes) -> Kept:
        """What the lanes keep: new states, and those of `found` in their places.

        Tables of `found` may be smaller: one that is grown later equals one allocated beforehand.
        """
        f, off = self.at(sizes), self.on([])
        state = f.init()
        if not found:
            return Kept(state, None, None)
        best = f.keep(off, None, state) if any(own.best is not None for own in found.values()) else None
        host = self.host((state[:3], best, f.sums(state)))
        for lane, own in found.items():

            def put(all_lanes: np.ndarray, own: np.ndarray, lane: int = lane) -> None:
                corner: Any = (lane, *(slice(n) for n in own.shape))
                all_lanes[corner] = own

            theirs = own.state[:3], own.best, own.before  # all but the key, which the seed gives
            for all_lanes, kept in zip(host, theirs, strict=True):
                if kept is not None:  # between two increments there are no checksums, and often no best epoch
                    jax.tree.map(put, all_lanes, jax.device_get(kept))
        parts, best, before = self.device(host)
        return Kept(State(parts[0], parts[1], parts[2], state.key), best, before)


class Bound:
    """The functions at one size, with the lanes' numbers. Where a state changes, `on` says in which lanes."""

    def __init__(self, functions: Functions, lanes: Lanes) -> None:
        self.functions, self.own, self.program = functions, lanes, functions.program
        self.numbers = lanes.numbers

    def init(self) -> State:
        state: State = self.functions.init(self.numbers, self.own.programs.placed(jnp.stack(self.own.keys)))
        return state

    def like(self) -> Kept:
        """What a lane keeps, in ShapeDtypeStructs that say where each leaf lies."""
        return like(self.program)

    def grow(self, state: State) -> State:
        """The states in larger tables, these."""
        grown: State = self.functions.grow(self.numbers, state)
        return grown

    def sums(self, state: State) -> PyTree:
        """The checksums of the parameters."""
        return self.functions.sums(self.numbers, state.learner.params)

    def begun(self, on: Any, before: PyTree | None, sums: PyTree) -> PyTree:
        """The checksums at an update's start, those `before` for lanes that are off."""
        return sums if before is None else self.functions.noted(self.numbers, on, before, sums)

    def keep(self, on: Any, best: Best | None, state: State) -> Best:
        """The best epoch, which is the state's in the lanes that are on; the others keep theirs."""
        new = Best(state.learner, state.strategy)
        f, numbers = self.functions, self.numbers
        kept: Best = f.noted(numbers, on, new, new) if best is None else f.better(numbers, on, best, state)
        return kept

    def restored(self, on: Any, state: State, best: Best) -> State:
        """The state as its best epoch left it, in the lanes that are on."""
        return restored(state, self.functions.noted(self.numbers, on, Best(state.learner, state.strategy), best))

    def restart(self, on: Any, state: State, data: PyTree) -> State:
        changed: State = self.functions.restart(self.numbers, on, state, data)[0]
        return changed

    def begin(self, on: Any, state: State, data: PyTree) -> State:
        changed: State = self.functions.begin(self.numbers, on, state, data)[0]
        return changed

    def epoch(self, on: Any, state: State, number: int, data: PyTree, *, base: bool) -> tuple[State, Any]:
        """The state after epoch `number`, of the base part or an increment, and what the epoch came to."""
        run = self.functions.base_epoch if base else self.functions.run_epoch
        changed: tuple[State, Any] = run(self.numbers, on, state, self.own.place(np.int32(number)), data)
        return changed

    def validate(self, on: Any, state: State, validation: PyTree, seen: Seen | None) -> State:
        changed: State = self.functions.validate(self.numbers, on, state, validation, seen)[0]
        return changed

    def end(self, on: Any, state: State, data: PyTree) -> State:
        changed: State = self.functions.end(self.numbers, on, state, data)[0]
        return changed

    def ranks(self, state: State, data: PyTree, seen: Seen | None, *, lists: bool = False) -> Ranks:
        rank = self.functions.rank_lists if lists else self.functions.rank
        found: Ranks = rank(self.numbers, state, data, seen)
        return found

    def of_lanes(self, ranks: Ranks) -> list[Ranks]:
        """Each lane's, on the host."""
        host = jax.device_get(ranks)
        return [jax.tree.map(lambda leaf, lane=lane: leaf[lane], host) for lane in range(len(host.rank))]

    def written(self, before: PyTree, after: PyTree, params: PyTree) -> Array:
        """[lanes] how many parameters differ, by their checksums."""
        found: Array = self.functions.written(self.numbers, before, after, params)
        return found

    def traced(self, state: State, data: PyTree) -> dict[str, Callable[[], State]]:
        """By hook, a function to the shapes of the states after it. Compiling uses the trace again."""
        f, on, first = self.functions, self.own.on([]), self.own.place(np.int32(0))
        return {
            "begin": lambda: f.begin.traced(self.numbers, on, state, data)[0],
            # An epoch of an increment, which the base part does not run: what it refuses is said before any training.
            "record": lambda: f.run_epoch.traced(self.numbers, on, state, first, data)[0],
            "end": lambda: f.end.traced(self.numbers, on, state, data)[0],
        }
