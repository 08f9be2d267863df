"""The feed: increments of a stream as padded examples on the device."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from incremental.core.graph import EDGES, Window
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes, listed
from incremental.core.types import Batch, Data, PyTree, Seen
from incremental.data.choosing import Sample
from incremental.data.features import Examples, Feature
from incremental.data.interactions import Interactions
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.run.capacity import capacity
from incremental.run.policy import Plan

BYTES_AN_INTERACTION = 16  # user, item: 4 bytes each; time: 8

Place = Callable[[PyTree], PyTree]
"""puts host arrays where the programs are"""


class Capacities(NamedTuple):
    """What arrays are padded to, so that increments share programs.

    Attributes:
        table: rows of an id table at least: a smaller one saves less than compiling anew costs
        classes: rows of the labels' table at least, where they are classes: there are few, and their scores are kept
        examples: examples of an update or a test at least; a power of two
        seen: items that a ranking leaves out for each of its examples at least; a power of two
    """

    table: int = 1024
    classes: int = 8
    examples: int = 1024
    seen: int = 64

    def edges(self, n: int) -> int:
        """The rows of a graph of n pairs: every step goes over them all, so that few are spare."""
        return capacity(n, self.examples)

    def rows(self, n: int) -> int:
        """A power of two for n examples, so that increments of like size share a program."""
        return power_of_two(n, self.examples)


class Given(NamedTuple):
    """What one update reads.

    Attributes:
        data
        validation: the examples that say when to stop
        seen: what their rankings leave out
    """

    data: Data
    validation: Data
    seen: Seen | None


class Feed:
    """A stream's increments as examples for programs.

    `listed`: the items that an increment brings are candidates of its own test. `whole`: tables have room for all ids
    of the stream from the start. `sample`: what is tested of each test; None: all of it. An endless feed overrides
    `wait`, lets `stream` grow, and says that it is `endless`: then the base part alone is a start.
    """

    endless = False

    def __init__(
        self,
        stream: Stream,
        *,
        listed: bool = False,
        whole: bool = False,
        sample: Sample | None = None,
        capacities: Capacities = Capacities(),
    ) -> None:
        self.stream, self.listed, self.whole, self.capacities = stream, listed, whole, capacities
        self.sample = sample
        self.placed: dict[str, tuple[Any, Any]] = {}  # by side table: (known ids, capacity, place) and its values there

    def wait(self, t: int) -> bool:
        """Whether there is, or will have been, an increment t; returns once it is complete."""
        return t < len(self.stream)

    def ahead(self, t: int) -> int | None:
        """The increment whose counts say, before the turn of increment t, what arrays it will bring: itself; None where
        there will be none. An endless feed says its last one, and `sizes` then takes the ids to grow as they did."""
        return t if t < len(self.stream) else None

    # -- capacities ------------------------------------------------------------------------------------------------

    def sizes(self, t: int, inputs: Mapping[str, Input] | None = None, least: Mapping[str, int] = {}) -> Sizes:
        """The tables' capacities for the ids that occurred up to increment t, not below those of `least`.

        Those of a kind that no input reads are coarser, to compile less; without `inputs` each is read.
        """
        task, room, found = self.stream.task, self.capacities, {}
        for kind in self.stream.interactions.kinds:
            number = self.number(kind, len(self.stream) - 1 if self.whole else self.until(kind, t))
            of_classes = task.classes and kind == task.labels
            found[kind] = capacity(number, room.classes if of_classes else room.table)
            read = inputs is None or kind in {task.labels, *(each.kind for each in inputs.values())}
            found[kind] = found[kind] if read else room.rows(found[kind])
        return Sizes(labels=task.labels, **found).at_least(least)

    def until(self, kind: str, t: int) -> int:
        """The increment up to which a model at t knows the ids of a kind: t, or the last one where all items are known
        from the start."""
        whole = kind == self.stream.task.labels and self.stream.unseen_items == "known"
        return len(self.stream) - 1 if whole else t

    def number(self, kind: str, t: int) -> int:
        """The ids of a kind up to increment t, padding included; of one that is still to come as the last one grew."""
        last, number = len(self.stream) - 1, self.stream.number(kind, t)
        return number if t <= last or not last else number + (t - last) * (number - self.number(kind, last - 1))

    # -- training --------------------------------------------------------------------------------------------------

    def update(self, program: Program, t: int, plan: Plan, place: Place) -> Given:
        """Training examples of the update at t, those of its validation, and what validation leaves out.

        Validated on is what no update has trained on yet; a memory may keep validation examples of all its increments.
        """
        stream, inputs = self.stream, program.inputs
        if program.counting:
            rows = stream.training_examples(plan.arrived, validation=None, inputs=inputs)
        else:
            by_run = program.sharing == "prefix"
            rows = stream.training_examples(plan.increments, validation=False, inputs=inputs, by_run=by_run)
        if not len(rows):
            raise self.untrainable(program, [t])
        new = stream.training_events(plan.arrived)
        met = new if program.counting else stream.trained_on(plan.arrived, validation=False)
        newest = stream.training_examples(plan.newest, validation=True, inputs=inputs)
        seen = self.seen(newest.event, heldout=False) if stream.exclude_seen else None
        checked = every = self.known_ids(self.examples(newest, inputs, t), program)
        kept = plan.increments if stream.validate_on == "own" else range(0)  # what is to come is nobody's
        if kept != plan.newest:
            older = stream.training_examples(kept, validation=True, inputs=inputs)
            every = self.examples(older, inputs, t)
        data = self.examples(rows, inputs, t, new, met)
        data = data._replace(validation=every.rows, listed=self.known(program.sizes))
        have_rows(data.rows.inputs, inputs, program.sizes)
        data, validation, seen = place((data, checked, seen))
        side = self.side(t, program, place)
        return Given(data._replace(side=side), validation._replace(side=side), seen)

    def known(self, sizes: Sizes) -> Any:
        """[V] bool: the candidates of every update and test, where the whole catalogue is known; else None."""
        place: Any = np.arange(sizes.slots)
        known = self.stream.unseen_items == "known"
        return (place > 0) & (place < len(self.stream.labels)) if known else None

    def untrainable(self, program: Program, increments: Sequence[int]) -> UserError:
        """What is wrong with updates that have no training example, the base part being 0, and what to do."""
        past = any(self.stream.features[name].past == "needed" for name in program.inputs)
        without = " with an earlier event of its user; a sequence model needs one" if past else ""
        first, more = increments[0], len(increments) - 1
        part = "the base part" if first == 0 else f"increment {first}"
        others = f" (nor have {more} later ones)" if more else ""
        if first == 0:
            remedy = "choose a model without histories (model=matrix_factorization)" if past else "raise data.cut.base"
        elif program.counting:
            remedy = "update on several increments at once (++update.every=2)"
        else:
            remedy = "train on several increments at once (update=window)"
        return UserError(f"{part} has no training example{without}{others}; {remedy}, or cut coarser (data.cut)")

    def past_bytes(self, plan: Plan, t: int) -> int:
        """Bytes of the past interactions that an update at t reads."""
        past = [i for i in plan.increments if i < t]
        return BYTES_AN_INTERACTION * len(self.stream.training_events(past))

    def side(self, t: int, program: Program, place: Place, trained_until: int | None = None) -> dict[str, Any]:
        """The side tables [capacity, ...] by name, on the device, of the ids that occurred up to increment t (`until`);
        those of the future's ids are 0. And the program's frozen weights, as "frozen", and its graph, that of
        `trained_until` (None: t)."""
        sizes = program.sizes
        found: dict[str, Any] = {}
        if program.frozen is not None:
            if self.placed.get("frozen", (None,))[0] != place:
                self.placed["frozen"] = place, place(program.frozen)
            found["frozen"] = self.placed["frozen"][1]
        for name, table in self.stream.interactions.side.items():
            room = sizes[table.kind]
            known = min(self.stream.number(table.kind, self.until(table.kind, t)), room)
            if self.placed.get(name, (None,))[0] != (known, room, place):
                self.placed[name] = (known, room, place), place(padded(table.values[:known], room))
            found[name] = self.placed[name][1]
        if program.window is not None:
            until = t if trained_until is None else trained_until
            found[EDGES] = self.edges(until, program.window, program.sizes, place)
        return found

    def edges(self, t: int, window: Window, sizes: Sizes, place: Place) -> Any:
        """The graph of a model that was, or could have been, trained until increment t, on the device (`core.graph`):
        the pairs of the training examples of the increments in its window, each once, and padding. Pairs with an id
        that has no table row are left out."""
        events = self.linked(t, window)
        made = len(events), t, window, sizes, place
        if self.placed.get(EDGES, (None,))[0] != made:
            pairs = np.stack([self.stream.interactions.user[events], self.stream.label[events]], 1)
            pairs = np.unique(pairs[(pairs < (sizes["user"], sizes.slots)).all(1)], axis=0).astype(np.int32)
            self.placed[EDGES] = made, place(padded(pairs, self.capacities.edges(len(events))))
        return self.placed[EDGES][1]

    def linked(self, t: int, window: Window) -> np.ndarray:
        """[E] the training events of the increments in the window, until t."""
        first, last = (0, t) if window == "all" else (max(t + 1 - window, 0), t) if window else (0, min(t, 0))
        return self.stream.trained_on(range(first, last + 1), validation=False)

    # -- tests -----------------------------------------------------------------------------------------------------

    def tests(
        self,
        program: Program,
        known: Mapping[str, np.ndarray],
        t: int,
        trained_until: int,
        place: Place,
        *,
        heldout: bool,
    ) -> tuple[Examples, Data, Seen | None]:
        """The test examples of increment t, on the host and on the device, and what their rankings leave out.

        `known` [capacity] bool by kind: the ids that the model was trained on.
        """
        stream, inputs, sizes = self.stream, program.inputs, program.sizes
        known = read_by(inputs, known)
        listed = self.known(sizes) if trained_until < 0 else None  # else the catalogue has them already
        if listed is not None:
            known.pop(stream.task.labels, None)
        rows = stream.test_examples(
            t, heldout=heldout, trained_until=trained_until, known=known, inputs=inputs, sample=self.sample
        )
        seen = self.seen(rows.event, heldout=True) if stream.exclude_seen else None
        data = self.examples(rows, inputs, t)
        data = self.known_ids(data, program)
        new = self.listed and not heldout
        if new:
            listed = np.isin(np.arange(sizes.slots), np.unique(stream.label[slice(*stream.bounds(t))]))
        data, seen = place((data._replace(listed=listed), seen))
        return rows, data._replace(side=self.side(t if new else trained_until, program, place, trained_until)), seen

    def known_ids(self, data: Data, program: Program) -> Data:
        """The examples, ids without a table row, which are to come, as row 0."""
        inputs = within(data.rows.inputs, program.inputs, program.sizes)
        return data._replace(rows=data.rows._replace(inputs=inputs))

    def seen(self, events: np.ndarray, *, heldout: bool) -> Seen:
        """The items to leave out of the ranking of each event's example."""
        log, start, stop = self.stream.seen_by(events, heldout=heldout)
        most = power_of_two(int((stop - start).max(initial=1)), self.capacities.seen)
        length, log_length = self.capacities.rows(len(events)), self.capacities.rows(len(log) + most)
        window: Any = np.arange(most, dtype=np.int32)
        first, last = (padded(at.astype(np.int32), length) for at in (start, stop))
        return Seen(padded(log, log_length), first, last, window)

    def examples(
        self,
        rows: Examples,
        inputs: Iterable[str],
        increment: int,
        new: np.ndarray = np.zeros(0, np.int32),
        met: np.ndarray = np.zeros(0, np.int32),
    ) -> Data:
        """Examples as `Data` on the host, padded to a capacity; `new` [E] are the events not yet in the catalogue,
        `met` those of them that are examples. The others are read in histories, and nowhere else."""
        stream, size, events = self.stream, self.capacities.rows(len(rows)), self.capacities.rows(len(new))
        log, labels = stream.interactions, stream.task.labels
        whole: Any = (np.ones(size, np.float32), np.arange(size) < len(rows), np.int32(len(rows)), np.int32(increment))
        weight, valid, number, now = whole
        batch = Batch(
            inputs={name: padded(values_of(name, stream.features[name], log, rows), size) for name in inputs},
            labels=padded(rows.label, size),
            weight=weight,
            valid=valid,
            increment=padded(rows.increment, size),
            owner=padded(rows.user, size),
        )
        lists = listed(stream.features[name].input for name in inputs)
        come = {kind: new if kind in lists else met for kind in log.kinds if kind != labels}
        arrived = {kind: padded(log.ids(kind)[of], events) for kind, of in come.items()}
        return Data(batch, number, now, padded(log.ids(labels)[new], events), arrived)


def power_of_two(n: int, least: int) -> int:
    """The smallest that is at least n and `least`."""
    return 1 << max(n - 1, least - 1).bit_length()


def values_of(name: str, feature: Feature, log: Interactions, rows: Examples) -> np.ndarray:
    """What the examples hold of a feature [N, ...]; a UserError where it is not what the feature says."""
    values = feature.of(log, rows)
    if values.shape != (len(rows), *feature.input.shape):
        raise UserError(
            f"data.features.{name}: it makes {list(values.shape)} of {len(rows)} examples, but says that one holds "
            f"{list(feature.input.shape)}; a history of another length than data.history={rows.past.shape[1]}?"
        )
    return values


def read_by(inputs: Mapping[str, Input], known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the ids that a model knows, by kind, those of the kinds that its inputs list: others are no past to it."""
    kinds = {*known} & listed(inputs.values())
    return {kind: known[kind] for kind in kinds}


def unfit(stream: Stream, inputs: Iterable[str]) -> str:
    """Why a model with these inputs recommends no items, "" where it does: an event itself has not happened yet."""
    if stream.task.labels != "item":
        return f"it predicts ids of the kind {stream.task.labels!r} and recommends no items"
    own = [name for name in inputs if name != "user" and stream.features[name].past == "unread"]
    return f"its model reads {own[0]!r} of the event itself, which has not happened when one asks" if own else ""


def within(values: Mapping[str, np.ndarray], inputs: Mapping[str, Input], sizes: Sizes) -> dict[str, np.ndarray]:
    """The inputs' values with ids beyond the tables, which are unknown, as row 0."""
    found = {}
    for name, ids in values.items():
        kind = inputs[name].kind
        found[name] = ids if kind is None or kind not in sizes else np.where(ids < sizes[kind], ids, 0)
    return found


def have_rows(values: Mapping[str, np.ndarray], inputs: Mapping[str, Input], sizes: Sizes) -> None:
    """Refuses ids that are trained on and have no table row: a look-up would take another one's."""
    for name, ids in values.items():
        kind = inputs[name].kind
        if kind is not None and kind in sizes and ids.size and not 0 <= ids.min() <= ids.max() < sizes[kind]:
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise UserError(
                f"data.features.{name}: it makes the {kind} {wrong}; expected numbers from 0, for none, to the last "
                f"{kind} that has occurred, whose table has {sizes[kind]:,} rows; take them from log.ids({kind!r})"
            )


def padded(values: np.ndarray, rows: int) -> Any:
    """`values` with zeros behind, `rows` long."""
    return np.pad(values, [(0, rows - len(values))] + [(0, 0)] * (values.ndim - 1))
