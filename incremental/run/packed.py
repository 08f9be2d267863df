"""The `packed` driver: runs that differ only in their seed and in floats, as lanes of one compiled program.

Lanes are mapped over the devices by `jax.shard_map` (of which `jax.pmap` is a wrapper, in maintenance since JAX 0.8)
and, on each device, by `jax.vmap`; on a CPU, whose batched small operations are slower than one after the other, by
`jax.lax.map`. All lanes share the stream, the update policy and the capacities, and stand at the same epoch of the same
increment. A lane that is ahead after a resume, has stopped early, diverged or only fills a device up is off: its state
stays as it is.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from incremental.core.types import Data, Fit, Info, Params, Program, PyTree, Ranks, Sizes, State, bytes_of
from incremental.errors import UserError
from incremental.run import checkpoint, loop
from incremental.run.capacity import into_corner
from incremental.run.compiled import Compiled
from incremental.run.loop import Bases, Driver, Listener, Saver
from incremental.run.progress import Cost, Progress, Record, Result
from incremental.run.records import matrix_entries, prequential

Numbers = Mapping[str, Array]  # by dotted key; [lanes] float32, or [] of one lane
LaneBuild = Callable[[Sizes, Numbers], Program]
MARGIN = 0.9  # of the memory that is free: what the estimate may come to


class Lane(Protocol):
    """What a lane's run directory does for it."""

    @property
    def listener(self) -> Listener: ...

    @property
    def saver(self) -> Saver: ...

    def resume(self, functions: Callable[[Sizes], Any]) -> tuple[State, Params, Sizes, Progress] | None: ...

    @property
    def bases(self) -> Bases | None:
        """The base parts that it shares with other runs."""
        ...

    @property
    def failed(self) -> Callable[[UserError], None]:
        """Told that the lane diverged; the others go on."""
        ...


def mapped_on(platform: str) -> Callable[[Callable[[Any], Any], Any], Any]:
    """How the lanes of one device run: `map(function, lanes)`."""
    return jax.lax.map if platform == "cpu" else lambda function, lanes: jax.vmap(function)(lanes)


class Functions:
    """A program's functions over lanes, at one pair of capacities, compiled as they are met.

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
        self.rank = self.over(lambda numbers, *given: build(sizes, numbers).rank(*given), lanes=2, shared=2)
        self.written = self.over(lambda _, *params: loop.parameters_written(*params), lanes=3)
        self.noted = self.over(noted, lanes=4)

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

        def one(numbers: Numbers, on: Array, state: State, *common: Any) -> tuple[State, Any]:
            report = jax.eval_shape(changed, numbers, state, *common)[1]

            def off(state: State) -> tuple[State, Any]:
                return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), report)

            return jax.lax.cond(on, lambda state: changed(numbers, state, *common), off, state)

        return self.over(one, lanes=3, shared=shared, donate=(2,))

    @property
    def seconds(self) -> float:
        """Spent on compilation."""
        return sum(each.seconds for each in {each for each in vars(self).values() if isinstance(each, Compiled)})


def run_epoch(kind: str, program: Program, state: State, epoch: Array, data: Data) -> tuple[State, Any]:
    """The epoch's number is the same for all lanes that are on: given once, it leaves the branches on it branches."""
    return getattr(program, kind)(state._replace(fit=state.fit._replace(epoch=epoch)), data)


def grown(program: Program, state: State) -> State:
    """`capacity.grow` of one lane."""
    return jax.tree.map(into_corner, program.init(state.key), state)


def noted(numbers: Numbers, on: Array, old: PyTree, new: PyTree) -> PyTree:
    """`new` where a lane is on."""
    del numbers
    return jax.lax.cond(on, lambda: new, lambda: old)


class Programs:
    """What the lanes of a group share: the functions at each pair of capacities, and the devices."""

    def __init__(self, build: LaneBuild, first: Mapping[str, float], lanes: int) -> None:
        devices = jax.local_devices()[:lanes]
        self.build, self.first = build, first
        self.mesh = jax.make_mesh((len(devices),), ("lanes",), (AxisType.Auto,), devices=devices)
        self.made: dict[Sizes, Functions] = {}
        self.compiled = 0.0

    def at(self, sizes: Sizes) -> Functions:
        """The functions at these capacities."""
        if sizes not in self.made:
            self.made[sizes] = Functions(self.build, sizes, self.mesh, self.first)
        return self.made[sizes]

    def total(self, lanes: int) -> int:
        """The lanes, and those that only fill the devices up."""
        return self.mesh.size * math.ceil(lanes / self.mesh.size)

    def unshared(self) -> float:
        """Seconds spent on compilation since the last call."""
        last, self.compiled = self.compiled, sum(functions.seconds for functions in self.made.values())
        return self.compiled - last

    def placed(self, tree: PyTree) -> PyTree:
        """A tree with a lane axis, on the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, Spec("lanes")))

    def everywhere(self, tree: PyTree) -> PyTree:
        """A tree that the lanes share, on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, Spec()))


def available(device: jax.Device) -> int:
    """Bytes that are free for this process: the device's, or the host's where the device is its CPU."""
    told = device.memory_stats()
    if told and "bytes_limit" in told:
        return int(told["bytes_limit"] - told["bytes_in_use"])
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    info, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if info.exists():  # pages that only cache files are free too
        free = [1024 * int(line.split()[1]) for line in info.read_text().splitlines() if "MemAvailable" in line]
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and limit.read_text().strip().isdigit():
        free.append(int(limit.read_text()) - int(used.read_text()))
    return min(free)


def splits(programs: Programs, solo: Driver, numbers: Sequence[Mapping[str, float]]) -> int:
    """Into how many parts the lanes must be split to fit into memory, as the first update's compiled programs say.

    They are compiled for shapes: nothing is computed yet. What cannot run as a lane at all fails here.
    """
    total = programs.total(len(numbers))
    sizes, keys = solo.sizes(0), jnp.stack([jax.random.key(0)] * total)
    functions = programs.at(sizes)
    given = {key: np.zeros(total, np.float32) for key in numbers[0]}
    data, validation, seen = programs.everywhere(solo.update_data(functions.program, 0, solo.plan(Progress())))
    state = jax.eval_shape(functions.init.jitted, given, keys)
    on, epoch = np.zeros(total, bool), np.int32(0)
    compiled = [
        functions.begin.program(given, on, state, data),
        functions.base_epoch.program(given, on, state, epoch, data),
        functions.validate.program(given, on, state, validation, seen),
        functions.end.program(given, on, state, data),
    ]
    first = solo.update.plan(1, [0], {}, 0)
    if first.increments and functions.base_epoch is not functions.run_epoch:  # what the strategies take, and refuse
        rows = programs.everywhere(solo.update_data(functions.program, 1, first)[0])
        compiled.append(functions.run_epoch.program(given, on, state, epoch, rows))
    told = [program.memory_analysis() for program in compiled]
    needed = max(
        each.argument_size_in_bytes + each.output_size_in_bytes + each.temp_size_in_bytes - each.alias_size_in_bytes
        for each in told
        if each is not None
    )
    if programs.mesh.devices.flat[0].platform == "cpu":  # all of them have one memory
        needed *= programs.mesh.size
    # The state grows in proportion to its tables.
    last = solo.sizes(len(solo.stream) - 1)
    needed *= max(last.items / sizes.items, last.users / sizes.users)
    return min(math.ceil(needed / (MARGIN * available(programs.mesh.devices.flat[0]))), len(numbers))


class Packed:
    """One program's lanes. `solo` is the driver of any of them alone: its stream, policy and metrics are theirs.

    Each lane has its numbers, its seed and its `Lane`.
    """

    def __init__(
        self,
        programs: Programs,
        solo: Driver,
        numbers: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
        lanes: Sequence[Lane],
        *,
        matrix: bool,
    ) -> None:
        self.programs, self.solo, self.lanes, self.matrix = programs, solo, lanes, matrix
        self.total = programs.total(len(lanes))
        filled = [*range(len(lanes)), *[len(lanes) - 1] * (self.total - len(lanes))]
        self.keys = [jax.random.key(seeds[i]) for i in filled]
        self.numbers: Numbers = programs.placed(
            {key: np.array([numbers[i][key] for i in filled], np.float32) for key in numbers[0]}
        )
        self.progress = [Progress() for _ in lanes]
        self.errors: dict[int, UserError] = {}
        self.saved, self.took = time.monotonic(), 0.0
        self.state: Any = None
        self.before: Params = None
        self.sizes = solo.sizes(0)

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> list[Result | UserError]:
        """Runs every lane to its end, from where it stands; an error in place of the result of one that diverged."""
        self.load()
        last = len(self.solo.stream)
        while running := [lane for lane in self.alive if self.progress[lane].increment < last]:
            t = min(self.progress[lane].increment for lane in running)
            here = [lane for lane in running if self.progress[lane].increment == t]
            new = [lane for lane in here if not self.progress[lane].begun]
            if t > 0 and new:
                self.test(new, t)
            self.train(here, t)
            here = [lane for lane in here if lane not in self.errors]
            if self.matrix:
                self.matrix_row(here, t)
            for lane in here:
                self.progress[lane] = self.progress[lane]._replace(increment=t + 1)
            if t + 1 == last or self.due():
                self.save(here)
            for lane in here:
                records, cost = self.progress[lane].records, self.progress[lane].costs[-1]
                tested = [r for r in records if r.evaluated_on == t and r.trained_until == t - 1]
                self.lanes[lane].listener.increment(cost, tested)
        states, early = self.apart(self.alive), self.programs.at(self.sizes).program.early
        return [
            self.errors[lane]
            if lane in self.errors
            else Result(states[lane][0], self.sizes, self.progress[lane].records, self.progress[lane].costs, early)
            for lane in range(len(self.lanes))
        ]

    @property
    def alive(self) -> list[int]:
        """The lanes that have not diverged."""
        return [lane for lane in range(len(self.lanes)) if lane not in self.errors]

    def on(self, lanes: Sequence[int]) -> Array:
        """[lanes] bool, True for these."""
        return self.programs.placed(np.isin(np.arange(self.total), lanes))

    def load(self) -> None:
        """The states: new ones, and in their places those of the checkpoints that there are."""
        found: dict[int, Any] = {}
        sizes: dict[int, Sizes] = {}
        for lane, own in enumerate(self.lanes):
            resumed = own.resume(self.programs.at)
            if resumed is not None:
                state, before, sizes[lane], self.progress[lane] = resumed
                found[lane] = jax.device_get((state[:3], before))  # all but the key, which the seed gives
        self.sizes = max([self.sizes, *sizes.values()])
        functions = self.programs.at(self.sizes)
        # A table grown later equals one allocated beforehand.
        self.state = functions.init(self.numbers, self.programs.placed(jnp.stack(self.keys)))
        self.before = functions.noted(self.numbers, self.on([]), *[self.state.learner.params] * 2)
        if self.matrix and (new := [lane for lane in self.alive if lane not in found]):
            self.matrix_row(new, -1)
        if not found:
            return
        host = jax.tree.map(np.array, jax.device_get((self.state[:3], self.before)))
        for lane, kept in found.items():

            def put(all_lanes: np.ndarray, own: np.ndarray, lane: int = lane) -> None:
                corner: Any = (lane, *(slice(n) for n in own.shape))
                all_lanes[corner] = own

            jax.tree.map(put, host, kept)
        parts, self.before = self.programs.placed(host)
        self.state = State(parts[0], parts[1], parts[2], self.state.key)

    def train(self, here: list[int], t: int) -> None:
        """The update at t, for the lanes that stand before it or in it."""
        programs, solo = self.programs, self.solo
        plan = solo.plan(self.progress[here[0]])
        if not plan.increments:
            return self.charge(here, np.zeros(self.total, int), np.zeros(self.total, int))
        wanted = solo.sizes(t, self.sizes)
        functions = programs.at(wanted)
        given = programs.everywhere(solo.update_data(functions.program, t, plan))
        data, validation, seen = given
        self.share(here, 0.0, programs.unshared())
        start = time.perf_counter()

        def clock() -> None:
            """Shares out the time since the last call."""
            nonlocal start
            compiling = programs.unshared()
            self.share(here, time.perf_counter() - start - compiling, compiling)
            start = time.perf_counter()

        new = [lane for lane in here if not self.progress[lane].begun]
        taken: list[int] = []
        self.grow(here, wanted)
        start = time.perf_counter()
        if new:
            on = self.on(new)
            self.before = functions.noted(self.numbers, on, self.before, self.state.learner.params)
            if plan.afresh:
                self.state, _ = functions.restart(self.numbers, on, self.state, data)
            self.state, _ = functions.begin(self.numbers, on, self.state, data)
            for lane in new:
                self.progress[lane] = self.progress[lane]._replace(begun=True)
            taken = self.take_bases(new, functions.program) if t == 0 else []
            start = time.perf_counter()
        fit = jax.device_get(loop.told(self.state.fit))
        while going := self.going(here, fit, functions.program.epochs):
            epoch = min(going.values())
            lanes = [lane for lane, own in going.items() if own == epoch]
            on = self.on(lanes)
            number = programs.everywhere(np.int32(epoch))
            run_epoch = functions.base_epoch if t == 0 else functions.run_epoch
            self.state, info = run_epoch(self.numbers, on, self.state, number, data)
            self.state, _ = functions.validate(self.numbers, on, self.state, validation, seen)
            info, fit = jax.device_get((info, loop.told(self.state.fit)))
            clock()
            for lane in lanes:
                ours, its = jax.tree.map(itemgetter(lane), (info, fit))
                if self.diverged(lane, ours, t, epoch + 1):
                    continue
                own, ran = self.progress[lane], loop.epoch_of(t, its, ours)
                self.progress[lane] = own._replace(
                    examples=own.examples + int(ours.examples), epochs=(*own.epochs, ran)
                )
                self.lanes[lane].listener.epoch(ran)
            here = [lane for lane in here if lane not in self.errors]
            if self.due():
                self.save(here)
                start = time.perf_counter()
        if not here:
            return None
        if t == 0:
            self.leave_bases([lane for lane in here if lane not in taken], functions.program, fit.epoch)
            start = time.perf_counter()
        self.state, _ = functions.end(self.numbers, self.on(here), self.state, data)
        jax.block_until_ready(self.state)
        clock()
        written = np.asarray(functions.written(self.numbers, self.before, self.state.learner.params))
        return self.charge(here, fit.epoch, written)

    def take_bases(self, lanes: Sequence[int], program: Program) -> list[int]:
        """Puts the base parts that other runs have trained into these lanes; returns the lanes that need not train."""
        found = self.found_bases(lanes) if loop.shares_base(program) else {}
        fit = jax.tree.map(np.array, jax.device_get(loop.told(self.state.fit)))
        for lane, base in found.items():
            fit.epoch[lane], fit.active[lane] = base.cost.epochs, False
            spent = self.progress[lane]._replace(seconds=base.cost.seconds, examples=base.cost.examples)
            self.progress[lane] = spent
        if found:
            whole = self.state.fit
            fit = self.programs.placed(fit)._replace(learner=whole.learner, strategy=whole.strategy)
            self.state = self.state._replace(fit=fit)
            self.put_learners({lane: base.learner for lane, base in found.items()})
        return [*found]

    def leave_bases(self, lanes: Sequence[int], program: Program, epochs: np.ndarray) -> None:
        """Leaves the lanes' base parts for other runs; where there is one already, the lane goes on with that one."""
        if program.early or not any(self.lanes[lane].bases for lane in lanes):
            return
        host = jax.device_get(self.state.fit.learner)
        for lane in lanes:
            bases, own = self.lanes[lane].bases, self.progress[lane]
            if bases is not None and bases.take(self.sizes) is None:
                cost = Cost(0, own.seconds, 0.0, own.examples, int(epochs[lane]), 0, 0)
                bases.keep(loop.Base(jax.tree.map(lambda leaf: leaf[lane].copy(), host), cost))  # noqa: B023
        self.put_learners({lane: base.learner for lane, base in self.found_bases(lanes).items()})

    def found_bases(self, lanes: Sequence[int]) -> dict[int, loop.Base]:
        """The base parts that other runs have left for these lanes."""
        shared = {lane: self.lanes[lane].bases for lane in lanes}
        found = {lane: bases.take(self.sizes) for lane, bases in shared.items() if bases is not None}
        return {lane: base for lane, base in found.items() if base is not None}

    def put_learners(self, learners: Mapping[int, PyTree]) -> None:
        """Writes the best learners of these lanes."""
        if not learners:
            return
        host = jax.tree.map(np.array, jax.device_get(self.state.fit.learner))
        for lane, learner in learners.items():

            def put(all_lanes: np.ndarray, own: np.ndarray, lane: int = lane) -> None:
                all_lanes[lane] = own

            jax.tree.map(put, host, learner)
        self.state = self.state._replace(fit=self.state.fit._replace(learner=self.programs.placed(host)))

    def grow(self, here: Sequence[int], wanted: Sizes) -> None:
        """The tables at the capacities `wanted`. A program for one use: its time is compilation."""
        if wanted == self.sizes:
            return
        start = time.perf_counter()
        self.state = jax.block_until_ready(self.programs.at(wanted).grow(self.numbers, self.state))
        self.sizes, self.before = wanted, self.state.learner.params
        self.programs.unshared()
        self.share(here, 0.0, time.perf_counter() - start)

    def share(self, here: Sequence[int], seconds: float, compile_seconds: float) -> None:
        """Each of the update's lanes is charged an equal part of the time that all took together."""
        for lane in here:
            own = self.progress[lane]
            self.progress[lane] = own._replace(
                seconds=own.seconds + seconds / len(here),
                compile_seconds=own.compile_seconds + compile_seconds / len(here),
            )

    @staticmethod
    def going(here: Sequence[int], fit: Fit, most: int) -> dict[int, int]:
        """The lanes that go on in this update, and how many epochs each has behind it; `fit` on the host."""
        return {lane: int(fit.epoch[lane]) for lane in here if fit.active[lane] and fit.epoch[lane] < most}

    def diverged(self, lane: int, info: Info, t: int, epoch: int) -> bool:
        """Whether the lane's loss became NaN or infinite, as its epoch says; it is then off for good."""
        try:
            loop.refuse_divergence(info, t, epoch)
        except UserError as error:
            self.errors[lane] = error
            self.lanes[lane].failed(error)
        return lane in self.errors

    def charge(self, here: Sequence[int], epochs: np.ndarray, written: np.ndarray) -> None:
        """Puts the finished update on each lane's account."""
        kept = bytes_of(self.state.strategy) // self.total
        for lane in here:
            self.progress[lane] = self.solo.charged(self.progress[lane], int(epochs[lane]), int(written[lane]), kept)

    # -- evaluation ------------------------------------------------------------------------------------------------

    def ranked(self, lanes: Sequence[int], t: int, trained_until: int, *, heldout: bool) -> Any:
        """The test rows of increment t, and each lane's `Ranks` of them, on the host."""
        functions = self.programs.at(self.sizes)
        known = np.asarray(self.state.learner.catalogue.seen)[lanes[0]]
        rows, data, seen = self.solo.test_data(functions.program, known, t, trained_until, heldout=heldout)
        ranks = functions.rank(self.numbers, self.state, *self.programs.everywhere((data, seen)))
        rank, recommended, scores = jax.device_get(ranks)
        n = len(rows)
        own = [None] * len(rank) if scores is None else scores[:, :n]
        return rows, [Ranks(*each) for each in zip(rank[:, :n], recommended, own, strict=True)]

    def test(self, lanes: Sequence[int], t: int) -> None:
        """The prequential evaluation of increment t."""
        if self.solo.listed:
            self.grow(lanes, self.solo.sizes(t, self.sizes))
        rows, ranked = self.ranked(lanes, t, t - 1, heldout=False)
        solo = self.solo
        for lane in lanes:
            found = prequential(solo.metrics, solo.stream, t, t - 1, rows, ranked[lane], listed=solo.listed)
            self.note(lane, found)

    def matrix_row(self, lanes: Sequence[int], trained_until: int) -> None:
        """R[trained_until, ·]."""
        for t in range(len(self.solo.stream)) if lanes else ():
            _, ranked = self.ranked(lanes, t, trained_until, heldout=True)
            for lane in lanes:
                self.note(lane, matrix_entries(self.solo.metrics, t, trained_until, ranked[lane].rank))

    def note(self, lane: int, records: list[Record]) -> None:
        """Adds evaluations to a lane's progress."""
        self.progress[lane] = self.solo.noted(self.progress[lane], records)

    # -- saving ----------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether saving all lanes is worth its time."""
        wait = max(checkpoint.SECONDS_BETWEEN, self.took / checkpoint.SHARE)
        return time.monotonic() - self.saved > wait

    def save(self, lanes: Sequence[int]) -> None:
        """Each lane's state into its own directory, as a run alone leaves it there."""
        start = time.monotonic()
        for lane, (state, before) in self.apart(lanes).items():
            self.lanes[lane].saver.save(state, before, self.sizes, self.progress[lane])
        self.saved = time.monotonic()
        self.took = self.saved - start

    def apart(self, lanes: Sequence[int]) -> dict[int, tuple[State, Params]]:
        """The lanes' own states and starting parameters."""
        host = jax.device_get((self.state[:3], self.before))
        states = {}
        for lane in lanes:
            parts, before = jax.device_put(jax.tree.map(lambda leaf: leaf[lane], host))  # noqa: B023
            states[lane] = State(parts[0], parts[1], parts[2], self.keys[lane]), before
        return states
