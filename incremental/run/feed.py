"""The feed: increments of a stream as padded examples on the device."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from incremental.core.types import Batch, Data, Program, PyTree, Seen, Sizes
from incremental.data.stream import Rows, Stream
from incremental.errors import UserError
from incremental.run.capacity import capacity
from incremental.run.policy import Plan

BYTES_AN_INTERACTION = 16  # user, item: 4 bytes each; time: 8
NOBODY = (np.zeros(0, np.int32), np.zeros(0, np.int32))

Place = Callable[[PyTree], PyTree]
"""puts host arrays where the programs are"""


class Capacities(NamedTuple):
    """What arrays are padded to, so that increments share programs."""

    table: int = 1024
    """rows of an id table at least: a smaller one saves less than compiling anew costs"""
    classes: int = 8
    """rows of the item table at least, where the labels are behaviours: there are few, and their scores are kept"""
    examples: int = 1024
    """examples of an update or a test at least; a power of two"""

    def rows(self, n: int) -> int:
        """A power of two for n examples, so that increments of like size share a program."""
        return 1 << max(n - 1, self.examples - 1).bit_length()


class Given(NamedTuple):
    """What one update reads."""

    data: Data
    validation: Data
    """the examples that say when to stop"""
    seen: Seen | None
    """what their rankings leave out"""


class Feed:
    """A stream's increments as examples for programs.

    `listed`: the items that an increment brings are candidates of its own test. `whole`: tables have room for all ids
    of the stream from the start. An endless feed overrides `wait`, and lets `stream` grow.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        listed: bool = False,
        whole: bool = False,
        capacities: Capacities = Capacities(),
    ) -> None:
        self.stream, self.listed, self.whole, self.capacities = stream, listed, whole, capacities
        self.texts: tuple[Any, Any] = None, None  # (known items, V, place) and their texts on the device

    def wait(self, t: int) -> bool:
        """Whether there is, or will have been, an increment t; returns once it is complete."""
        return t < len(self.stream)

    # -- capacities ------------------------------------------------------------------------------------------------

    def sizes(self, t: int, inputs: tuple[str, ...], least: Sizes = Sizes(0, 0)) -> Sizes:
        """The tables' capacities for the ids that occurred up to increment t, not below those of `least`.

        That of users is coarser where no table has a row a user (`inputs`), to compile less.
        """
        last = self.stream.bounds(len(self.stream) - 1 if self.whole else t)[1]
        ids, sizes = self.stream.interactions, self.capacities
        of_items = sizes.table if self.stream.question is None else sizes.classes
        items, users = (int(each[:last].max()) + 1 for each in (ids.item, ids.user))
        found = Sizes(capacity(items, of_items), capacity(users, sizes.table))
        if "user" not in inputs:
            found = found._replace(users=sizes.rows(found.users))
        return Sizes(*map(max, found, least))

    # -- training --------------------------------------------------------------------------------------------------

    def update(self, program: Program, t: int, plan: Plan, place: Place) -> Given:
        """Training examples of the update at t, those of its validation, and what validation leaves out.

        Validated on is what no update has trained on yet; a memory may keep validation examples of all its increments.
        """
        stream, history = self.stream, "history" in program.inputs
        if program.counting:
            rows = stream.training_rows(plan.arrived, validation=None, history=history)
        else:
            rows = stream.training_rows(plan.increments, validation=False, history=history)
        if not len(rows):
            raise UserError(
                f"increment {t} has no training example"
                + (" with an earlier event of its user; a sequence model needs one" if history else "")
                + "; cut the stream coarser (data.cut)"
            )
        new = stream.training_events(plan.arrived)
        arrived = stream.interactions.user[new], stream.interactions.item[new]
        newest = stream.training_rows(plan.newest, validation=True, history=history)
        seen = self.seen(newest, heldout=False) if stream.exclude_seen else None
        checked = every = self.examples(newest, program.inputs, t)
        if plan.increments != plan.newest:
            older = stream.training_rows(plan.increments, validation=True, history=history)
            every = self.examples(older, program.inputs, t)
        data = self.examples(rows, program.inputs, t, arrived)._replace(validation=every.rows)
        data, validation, seen = place((data, checked, seen))
        text = self.text(t, program.sizes, place)
        return Given(data._replace(text=text), validation._replace(text=text), seen)

    def past_bytes(self, plan: Plan, t: int) -> int:
        """Bytes of the past interactions that an update at t reads."""
        past = [i for i in plan.increments if i < t]
        return BYTES_AN_INTERACTION * len(self.stream.training_events(past))

    def text(self, t: int, sizes: Sizes, place: Place) -> Any:
        """[V, ...] the texts of the items that occurred up to increment t, on the device; 0 for the future's items."""
        stream, room = self.stream, sizes.items
        if stream.text is None:
            return None
        arrived = int(stream.interactions.item[: stream.bounds(t)[1]].max(initial=0)) + 1
        known = min(arrived, room), room, place
        if self.texts[0] != known:
            self.texts = known, place(padded(stream.text[: known[0]], room))
        return self.texts[1]

    # -- tests -----------------------------------------------------------------------------------------------------

    def tests(
        self, program: Program, known: np.ndarray, t: int, trained_until: int, place: Place, *, heldout: bool
    ) -> tuple[Rows, Data, Seen | None]:
        """The test examples of increment t, on the host and on the device, and what their rankings leave out.

        `known` [V] bool: the items that the model was trained on.
        """
        rows = self.stream.test_rows(
            t, heldout=heldout, trained_until=trained_until, known=known, history="history" in program.inputs
        )
        # Users beyond the table are unknown: row 0.
        users = np.where(rows.user < program.sizes.users, rows.user, 0)
        seen = self.seen(rows, heldout=True) if self.stream.exclude_seen else None
        data = self.examples(replace(rows, user=users), program.inputs, t)
        new = self.listed and not heldout
        if new:
            items = np.unique(self.stream.interactions.item[slice(*self.stream.bounds(t))])
            listed: Any = np.isin(np.arange(program.sizes.items), items)
            data = data._replace(listed=listed)
        data, seen = place((data, seen))
        return rows, data._replace(text=self.text(t if new else trained_until, program.sizes, place)), seen

    def seen(self, rows: Rows, *, heldout: bool) -> Seen:
        """The items to leave out of each example's ranking."""
        log, start, stop = self.stream.seen_by(rows, heldout=heldout)
        most = capacity(int((stop - start).max(initial=1)))
        length, log_length = self.capacities.rows(len(rows)), self.capacities.rows(len(log) + most)
        window: Any = np.arange(most, dtype=np.int32)
        first, last = (padded(at.astype(np.int32), length) for at in (start, stop))
        return Seen(padded(log, log_length), first, last, window)

    def examples(
        self, rows: Rows, inputs: tuple[str, ...], increment: int, arrived: tuple[np.ndarray, np.ndarray] = NOBODY
    ) -> Data:
        """Rows as `Data` on the host, padded to a capacity; `arrived` are the users and items of new events [E]."""
        size, events = self.capacities.rows(len(rows)), self.capacities.rows(len(arrived[0]))
        whole: Any = (np.ones(size, np.float32), np.arange(size) < len(rows), np.int32(len(rows)), np.int32(increment))
        weight, valid, number, now = whole
        batch = Batch(
            inputs={name: padded(getattr(rows, name), size) for name in inputs},
            labels=padded(rows.label, size),
            weight=weight,
            valid=valid,
            increment=padded(rows.increment, size),
        )
        users, items = (padded(ids, events) for ids in arrived)
        return Data(batch, number, now, users, items)


def padded(values: np.ndarray, rows: int) -> Any:
    """`values` with zeros behind, `rows` long."""
    return np.pad(values, [(0, rows - len(values))] + [(0, 0)] * (values.ndim - 1))
