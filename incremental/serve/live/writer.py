"""The one thread that writes the log: a bounded queue, one commit for all that waits, verdicts after the commit."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from incremental.errors import UserError
from incremental.log.engine import Log, Unkept, Written
from incremental.log.records import Record
from incremental.serve.live.refused import Refused

TOGETHER = 4096  # records of one commit
TOLD = 10.0  # seconds that a commit's failure is told, if none succeeds: who looks every few seconds sees it
IDLE = 0.05  # seconds after which a log that nobody here wrote to is looked at again: others write cuts


class Waiting(NamedTuple):
    """Records that wait for their commit."""

    records: Sequence[Record]
    future: "Future[list[Written]]"


class Writer:
    """Commits what is submitted, in the order of submission.

    `follow(until)` is called in this thread after a commit, before anything is acknowledged, with the last offset that
    was written, and with 0 when there is nothing to write.
    """

    def __init__(
        self,
        log: Log,
        most: int,
        follow: Callable[[int], None] = lambda _until: None,
        observe: Callable[[int, float], None] = lambda _records, _seconds: None,
    ) -> None:
        self.log, self.most, self.follow, self.observe = log, most, follow, observe
        self.queue: deque[Waiting] = deque()
        self.length, self.closing = 0, False
        self.failure: BaseException | None = None
        self.until = 0.0  # when the failure of the last commit is old
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.thread.start()

    def submit(self, records: Sequence[Record]) -> "Future[list[Written]]":
        """What will become of the records; done once they are on disk. Raises Refused where the queue is full."""
        future: Future[list[Written]] = Future()
        future.set_running_or_notify_cancel()  # a client that goes away takes nothing back
        with self.changed:
            self.room(len(records))
            self.queue.append(Waiting(records, future))
            self.length += len(records)
            self.changed.notify()
        return future

    def room(self, records: int) -> None:
        """Raises Refused where the queue has no room for so many records."""
        if self.closing:
            raise Refused(503, "the server is ending", "a server that runs", "send it again", after=5)
        if self.queue and self.length + records > self.most:
            raise Refused(
                429,
                f"{self.length:,} events wait for their commit",
                f"at most {self.most:,} (live.queue)",
                "send it again after the seconds of Retry-After",
                after=1,
            )

    def close(self) -> None:
        """Commits what waits, and ends."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    def _run(self) -> None:
        while True:
            with self.changed:
                if not self.queue and not self.closing:
                    self.changed.wait(IDLE)
                if not self.queue and self.closing:
                    return
                group: list[Waiting] = []
                number = 0
                while self.queue and (not group or number + len(self.queue[0].records) <= TOGETHER):
                    group.append(self.queue.popleft())
                    number += len(group[-1].records)
                self.length -= number
            self._commit(group)

    def _commit(self, group: list[Waiting]) -> None:
        """Commits a group, all or none of it; an empty one looks at what others have written.

        A record that the log cannot keep fails the request that it came with, and no other.
        """
        try:
            if not group:
                self.follow(0)
                if time.monotonic() >= self.until:
                    self.failure = None
                return
            start = time.perf_counter()
            try:
                written = self.log.append([record for each in group for record in each.records])
            except (Unkept, ValueError) as error:  # before anything was written
                self._apart(group, error)
                return
            self.observe(len(written), time.perf_counter() - start)
            self.follow(max((each.offset for each in written), default=0))
            self.failure = None
        except BaseException as error:
            self.failure = error
            if group:
                self.until = time.monotonic() + TOLD
            else:
                time.sleep(IDLE)
            for each in group:
                each.future.set_exception(unwritten(error))
            return
        for each in group:
            own, written = written[: len(each.records)], written[len(each.records) :]
            each.future.set_result(own)

    def _apart(self, group: list[Waiting], error: Exception) -> None:
        """Commits each request of a group that has a record which the log cannot keep."""
        if len(group) > 1:
            for one in group:
                self._commit([one])
        else:
            refused = Refused(413, str(error), "records that the log can keep", "make their texts shorter")
            group[0].future.set_exception(refused)


def unwritten(error: BaseException) -> Refused:
    """What a client is told whose events are not acknowledged: to send them again is safe in any case."""
    said = str(error) if isinstance(error, UserError) else type(error).__name__
    return Refused(
        503, f"not acknowledged: {said}", "a log that can be written", "send it again with the same event_id", after=5
    )
