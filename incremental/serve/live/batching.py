"""The one thread that runs the model: requests that come while it is at work are answered together."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import islice, takewhile
from typing import Any, NamedTuple

import numpy as np

from incremental.serve.live.model import BUCKETS, Best, Model, piece
from incremental.serve.live.people import Asked, People
from incremental.serve.live.refused import Refused


class Request(NamedTuple):
    """A recommendation that waits."""

    user: str
    exclude: bool
    future: "Future[tuple[Model | None, Asked, Best]]"


class Job(NamedTuple):
    """Another use of the model."""

    work: Callable[[Model | None], Any]
    future: "Future[Any]"


class Batcher:
    """Answers requests in a thread of its own, by the model that `current()` gives at that moment: one for a batch."""

    def __init__(
        self,
        people: People,
        current: Callable[[], Model | None],
        most: int,
        k: int,
        observe: Callable[[int], None] = lambda _rows: None,
    ) -> None:
        self.people, self.current, self.most, self.k, self.observe = people, current, most, k, observe
        self.queue: deque[Request | Job] = deque()
        self.changed, self.closing = threading.Condition(), False
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def recommend(self, user: str, *, exclude: bool) -> "Future[tuple[Model | None, Asked, Best]]":
        """The model that will have answered, what is known of the user, and the best items. Raises Refused."""
        future: Future[tuple[Model | None, Asked, Best]] = Future()
        self._submit(Request(user, exclude, future))
        return future

    def do(self, work: Callable[[Model | None], Any]) -> "Future[Any]":
        """What `work(model)` will have returned. Raises Refused."""
        future: Future[Any] = Future()
        self._submit(Job(work, future))
        return future

    def close(self) -> None:
        """Answers what waits, and ends."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    def _submit(self, each: Request | Job) -> None:
        each.future.set_running_or_notify_cancel()  # a client that goes away leaves it as it is
        with self.changed:
            if len(self.queue) >= self.most or self.closing:
                raise Refused(
                    429,
                    f"{len(self.queue):,} requests wait for the model",
                    f"at most {self.most:,} (live.requests)",
                    "send it again after the seconds of Retry-After",
                    after=1,
                )
            self.queue.append(each)
            self.changed.notify()

    def _next(self) -> list[Request] | Job | None:
        """Requests to answer together, or a job; None: it is over."""
        with self.changed:
            while not self.queue:
                if self.closing:
                    return None
                self.changed.wait()
            first = self.queue.popleft()
            if isinstance(first, Job):
                return first
            waiting = takewhile(lambda each: isinstance(each, Request), islice(self.queue, BUCKETS[-1] - 1))
            batch = [first]
            for _ in range(piece(1 + sum(1 for _ in waiting)) - 1):
                batch.append(self.queue.popleft())  # type: ignore[arg-type]
            return batch

    def _run(self) -> None:
        while (found := self._next()) is not None:
            model = self.current()  # read once
            if isinstance(found, Job):
                settle([found.future], partial(self._alone, model, found))
            else:
                self.observe(len(found))
                settle([each.future for each in found], partial(self._answer, model, found))

    def _alone(self, model: Model | None, job: Job) -> list[Any]:
        if model is not None:
            model.look(self.people)
        return [job.work(model)]

    def _answer(self, model: Model | None, batch: list[Request]) -> list[tuple[Model | None, Asked, Best]]:
        asked = [self.people.ask(each.user) for each in batch]
        exclude = [each.exclude for each in batch]
        if model is None:
            found = [popular(self.people, *each, self.k) for each in zip(asked, exclude, strict=True)]
        else:
            model.look(self.people)
            found = model.best(self.people, asked, exclude)
        return [(model, *each) for each in zip(asked, found, strict=True)]


def settle(futures: "list[Future[Any]]", work: Callable[[], list[Any]]) -> None:
    """Gives each future its part of the work, or what the work raised."""
    try:
        found = work()
    except BaseException as error:
        for future in futures:
            future.set_exception(error)
        return
    for future, each in zip(futures, found, strict=True):
        future.set_result(each)


def popular(people: People, asked: Asked, exclude: bool, k: int) -> Best:
    """The items with most events in the log, as long as there is no version; of equal ones the older item first."""
    counts = people.popular()
    counts[0] = 0
    if exclude:
        counts[asked.had] = 0
    order = np.argsort(-counts, kind="stable")[:k]
    order = order[counts[order] > 0]
    return Best(order, counts[order].astype(np.float32), True)
