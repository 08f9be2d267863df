"""The log as a learner reads it: events, the cuts between them, and choices."""

from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.engine import Log
from incremental.log.records import Choice, Cut, Event, Record, encode

BLOCK = 50_000  # records read at once


class Tail:
    """What was read of a log so far. Of two cuts of one number, or two choices of one id, the first counts.

    Attributes:
        first: the log's first record, which says whose log it is; "" before there is one
        events: in columns
        cuts
        sealed: the number of events up to the last cut
        choices
    """

    def __init__(self, log: Log, place: str) -> None:
        self.log, self.place = log, place
        self.offset, self.first = 0, ""
        self.events = Events()
        self.cuts: list[Cut] = []
        self.sealed = 0
        self.choices: dict[str, Choice] = {}

    def read(self, wait: float = 0.0) -> None:
        """Reads what there is, waiting so many seconds for the first record."""
        while block := self.log.read(self.offset, BLOCK, wait):
            for offset, record in block:
                self.take(offset, record)
            self.offset, wait = block[-1][0], 0.0

    def take(self, offset: int, record: Record) -> None:
        """The record at an offset, the next one that was read."""
        self.first = self.first or encode(record).decode()
        if isinstance(record, Event):
            self.events.add(offset, record)
        elif isinstance(record, Choice):
            self.choices.setdefault(record.choice_id, record)
        elif record.number == len(self.cuts):
            self.cuts.append(record)
            self.sealed = self.events.until(record.until)
        elif record.number > len(self.cuts):
            raise UserError(
                f"{self.place}: the record at offset {offset} ends increment {record.number}, but no increment "
                f"{len(self.cuts)} has ended; take the log from a copy"
            )
