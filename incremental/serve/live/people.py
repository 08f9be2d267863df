"""What the log says of users and items so far: numbers, titles, each user's last events, and what each has had."""

import struct
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from incremental.data.choosing import belongs
from incremental.data.features import Examples
from incremental.data.interactions import Interactions, Kind
from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.log.records import Choice, Cut, Event, Record, Title

MANY = 4096  # records that are read at once
LOOK, SOON = 0.02, 50  # seconds between two looks at what another thread reads, and how many
PATIENCE = 30  # reads, of a second each, for a record that was written


class Person:
    """A user: packed last events, and the items had, of which the first `unique` are distinct."""

    __slots__ = ("had", "recent", "unique")

    def __init__(self) -> None:
        self.recent, self.had, self.unique = bytearray(), array("i"), 0


class Asked(NamedTuple):
    """What is known of a user who asks.

    Attributes:
        number: 0: never in the log
        recent: the last events, at most 2 L, of `People.dtype`
        had: [n] int32, the numbers of the items had
    """

    number: int
    recent: np.ndarray
    had: np.ndarray


class Sealed(NamedTuple):
    """A cut, and what was before it.

    Attributes:
        number: of the increment that it ends
        until: the offset of its last event
        events: of the log up to there
        latest: the largest time of these
        reason: of the cut
        time: of the cut
    """

    number: int
    until: int
    events: int
    latest: float
    reason: str
    time: float


class People:
    """The log's state for serving; it follows the log from offset 0, and one thread writes it.

    Ids have numbers by first appearance in the log, as a stream of this log has them. Of each user it keeps the last
    2 L events, so that L are left where a model does not know all of their items, and the distinct items. `kinds`:
    further kinds of ids and the events' fields that hold them. `only`: events of other types are no part of the stream
    (data.cleaning.behaviours); None: all are. Memory depends on users and distinct items, and not on the events.
    """

    def __init__(
        self, log: Log, length: int, kinds: Mapping[str, str] = {}, only: Collection[str] | None = None
    ) -> None:
        self.log, self.length, self.kinds, self.only = log, length, dict(kinds), only
        columns: list[Any] = [("item", "<i4"), ("time", "<i8"), ("fraction", "<i4"), ("behaviour", "<i2")]
        self.dtype = np.dtype([*columns, *((f"kind:{kind}", "<i4") for kind in self.kinds)])
        self.pack = struct.Struct("<iqih" + "i" * len(self.kinds)).pack  # a row of it
        self.lock = threading.Lock()
        self.offset = self.events = 0  # the last record's place; how many of them are events
        self.first = self.latest = 0.0  # the stream's time at its first event, and at its last
        self.clock = 0.0  # the largest time of all of the log's events
        self.users: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.types: dict[str, int] = {}
        self.others: dict[str, dict[str, int]] = {kind: {} for kind in self.kinds}
        self.names: list[str] = [""]  # of items by number
        self.began = array("q", [0])  # the offset of each item's first event, by number
        # By item, also of those without an event: the offset of its title, and the title.
        self.titles: dict[str, tuple[int, str]] = {}
        self.titled: list[str] = []  # their items, in the log's order
        self.texts: list[str] = [""]  # by number, of items that a cut has sealed: the title that a stream has
        self.counts = np.zeros(1024, np.int64)  # events by item
        self.people: list[Person] = [Person()]
        self.open = array("q"), array("d")  # offsets of the events that no cut has sealed, and the time at each
        self.sealed: list[Sealed] = []
        self.choice: Choice | None = None

    def follow(self, until: int = 0) -> None:
        """Reads what is new in the log, at least up to the offset `until`; a UserError where it does not come."""
        patience = PATIENCE
        while True:
            records = self.log.read(self.offset, MANY, 1.0 if self.offset < until else 0.0)
            with self.lock:
                for offset, record in records:
                    self._take(offset, record)
                    self.offset = offset
            if len(records) < MANY and self.offset >= until:
                return
            patience = PATIENCE if records else patience - 1
            if not patience:
                raise UserError(
                    f"the log has a record at offset {until}, and gives none after {self.offset}; start anew"
                )

    def ask(self, user: str) -> Asked:
        """What is known of a user now."""
        with self.lock:
            number = self.users.get(user, 0)
            person = self.people[number]
            recent = np.frombuffer(bytes(person.recent[-2 * self.length * self.dtype.itemsize :]), self.dtype)
            return Asked(number, recent, np.array(person.had, np.int32))

    def popular(self) -> np.ndarray:
        """[V] events of each item of the log, by number."""
        with self.lock:
            return self.counts[: len(self.names)].copy()

    def last(self, recent: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """[n] the places of the last L of these events whose ids the model knows."""
        return np.flatnonzero(visible(recent, known))[-self.length :]

    def examples(
        self,
        asked: Sequence[Asked],
        rows: int,
        known: Mapping[str, np.ndarray],
    ) -> tuple[Interactions, Examples]:
        """The last events of these users as a small log, and an example of each at its end, padded to `rows`.

        `known` [capacity] bool by kind: the ids that the model knows; events of others are no past.
        """
        kept = [each.recent[self.last(each.recent, known)] for each in asked]
        events = np.concatenate([np.zeros(0, self.dtype), *kept])
        past = np.full((rows, self.length), -1, np.int32)
        first = 0
        for row, own in zip(past, kept, strict=False):
            row[self.length - len(own) :] = np.arange(first, first + len(own))
            first += len(own)
        numbers = np.zeros(rows, np.int32)
        numbers[: len(asked)] = [each.number for each in asked]
        nothing = np.zeros(rows, np.int32)
        user = np.repeat([each.number for each in asked], [len(own) for own in kept]).astype(np.int32)
        return self._log(user, events), Examples(nothing - 1, numbers, past, nothing, nothing)

    def _log(self, user: np.ndarray, events: np.ndarray) -> Interactions:
        """Packed events as features read them."""
        return Interactions(
            user=user,
            item=events["item"],
            time=events["time"],
            fraction=events["fraction"],
            rating=None,
            behaviour=events["behaviour"].astype(np.int8),
            period=None,
            users=[],
            items=self.names,
            titles=None,
            behaviours=tuple(self.types),
            notes=(),
            further={kind: Kind(events[f"kind:{kind}"], []) for kind in self.kinds},
        )

    def learnt(self, until: int) -> Sealed:
        """What a version has learnt that was trained up to the cut at this offset; and how many cuts there are."""
        with self.lock:
            return next((each for each in reversed(self.sealed) if each.until <= until), self._nothing)

    @property
    def _nothing(self) -> Sealed:
        """Before the first cut."""
        return Sealed(-1, 0, 0, self.first, "", 0.0)

    def title(self, item: str) -> str:
        """The item's title; "" where it has none."""
        return self.titles[item][1] if item in self.titles else ""

    def read_until(self, cut: int, *, sealed: bool) -> bool:
        """Whether the log is read up to a cut's offset, and the cut too if `sealed`, soon at the latest."""
        for _ in range(SOON):
            if self.offset >= cut and not (sealed and len(self.texts) < self.until(cut)):
                return True
            time.sleep(LOOK)
        return False

    def until(self, offset: int) -> int:
        """How many items there are up to an offset, number 0 included."""
        with self.lock:
            return bisect_right(self.began, offset)

    def named(self, item: str) -> dict[str, Any]:
        """The item and its title, if it has one, as an answer has them."""
        return {"item": item, "title": self.title(item)} if item in self.titles else {"item": item}

    def _take(self, offset: int, record: Record) -> None:
        if isinstance(record, Choice):
            self.choice = record
        elif isinstance(record, Title):
            if record.item not in self.titles:
                self.titles[record.item] = offset, record.title
                self.titled.append(record.item)
        elif isinstance(record, Cut):
            places, times = self.open
            number = bisect_right(places, record.until)
            before = self.sealed[-1] if self.sealed else self._nothing
            time = times[number - 1] if number else before.latest
            self.sealed.append(
                Sealed(record.number, record.until, before.events + number, time, record.reason, record.time)
            )
            del places[:number], times[:number]
            for name in self.names[len(self.texts) : bisect_right(self.began, record.until)]:
                at, title = self.titles.get(name, (0, ""))
                self.texts.append(title if at <= record.until else "")
        else:
            # The stream's time is a running maximum over all types; it is taken before any is left out.
            self.clock = max(self.clock, record.time or 0.0)
            if self.only is None or record.type in self.only:
                self._event(offset, record)

    def _event(self, offset: int, event: Event) -> None:
        self.events += 1
        user = self.users.setdefault(event.user, len(self.people))
        if user == len(self.people):
            self.people.append(Person())
        item = self.items.setdefault(event.item, len(self.names))
        if item == len(self.names):
            self.names.append(event.item)
            self.began.append(offset)
            if item == len(self.counts):
                self.counts = np.concatenate([self.counts, np.zeros_like(self.counts)])
        self.counts[item] += 1
        self.latest = self.clock
        self.first = self.latest if self.events == 1 else self.first
        self.open[0].append(offset)
        self.open[1].append(self.latest)
        whole, fraction = divmod(round(self.latest * 1e6), 1_000_000)
        kind = self.types.setdefault(event.type, len(self.types))
        others = [numbered(self.others[each], event.fields.get(field)) for each, field in self.kinds.items()]
        person, size = self.people[user], self.dtype.itemsize
        person.recent += self.pack(item, whole, fraction * 1000, kind, *others)
        if len(person.recent) > 4 * self.length * size:
            del person.recent[: -2 * self.length * size]
        person.had.append(item)
        if len(person.had) > 2 * person.unique + 64:
            person.had = array("i", np.unique(np.array(person.had, np.int32)).tobytes())
            person.unique = len(person.had)


def numbered(known: dict[str, int], name: str | None) -> int:
    """The number of an id by first appearance, from 1; 0: there is none."""
    return 0 if name is None else known.setdefault(name, len(known) + 1)


def visible(events: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
    """[events] bool: those whose ids the model knows; one without an id of a kind is not unknown."""
    found = np.ones(len(events), bool)
    for kind, members in known.items():
        name = "item" if kind == "item" else f"kind:{kind}"
        if name in (events.dtype.names or ()):
            found &= belongs(members, events[name]) | (events[name] == 0)
    return found
