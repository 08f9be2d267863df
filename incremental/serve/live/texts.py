"""What a learner's models read of titles: each is turned into numbers once, and those of new items get free rows."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from incremental.serve.live.people import People

said = logging.getLogger("incremental.serve")
Encode = Callable[[Sequence[str]], npt.NDArray[Any]]


class Texts:
    """The numbers of titles, by `encode` (`data.text`), which each title is given to once. Safe in any thread."""

    def __init__(self, encode: Encode) -> None:
        self.encode, self.lock = encode, threading.Lock()
        self.found: dict[str, np.ndarray] = {}
        self.of([""])

    def of(self, titles: Sequence[str]) -> np.ndarray:
        """[titles, ...]"""
        with self.lock:
            missing = [title for title in dict.fromkeys(titles) if title not in self.found]
            if missing:
                self.found |= dict(zip(missing, self.encode(missing), strict=True))
            none = self.found[""]
            return np.stack([none, *(self.found[title] for title in titles)])[1:]


class Places:
    """The rows of a version's tables: its items by their numbers, and behind them those that have but a title.

    `first`: so many rows are its items', row 0 included; `rows`: there are so many. `texts` None: its items need more
    than a title, and the rows behind are nobody's.
    """

    def __init__(self, first: int, rows: int, texts: Texts | None) -> None:
        self.first, self.rows, self.texts = first, rows, texts
        self.looked = 0  # titles of the log that were looked at
        self.names: list[str] = []
        self.row: dict[str, int] = {}
        self.full = False

    def new(self, people: People) -> tuple[np.ndarray, np.ndarray]:
        """Gives a row to each item with a title that has come since the last look: [n] the rows, [n, ...] what is read.

        The log's order decides who gets one where there are not enough.
        """
        if self.texts is None:
            return np.zeros(0, np.int32), np.zeros(0)
        until, found = len(people.titled), []
        for item in people.titled[self.looked : until]:
            if not 0 < people.items.get(item, 0) < self.first:
                found.append(item)
        self.looked = until
        room = self.rows - self.first - len(self.names)
        self.full |= len(found) > room
        found = found[:room]
        try:
            values = self.texts.of([people.title(item) for item in found])
        except Exception:  # what the text cannot be read for; users are answered all the same
            said.exception("titles of %d new items are left out", len(found))
            found, values = [], self.texts.of([])
        begin = self.first + len(self.names)
        self.row |= {item: begin + n for n, item in enumerate(found)}
        self.names += found
        return np.arange(begin, begin + len(found), dtype=np.int32), values

    def name(self, people: People, row: int) -> str:
        """The item of a row."""
        return people.names[row] if row < self.first else self.names[row - self.first]

    def of(self, people: People, item: str) -> int:
        """The row of an item; 0: it has none."""
        number = people.items.get(item, 0)
        return number if 0 < number < self.first else self.row.get(item, 0)

    def had(self, people: People, numbers: np.ndarray) -> np.ndarray:
        """[n] the rows of the items with these numbers, which have one."""
        new = [self.row.get(people.names[number], 0) for number in numbers[numbers >= self.first].tolist()]
        return np.concatenate([numbers[numbers < self.first], np.array(new, np.int32)])
