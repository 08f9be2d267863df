"""A guest: a feed that is filled while `run_stream` consumes it."""

import itertools
import queue
import threading
from typing import Any

import polars as pl

import incremental as inc
from incremental.data.interactions import Table
from incremental.run.feed import Capacities
from incremental.run.progress import Finished, Trained
from tests import lab


class QueueFeed(inc.Feed):
    """Increments come through a queue, as frames of events; None is the end. The stream grows with each."""

    def __init__(self, source: "queue.Queue[pl.DataFrame | None]") -> None:
        self.source, self.frames, self.over = source, [self.next(source)], False
        super().__init__(self.grown())

    @staticmethod
    def next(source: "queue.Queue[pl.DataFrame | None]") -> pl.DataFrame:
        frame = source.get(timeout=60)
        assert frame is not None, "the base part"
        return frame

    def grown(self) -> Any:
        starts = [frame["time"][0] for frame in self.frames[1:]]
        table = Table(pl.concat(self.frames), "a queue")
        return inc.make_stream(source=table, cut=lab.by_time(starts), history=lab.HISTORY, heldout=0.1)

    def wait(self, t: int) -> bool:
        while t >= len(self.frames) and not self.over:
            frame = self.source.get(timeout=60)
            self.over = frame is None
            if frame is not None:
                self.frames.append(frame)
                self.stream = self.grown()
        return t < len(self.frames)

    def ahead(self, t: int) -> int | None:
        """Of what the queue will bring, the last increment tells what its programs may be like."""
        return min(t, len(self.stream) - 1)


def increments() -> list[pl.DataFrame]:
    frame = lab.simulated().frame.select("user", "item", "time")
    bounds = [0, *lab.bounds_of(lab.simulated()), 2**40]
    return [frame.filter(pl.col("time").is_between(a, b, closed="left")) for a, b in itertools.pairwise(bounds)]


def test_it_is_read_while_it_is_filled_and_gives_the_results_of_the_file() -> None:
    source: queue.Queue[pl.DataFrame | None] = queue.Queue()
    parts, trained = increments(), threading.Event()
    order: list[str] = []

    def fill() -> None:
        for frame in parts[:2]:  # the base part and the first increment
            source.put(frame)
        trained.wait(60)  # the next one arrives when the first was learnt
        for number, frame in enumerate(parts[2:], 2):
            order.append(f"increment {number} arrives")
            source.put(frame)
        source.put(None)

    filler = threading.Thread(target=fill)
    filler.start()
    build, found = lab.build(lab.Spec("replay+ewc")), None
    executor = inc.Executor.alone(build)
    for event in inc.run_stream(QueueFeed(source), executor, inc.update(), metrics=("ndcg@10",)):
        if isinstance(event, Trained):
            order.append(f"increment {event.cost.increment} is learnt")
            if event.cost.increment == 1:
                trained.set()
        elif isinstance(event, Finished):
            found = event.result
    filler.join()
    assert order.index("increment 1 is learnt") < order.index("increment 2 arrives")
    whole = lab.run(build, lab.stream(), feed={"capacities": Capacities()})  # those of the queue
    assert found is not None
    assert list(map(str, found.records)) == list(map(str, whole.records))
    lab.assert_same(found.state, whole.state)
