"""The log as a learner reads it: events and titles, the cuts between them, and choices."""

from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.engine import Log
from incremental.log.records import Choice, Cut, Event, Record, Title, encode

BLOCK = 10_000  # records read at once: as objects, which take ten times as much memory as in columns


class Tail:
    """What was read of a log so far. Of two cuts of one number, or two choices of one id, the first counts.

    Attributes:
        first: the log's first record, which says whose log it is; "" before there is one
        events: in columns, those that were not let go
        number: of all events so far
        begin, latest: the times of the first event and of the last
        cuts
        choices
    """

    def __init__(self, log: Log, place: str) -> None:
        self.log, self.place = log, place
        self.offset, self.first = 0, ""
        self.events = Events()
        self.number, self.begin, self.latest = 0, 0.0, 0.0
        self.cuts: list[Cut] = []
        self.choices: dict[str, Choice] = {}

    @property
    def sealed(self) -> int:
        """How many of the `events` are before the last cut."""
        return self.events.until(self.cuts[-1].until) if self.cuts else 0

    def read(self, wait: float = 0.0) -> None:
        """Reads what there is, waiting so many seconds for the first record."""
        while self.more(wait):
            wait = 0.0

    def more(self, wait: float = 0.0) -> bool:
        """Reads the next records, not too many; whether there were any."""
        block = self.log.read(self.offset, BLOCK, wait)
        for offset, record in block:
            self.take(offset, record)
            self.offset = offset
        return bool(block)

    def take(self, offset: int, record: Record) -> None:
        """The record at an offset, the next one that was read."""
        self.first = self.first or encode(record).decode()
        if isinstance(record, Event):
            self.events.add(offset, record)
            self.begin, self.latest = self.begin if self.number else record.time or 0.0, record.time or 0.0
            self.number += 1
        elif isinstance(record, Title):
            self.events.name(offset, record)
        elif isinstance(record, Choice):
            self.choices.setdefault(record.choice_id, record)
        elif record.number == len(self.cuts):
            self.cuts.append(record)
        elif record.number > len(self.cuts):
            raise UserError(
                f"{self.place}: the record at offset {offset} ends increment {record.number}, but no increment "
                f"{len(self.cuts)} has ended; take the log from a copy"
            )
