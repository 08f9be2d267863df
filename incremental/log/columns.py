"""The events of a log in columns, as a stream reads them: a few dozen bytes each; and the titles of its items."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from incremental.log.records import Event, Title

Ints = npt.NDArray[np.int32]


class Words:
    """A column of words: each word once, and a number an event; 0: it has none."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.names: list[str | None] = [None]  # by number
        self.numbers = array("i")

    def add(self, word: str | None, place: int) -> None:
        """The word of the event at a place; events between the last one and it have none."""
        if missing := place - len(self.numbers):
            self.numbers.extend([0] * missing)
        number = 0 if word is None else self.number.setdefault(word, len(self.names))
        if number == len(self.names):
            self.names.append(word)
        self.numbers.append(number)

    def first(self, n: int) -> Ints:
        """[n] the numbers of the first n events."""
        found = np.zeros(n, np.int32)
        there = min(n, len(self.numbers))
        found[:there] = self.numbers[:there]
        return found

    def words(self, n: int) -> pl.Series:
        """[n] the words of the first n events, str; null: none."""
        distinct, place = np.unique(self.first(n), return_inverse=True)
        return pl.Series([self.names[number] for number in distinct], dtype=pl.String).gather(place)

    def drop(self, n: int) -> None:
        """Without the first n events; the words stay."""
        del self.numbers[:n]


class Events:
    """Events by offset; what they say of time, user, item, type and fields, and nothing of what was served.

    `titles` has, by item, the first title and its offset; they stay.
    """

    def __init__(self, events: Iterable[tuple[int, Event]] = (), titles: Iterable[tuple[int, Title]] = ()) -> None:
        self.offsets, self.times = array("q"), array("d")
        self.users, self.items, self.types = Words(), Words(), Words()
        self.fields: dict[str, Words] = {}
        self.titles: dict[str, tuple[int, str]] = {}
        for offset, event in events:
            self.add(offset, event)
        for offset, title in titles:
            self.name(offset, title)

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, offset: int, event: Event) -> None:
        """The next event; its offset is larger than the last one's."""
        place = len(self.offsets)
        self.users.add(event.user, place)
        self.items.add(event.item, place)
        self.types.add(event.type, place)
        for name, word in event.fields.items():
            self.fields.setdefault(name, Words()).add(word, place)
        self.times.append(event.time or 0.0)
        self.offsets.append(offset)

    def name(self, offset: int, title: Title) -> None:
        """The next title."""
        self.titles.setdefault(title.item, (offset, title.title))

    def until(self, offset: int) -> int:
        """How many there are up to an offset."""
        return bisect_right(self.offsets, offset)

    def drop(self, n: int) -> None:
        """Without the first n of them."""
        del self.offsets[:n], self.times[:n]
        for words in (self.users, self.items, self.types, *self.fields.values()):
            words.drop(n)

    def field(self, name: str, n: int) -> pl.Series:
        """[n] the words that the first n events have in a field, str; null: none."""
        return self.fields.get(name, Words()).words(n)
