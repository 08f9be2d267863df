"""A log on a broker: records travel in messages, as many in one as were appended at once.

A message is kept whole or not at all, and a broker that writes to disk before it answers does so once a message. What a
broker may keep twice, a retry, counts once: offsets number the records whose key is new, from 1 and without gaps, so
that they depend on nothing but the messages. For that a process reads the log from its start when it opens it, and
remembers a hash of each key: about 100 bytes a record.
"""

import hashlib
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from incremental.errors import UserError
from incremental.log.engine import Unkept, Written
from incremental.log.records import Record, encode

VERSION = 2  # of new messages, which may have titles
READS = 1, 2  # one of version 1 has none
POLL = 0.02  # seconds between two looks at a log that waits for records
AT_ONCE = 64  # messages fetched at once
ROOM = 64  # bytes of a message around its records
NOTHING: frozenset[int] = frozenset()


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a message holds.

    Attributes:
        version: of this form
        records: in order
    """

    version: int
    records: list[Record]


class About(msgspec.Struct):
    """The part of a message that every version has."""

    version: int


class Broker(Protocol):
    """What keeps messages in order: message 0, 1, … Each call may come from any thread.

    Attributes:
        place: for messages to the reader
        most: bytes of a message
    """

    place: str
    most: int

    def size(self) -> int:
        """How many messages there are."""
        ...

    def publish(self, body: bytes) -> tuple[int, bool]:
        """The message's number, once it is on disk, and whether it is new, as far as the broker knows."""
        ...

    def fetch(self, first: int, number: int) -> list[bytes]:
        """At least one and at most so many messages from number `first` on, which are there."""
        ...

    def close(self) -> None: ...


class Numbers:
    """The offsets of records in messages 0, 1, …, which are told one after another."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()  # the keys' hashes
        self.ends = array("q")  # records up to each message's end
        self.again: dict[int, frozenset[int]] = {}  # by message: the places of repeated records

    @property
    def last(self) -> int:
        """The last offset."""
        return self.ends[-1] if self.ends else 0

    def tell(self, records: Sequence[Record]) -> None:
        """The next message's records."""
        repeated: set[int] = set()
        for place, record in enumerate(records):
            key = hashlib.blake2b(record.key.encode(), digest_size=16).digest()
            if key in self.seen:
                repeated.add(place)
            self.seen.add(key)
        if repeated:
            self.again[len(self.ends)] = frozenset(repeated)
        self.ends.append(self.last + len(records) - len(repeated))

    def message(self, after: int) -> int:
        """The first message with an offset beyond `after`; the next one, which is not told yet, where none has."""
        return bisect_right(self.ends, after)

    def written(self, message: int, records: int) -> list[Written]:
        """What became of each record of a message that was told."""
        offset, found = self.ends[message - 1] if message else 0, []
        repeated = self.again.get(message, NOTHING)
        for place in range(records):
            new = place not in repeated
            offset += new
            found.append(Written(offset if new else 0, new))
        return found


class Block(NamedTuple):
    """Messages that were fetched: the first one's number, and each one's records."""

    first: int
    messages: list[list[Record]]


class Messages:
    """The log of a broker, see `Log`; a reader that waits holds nobody up."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.lock = broker, threading.Lock()
        self.numbers, self.block = Numbers(), Block(0, [])

    def append(self, records: Sequence[Record]) -> list[Written]:
        """See `Log`. All or none, where they fit into a message; else each message's."""
        found: list[Written] = []
        for part, body in self._parts(records):
            number, fresh = self.broker.publish(body)
            if not fresh:
                found += [Written(0, False)] * len(part)
                continue
            with self.lock:
                while (told := len(self.numbers.ends)) < number:
                    self._fetch(told, number)
                if told == number:  # else a reader was faster
                    self.numbers.tell(part)
                found += self.numbers.written(number, len(part))
        return found

    def _parts(self, records: Sequence[Record]) -> list[tuple[list[Record], bytes]]:
        """What fits into a message each, and the message."""
        parts: list[tuple[list[Record], list[bytes]]] = []
        room = 0
        for record in records:
            body = encode(record)
            if len(body) >= self.broker.most - ROOM:
                what = f"a record of {len(body):,} bytes, and a message holds {self.broker.most:,}"
                raise Unkept(f"{self.broker.place}: {what}; make its texts shorter, or the server's limit larger")
            if room <= len(body):
                parts.append(([], []))
                room = self.broker.most - ROOM
            parts[-1][0].append(record)
            parts[-1][1].append(body)
            room -= len(body) + 1
        return [(part, b'{"version":%d,"records":[%b]}' % (VERSION, b",".join(made))) for part, made in parts]

    def read(self, after: int, most: int, wait: float = 0.0) -> list[tuple[int, Record]]:
        """See `Log`."""
        until = time.monotonic() + wait
        while True:
            with self.lock:
                found = self._read(after, most)
            if found or time.monotonic() >= until:
                return found
            time.sleep(min(POLL, max(until - time.monotonic(), 0.0)))

    def _read(self, after: int, most: int) -> list[tuple[int, Record]]:
        found: list[tuple[int, Record]] = []
        number = self.numbers.message(after)
        while len(found) < most:
            place = number - self.block.first
            if not 0 <= place < len(self.block.messages):
                size = self.broker.size()
                if number >= size:
                    break
                self._fetch(number, size)
                place = 0
            records = self.block.messages[place]
            written = zip(self.numbers.written(number, len(records)), records, strict=True)
            found += [(one.offset, record) for one, record in written if one.offset > after]
            number += 1
        return found[:most]

    def _fetch(self, first: int, size: int) -> None:
        """The next block, from a message on that is told or is the next to be; `size`: so many there are."""
        bodies = self.broker.fetch(first, min(AT_ONCE, size - first))
        self.block = Block(first, [self._decoded(first + place, body) for place, body in enumerate(bodies)])
        for number, records in enumerate(self.block.messages, first):
            if number == len(self.numbers.ends):
                self.numbers.tell(records)

    def _decoded(self, number: int, body: bytes) -> list[Record]:
        try:
            if (version := DECODE_ABOUT(body).version) in READS:
                return DECODE(body).records
        except msgspec.MsgspecError as error:
            raise UserError(
                f"{self.broker.place}: message {number} is none of a log ({error}); give the log that "
                "incremental-serve made, and let nothing else write to it"
            ) from None
        raise UserError(
            f"{self.broker.place}: a log of version {version}, this code reads up to {VERSION}; use the code that "
            "wrote it"
        )

    def last(self) -> int:
        """See `Log`."""
        with self.lock:
            size = self.broker.size()
            while (told := len(self.numbers.ends)) < size:
                self._fetch(told, size)
            return self.numbers.last

    def close(self) -> None:
        """Lets the broker go."""
        self.broker.close()


DECODE = msgspec.json.Decoder(Message).decode
DECODE_ABOUT = msgspec.json.Decoder(About).decode
