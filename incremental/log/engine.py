"""What a log does, whatever keeps it: append, read from an offset, say which offset is the last."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from incremental.errors import UserError

if TYPE_CHECKING:
    from incremental.log.records import Record


class Unkept(UserError):
    """A record that the log cannot keep at any time, such as one that is too long. Nothing was written."""


class Written(NamedTuple):
    """What became of a record.

    Attributes:
        offset: its place in the log, from 1; of a record that was there already, that one's, or 0 where the engine does
            not say
        new: it was not there already
    """

    offset: int
    new: bool


class Log(Protocol):
    """Records in the order of their arrival. Each has an offset, and later ones have larger offsets.

    A record whose `key` is there already may be kept a second time (Kafka does): a reader takes the first one only,
    which whoever reads does for itself.
    """

    def append(self, records: Sequence["Record"]) -> list[Written]:
        """Keeps the records, all or none, and returns once they are on disk."""
        ...

    def read(self, after: int, most: int, wait: float = 0.0) -> list[tuple[int, "Record"]]:
        """The next records, at most so many, with their offsets; waits so many seconds for the first one."""
        ...

    def last(self) -> int:
        """The offset of the last record; 0: there is none."""
        ...

    def close(self) -> None: ...
