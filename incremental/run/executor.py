"""The executor: the states of n >= 1 lanes, and what is done to them. It knows no stream and no policy."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.core.types import Fit, Learner, PyTree, Ranks, Seen, State, bytes_of
from incremental.errors import UserError
from incremental.run.alone import Alone, Build, Kept
from incremental.run.alone import Bound as BoundAlone
from incremental.run.lanes import Bound as BoundLanes
from incremental.run.lanes import Lanes
from incremental.run.progress import Cost, Progress
from incremental.run.stopping import Best


class Snapshot(NamedTuple):
    """All that one lane needs to go on.

    Attributes:
        state
        best: None: no epoch is better than the state's own
        before: checksums of the parameters at the running update's start
        sizes
        progress
    """

    state: State
    best: Best | None
    before: PyTree
    sizes: Sizes
    progress: Progress


class Base(NamedTuple):
    """A base part that another run has trained: what a lane may begin with in place of training it."""

    learner: Learner
    cost: Cost
    sizes: Sizes


class Executor:
    """The lanes' states at given capacities. `way` says how functions are compiled and mapped over the lanes."""

    @classmethod
    def alone(cls, build: Build, seed: int = 0) -> "Executor":
        """Of one lane; `build(sizes)` makes its program at given capacities."""
        return cls(Alone(build, seed))

    def __init__(self, way: Alone | Lanes) -> None:
        self.way, self.lanes = way, way.lanes
        self.sizes = Sizes(labels="", **{"": 0})  # none yet
        self.state: Any = None
        self.best: Best | None = None  # of the lanes whose state is not the best epoch's
        self.before: PyTree = None
        self.after: PyTree = None
        """checksums of the parameters of lanes in which no update runs; None: not known"""
        self.checked: set[Sizes] = set()

    @property
    def functions(self) -> BoundAlone | BoundLanes:
        """Those at the capacities of the state."""
        return self.way.at(self.sizes)

    @property
    def program(self) -> Program:
        return self.functions.program

    def load(self, found: Mapping[int, Snapshot], sizes: Sizes) -> None:
        """The states: new ones, at least of these sizes, and in their places those of the snapshots."""
        self.sizes = sizes
        for each in found.values():
            self.sizes = self.sizes.at_least(each.sizes)
        self.way.at(self.sizes)
        together = {lane: Kept(each.state, each.best, each.before) for lane, each in found.items()}
        self.state, self.best, self.before = self.way.put_together(together, self.sizes)
        self.after = None

    def snapshots(self, progress: Mapping[int, Progress]) -> Callable[[int], Snapshot]:
        """(lane) -> its snapshot; the states are fetched once, when the first is asked for: before the run goes on,
        which gives their buffers away."""
        kept, sizes = Kept(self.state, self.best, self.before), self.sizes  # of now, however late it is called
        apart = cache(lambda: self.way.apart(kept))
        return lambda lane: Snapshot(*apart()(lane), sizes, progress[lane])

    # -- an update -------------------------------------------------------------------------------------------------

    def grow(self, wanted: Sizes) -> None:
        """The tables at the capacities `wanted`."""
        if wanted != self.sizes:
            self.state = jax.block_until_ready(self.way.at(wanted).grow(self.state))
            self.sizes, self.best, self.before, self.after = wanted, None, None, None
            self.way.only(wanted)

    def begin(self, lanes: Sequence[int], data: PyTree, *, afresh: bool) -> None:
        """The update begins in these lanes."""
        on, f = self.way.on(lanes), self.functions
        # What the last update left is where this one starts: checksums read all the parameters.
        self.before = f.begun(on, self.before, f.sums(self.state) if self.after is None else self.after)
        if afresh:
            self.state = f.restart(on, self.state, data)
        if self.sizes not in self.checked:
            refuse_types(f.traced(self.state, data), self.state)
            self.checked.add(self.sizes)
        self.state = f.begin(on, self.state, data)

    def epoch(
        self, lanes: Sequence[int], number: int, data: PyTree, validation: PyTree, seen: Seen | None, *, base: bool
    ) -> tuple[PyTree, Fit]:
        """Epoch `number` and its validation in these lanes: what it came to, and how far the update is, by lane."""
        on, f = self.way.on(lanes), self.functions
        if number and self.program.keeps and int(validation.size):  # any epoch is better than the start
            self.keep(lanes)
        self.state, info = f.epoch(on, self.state, number, data, base=base)
        self.state = f.validate(on, self.state, validation, seen)
        jax.block_until_ready(self.state)
        found: tuple[PyTree, Fit] = self.way.host((info, self.state.fit))
        return found

    def fit(self) -> Fit:
        """How far the update is, [lanes] each, on the host."""
        found: Fit = self.way.host(self.state.fit)
        return found

    def keep(self, lanes: Sequence[int]) -> None:
        """Those of these lanes that are at their best epoch keep it, for the next one changes the state."""
        better = self.fit().better
        if best := [lane for lane in lanes if better[lane]]:
            self.best = self.functions.keep(self.way.on(best), self.best, self.state)

    def restore(self, lanes: Sequence[int]) -> None:
        """The update goes back to its best epoch in those of these lanes that are not there."""
        if self.best is None:
            return
        better = self.fit().better
        if past := [lane for lane in lanes if not better[lane]]:
            self.state = self.functions.restored(self.way.on(past), self.state, self.best)
        self.best = self.best if self.lanes > 1 else None  # its buffers may be the state's, which are donated

    def end(self, lanes: Sequence[int], data: PyTree) -> None:
        """The update ends in these lanes."""
        self.state = self.functions.end(self.way.on(lanes), self.state, data)
        jax.block_until_ready(self.state)

    def written(self) -> np.ndarray:
        """[lanes] the parameters that differ from those at the update's start."""
        self.after = self.functions.sums(self.state)
        return np.asarray(self.functions.written(self.before, self.after, self.state.learner.params)).reshape(-1)

    def strategy_bytes(self) -> int:
        """Of one lane's strategies."""
        return bytes_of(self.state.strategy) // self.way.total

    # -- base parts ------------------------------------------------------------------------------------------------

    def begin_with(self, bases: Mapping[int, Base]) -> None:
        """These lanes have begun the base part; it is now as if they had just trained it."""
        fit = jax.tree.map(np.array, self.fit())
        for lane, base in bases.items():
            fit.epoch[lane], fit.active[lane] = base.cost.epochs, False
        self.state = self.state._replace(fit=self.way.device(fit))
        self.put_learners({lane: base.learner for lane, base in bases.items()})

    def learners(self) -> Callable[[int], Learner]:
        """(lane) -> its learner, on the host."""
        host = self.way.host(self.state.learner)
        return lambda lane: jax.tree.map(lambda leaf: leaf[lane].copy(), host)

    def put_learners(self, learners: Mapping[int, Learner]) -> None:
        """Writes the learners of these lanes."""
        if not learners:
            return
        if len(learners) == self.way.total:
            host = jax.tree.map(lambda *leaves: np.stack(leaves), *(learners[lane] for lane in sorted(learners)))
        else:
            host = jax.tree.map(np.array, self.way.host(self.state.learner))
            for lane, learner in learners.items():

                def put(all_lanes: np.ndarray, own: np.ndarray, lane: int = lane) -> None:
                    all_lanes[lane] = own

                jax.tree.map(put, host, learner)
        self.state = self.state._replace(learner=self.way.device(host))

    # -- tests -----------------------------------------------------------------------------------------------------

    def known(self) -> dict[str, np.ndarray]:
        """[lanes, capacity] bool by kind: the ids that each lane was trained on."""
        seen, _, arrived = self.state.learner.catalogue
        found: dict[str, np.ndarray] = self.way.host({self.sizes.labels: seen, **arrived})
        return found

    def rank(self, data: PyTree, seen: Seen | None, *, lists: bool = False) -> list[Ranks]:
        """Each lane's rankings, on the host; `lists`: with each example's first items."""
        return self.functions.of_lanes(self.functions.ranks(self.state, data, seen, lists=lists))


def refuse_types(traced: Mapping[str, Callable[[], State]], state: State) -> None:
    """A strategy whose state changes its type is refused before training, not at a later increment."""
    for hook, after in traced.items():
        try:
            changed = after().strategy
        except TypeError as error:
            if "carry" not in str(error):
                raise
            raise UserError(
                f"a strategy changes the type of its state or of the weights in `record` or a step: {error}"
            ) from None
        for name, own in state.strategy.items():
            if types_of(own) != types_of(changed[name]):
                raise UserError(
                    f"strategies.{name}: its state changes in `{hook}`, from {types_of(own)} to "
                    f"{types_of(changed[name])}; shapes and dtypes must stay as `init` made them"
                )


def types_of(tree: Any) -> str:
    """Structure, shapes and dtypes, to compare and to show."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))
