"""Growing must not stall: the programs of the next increment are compiled beside the training of this one.

The loop's own steps run on shapes in place of arrays. Their order is that of `Executor`, and `tests/run/test_ahead.py`
compares what is compiled with what the loop calls.
"""

import copy
import logging
import threading
from collections.abc import Collection, Mapping
from typing import Any

from incremental.core.spec import Input, Sizes
from incremental.core.types import PyTree
from incremental.run import expected
from incremental.run.alone import Alone
from incremental.run.compiled import Compiled
from incremental.run.executor import Executor
from incremental.run.feed import Feed
from incremental.run.lanes import Lanes
from incremental.run.policy import Plan


class Over(Exception):
    """The run is over, and nobody will need what is left."""


class Ahead:
    """A thread that compiles ahead, until the context is left: then it ends with the program that it is at.

    What goes wrong there is not told: the run meets it at the same place, and says it.
    """

    def __init__(self) -> None:
        self.over = threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.thread is not None:  # an interpreter that ends while XLA compiles would crash
            self.thread.join()

    def start(
        self,
        feed: Feed,
        executor: Executor,
        inputs: Mapping[str, Input],
        t: int,
        plans: Collection[Plan],
        *,
        matrix: bool,
        lists: bool = False,
    ) -> None:
        """Compiles what increment t will run: its test, the `plans` that lanes have for it, and with `matrix` its row
        of R; `lists` as in `Executor.rank`. The state is that of the increment before, in its tables."""
        if not executor.way.ahead() or feed.ahead(t) is None:
            return
        state, sizes, feed = expected.shapes(executor.state), executor.sizes, copy.copy(feed)  # the stream as it is
        before = self.thread

        def work() -> None:
            if before is not None:
                before.join()
            try:
                self.rehearse(feed, executor.way, sizes, state, inputs, t, plans, matrix, lists)
            except Exception:  # the run meets it itself, or it is of the shapes only
                logging.getLogger(__name__).debug("compiling ahead", exc_info=True)

        self.thread = threading.Thread(target=work, name="compiling ahead")
        self.thread.start()

    def rehearse(
        self,
        feed: Feed,
        way: Alone | Lanes,
        sizes: Sizes,
        state: PyTree,
        inputs: Mapping[str, Input],
        t: int,
        plans: Collection[Plan],
        matrix: bool,
        lists: bool,
    ) -> None:
        """Runs increment t on shapes."""
        like = feed.ahead(t)
        assert like is not None
        wanted = feed.sizes(t, inputs, sizes) if plans or feed.listed else sizes
        f, grown = self.on_shapes(way, sizes), state
        then = self.on_shapes(way, wanted)
        if wanted != sizes:
            grown = then.grow(state)
        tested, its = (then, grown) if feed.listed else (f, state)
        data, seen = expected.tests(feed, tested.program, like, like - 1, heldout=False)
        tested.ranks(its, *expected.shapes((data, seen)), lists=lists)
        on = way.on([])
        for plan in plans:
            given = expected.shapes(expected.update(feed, then.program, shifted(plan, like - t)))
            own, data = grown, given.data
            sums = then.sums(own)
            before = then.begun(on, None, sums)
            if wanted == sizes:  # what lanes that are off keep has the same tables
                then.begun(on, before, sums)
            if plan.afresh:
                own = then.restart(on, own, data)
            own = then.begin(on, own, data)
            own, _ = then.epoch(on, own, 1, data, base=False)
            own = then.validate(on, own, given.validation, given.seen)
            if then.program.keeps and then.program.epochs > 1:
                best = then.keep(on, then.keep(on, None, own), own)
                own = then.restored(on, own, best)
            own = then.end(on, own, data)
            then.written(before, then.sums(own), own.learner.params)
        if matrix:
            for each in range(len(feed.stream)):
                tests = expected.tests(feed, then.program, each, like, heldout=True)
                then.ranks(grown, *expected.shapes(tests), lists=lists)

    def on_shapes(self, way: Alone | Lanes, sizes: Sizes) -> Any:
        """The functions at these capacities: each call compiles, and gives the shapes of what the call would."""
        bound: Any = copy.copy(way.at(sizes))
        bound.functions = OnShapes(bound.functions, self.over)
        return bound


class OnShapes:
    """`Functions` whose calls compile, until it is over."""

    def __init__(self, functions: Any, over: threading.Event) -> None:
        self.functions, self.over = functions, over

    def __getattr__(self, name: str) -> Any:
        if self.over.is_set() or not threading.main_thread().is_alive():  # nor where the process ends without a word
            raise Over
        found = getattr(self.functions, name)
        return found.ahead if isinstance(found, Compiled) else found


def shifted(plan: Plan, by: int) -> Plan:
    """The plan at another increment, whose numbers stand for its own."""

    def moved(increments: range) -> range:
        return range(max(increments.start + by, 0), increments.stop + by)

    return Plan(moved(plan.increments), moved(plan.newest), moved(plan.arrived), plan.afresh)
