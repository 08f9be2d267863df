"""The parts of a server, put together: log, writer, people, chooser, batcher, counts."""

import logging
import math
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from incremental.log.engine import Log
from incremental.log.records import Event, Title
from incremental.serve.live.access import Access
from incremental.serve.live.batching import Batcher
from incremental.serve.live.choosing import Chooser
from incremental.serve.live.events import Fault, Rules
from incremental.serve.live.limits import Limits, Rate
from incremental.serve.live.metrics import Lag, Metrics
from incremental.serve.live.model import Loader, Model
from incremental.serve.live.people import People
from incremental.serve.live.versions import LEARNERS
from incremental.serve.live.writer import Writer

said = logging.getLogger("incremental.serve")
MOST_TYPES = 127  # behaviours that a stream may have
MINUTES = 60  # seconds' worth of new items that may come at once


class Settings(NamedTuple):
    """What a server is told.

    Attributes:
        folder: the live folder
        champion: the learner that serves until a choice says another
        host: its address; other than loopback only where there are tokens
        port
        types: what users do; empty: whatever comes, up to 127 of them
        history: L, the last events that a model reads
        kinds: further kinds of ids, and the events' fields that hold them
        only: the types of events that the learners read; None: all
        limits
        access_log: paths: a line a request, without what is asked; ids: with it; off: no lines
    """

    folder: Path
    champion: str
    host: str = "127.0.0.1"
    port: int = 8765
    types: Collection[str] = ()
    history: int = 50
    kinds: Mapping[str, str] = {}
    only: Collection[str] | None = None
    limits: Limits = Limits()
    access_log: Literal["paths", "ids", "off"] = "paths"


class Service:
    """A server without its HTTP. It has read the whole log, and its first version is warm, once it is made."""

    def __init__(self, settings: Settings, log: Log, loader: Loader) -> None:
        limits = settings.limits
        self.settings, self.log, self.started = settings, log, time.time()
        self.learners = settings.folder / LEARNERS
        self.access = Access(settings.folder, settings.host)
        self.rate = Rate(limits.rate, limits.burst)
        self.new_items = Rate(limits.new_items, max(limits.new_items * MINUTES, limits.batch))  # a full batch passes
        self.types: set[str] = set()  # of the log, and of events that wait for their commit
        self.rules = Rules(settings.types, limits)
        self.people = People(log, settings.history, settings.kinds, settings.only)
        self.metrics = Metrics(
            {
                "events_in_log": ("Events of the log, of the types that are learned", lambda: self.people.events),
                "users": ("Users of the log", lambda: len(self.people.users)),
                "items": ("Items of the log", lambda: len(self.people.items)),
                "queue_events": ("Events that wait for their commit", lambda: self.writer.length),
                "queue_requests": ("Requests that wait for the model", lambda: len(self.batcher.queue)),
                "version": ("Number of the version that serves; -1: none", lambda: self.version),
                "version_age_seconds": ("Since the version was put in place", lambda: self.age),
                "lag_events": ("Events that the version has not learnt", lambda: self.lag().events),
                "lag_seconds": ("Between the last event and the last learnt", lambda: self.lag().seconds),
                "lag_increments": ("Increments that the version has not learnt", lambda: self.lag().increments),
            }
        )
        self.people.follow(log.last())
        self.chooser = Chooser(self.learners, settings.champion, self.people, loader, self._swapped)
        self.chooser.start()
        self.batcher = Batcher(
            self.people, lambda: self.chooser.current, limits.requests, limits.most, self.metrics.batches.observe
        )
        self.writer = Writer(
            log, limits.queue, self.people.follow, lambda _records, seconds: self.metrics.commits.observe(seconds)
        )

    def close(self) -> None:
        """Commits and answers what waits, and lets the log go."""
        self.writer.close()
        self.batcher.close()
        self.chooser.close()
        self.log.close()

    def admit(self, checked: list[Event | Fault]) -> None:
        """Refuses, in place, the events of more types than a stream may have, and those that bring more new items than
        the rate of new items lets in. The event loop alone calls it."""
        only = self.settings.only
        self.types.update(self.people.types)
        for place, each in enumerate(checked):
            if isinstance(each, Event) and each.type not in self.types and (only is None or each.type in only):
                if len(self.types) < MOST_TYPES:
                    self.types.add(each.type)  # now: another request may come before the commit
                else:
                    checked[place] = Fault(
                        f"type: {each.type!r} would be one of more than {MOST_TYPES} types",
                        "few types that return",
                        "list them in live.types",
                    )
        self.admit_items(checked)

    def admit_items(self, checked: list[Any]) -> None:
        """Refuses, in place, the events and titles that bring more new items than their rate lets in: of an item of
        which the log has neither. The event loop alone calls it."""
        people = self.people
        new = {
            each.item
            for each in checked
            if (isinstance(each, Event) and each.item not in people.items)
            or (isinstance(each, Title) and each.item not in people.items and each.item not in people.titles)
        }
        if new and (after := self.new_items.take("items", len(new))):
            reason = Fault(
                "item: too many new items at once",
                f"at most {self.settings.limits.new_items:g} a second (live.new_items)",
                f"send it again after {math.ceil(after)} s",
                after,
            )
            for place, each in enumerate(checked):
                if not isinstance(each, Fault) and each.item in new:
                    checked[place] = reason

    def read(self, titles: Collection[Title]) -> None:
        """Has new titles read for the model that serves, if it reads any, so that they wait for nothing later."""
        model = self.chooser.current
        if model is not None and model.places.texts is not None:
            try:
                model.places.texts.of([each.title for each in titles if each.item not in self.people.titles])
            except Exception:  # whatever it is, titles are taken
                said.exception("titles cannot be read")

    @property
    def version(self) -> int:
        """That serves; -1: none."""
        model = self.chooser.current
        return -1 if model is None else model.number

    @property
    def age(self) -> float:
        """Seconds since the version was put in place; 0: there is none."""
        return time.monotonic() - self.chooser.since if self.chooser.current else 0.0

    def lag(self) -> Lag:
        """How far the version that serves is behind the log."""
        model, people = self.chooser.current, self.people
        if model is None:
            return Lag(people.events, 0.0, len(people.sealed))
        learnt = people.learnt(model.cut)
        last = people.sealed[-1].number if people.sealed else learnt.number
        return Lag(people.events - learnt.events, max(people.latest - learnt.latest, 0.0), last - learnt.number)

    def broken(self) -> str:
        """Why the server does not do its work, "" where it does."""
        for thread in (self.writer.thread, self.batcher.thread):
            if not thread.is_alive():
                return f"the thread {thread.name} has ended"
        return "" if self.writer.failure is None else f"the log: {self.writer.failure}"

    def _swapped(self, _model: Model, seconds: float) -> None:
        self.metrics.swaps.inc()
        self.metrics.swap_seconds.set(seconds)
