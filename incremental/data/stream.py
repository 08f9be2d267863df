"""A stream: interactions cut into increments under one protocol, and the rows that training and tests read.

Nothing here looks ahead: rows of increment t depend on interactions up to t only. What is random (held-out and
validation parts) is drawn for each increment from (seed, increment), so a stream cut short keeps its draws.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from incremental.core.spec import Input, Spec, listed
from incremental.data import ties as tie_rules
from incremental.data.choosing import Sample, belongs, occurring
from incremental.data.cleaning import CleaningStep
from incremental.data.cutting import in_parts
from incremental.data.features import Examples, Feature, event, following
from incremental.data.features import history as past_items
from incremental.data.features import user as own_user
from incremental.data.interactions import Interactions, Table, encode
from incremental.data.past import NOTHING, Summary, after, plus, windows
from incremental.data.roles import Roles, Shares, Split, Targets, looks_ahead, parts
from incremental.data.task import Make, Task, next_item
from incremental.data.text import with_texts
from incremental.data.ties import Earlier, Ties
from incremental.domains import Count, ShareBelow1, Whole, checked
from incremental.errors import UserError

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Unseen = Literal["miss", "drop", "listed", "known"]


@dataclass(frozen=True)
class Stream:
    """Interactions in time order, cut; increment 0 is the base part, 1..T the increments.

    What is before an event, for its history and for what its user has had, `ties` says; under "strict" what has an
    earlier time, wherever the cut lies.
    """

    interactions: Interactions
    increment: Ints  # [N] non-decreasing
    heldout: Bools  # [N] nothing trains on them
    validation: Bools  # [N] training events set aside for early stopping
    history: int  # L
    exclude_seen: Earlier
    unseen_items: Unseen
    minimum_history: int
    ties: Ties = "strict"
    validate_on: Literal["own", "next"] = "own"
    cleaning: tuple[CleaningStep, ...] = ()
    notes: tuple[str, ...] = ()
    task: Task = field(default_factory=Task)
    features: Mapping[str, Feature] = field(default_factory=dict)  # what models may read of an example, by name
    roles: Roles | None = None  # None: every event trains or validates, and is tested
    summary: Summary = NOTHING  # of increments whose events are not all there (`incremental.data.growing`)

    def __len__(self) -> int:
        """T + 1: the base part and the increments."""
        return int(self.increment[-1]) + 1

    @property
    def label(self) -> Ints:
        """[N] each event's label, an id of the task's kind."""
        return self.interactions.ids(self.task.labels)

    @property
    def labels(self) -> list[str]:
        """The labels' vocabulary; the first is "" """
        return self.interactions.vocabulary(self.task.labels)

    @property
    def spec(self) -> Spec:
        """What an example holds."""
        inputs = {name: feature.input for name, feature in self.features.items()}
        side = {
            name: Input(table.values.shape[1:], table.values.dtype, table.kind)
            for name, table in self.interactions.side.items()
        }
        return Spec(inputs, self.task.labels, self.interactions.kinds, side)

    def prefix(self, t: int) -> "Stream":
        """The stream as it was when increment t was over."""
        n = int(np.searchsorted(self.increment, t, side="right"))
        return replace(
            self,
            interactions=self.interactions.prefix(n),
            increment=self.increment[:n],
            heldout=self.heldout[:n],
            validation=self.validation[:n],
            roles=None if self.roles is None else self.roles.prefix(n),
        )

    def bounds(self, t: int) -> tuple[int, int]:
        """First event of increment t, and the first after it."""
        first, last = np.searchsorted(self.increment, [t, t + 1])
        return int(first), int(last)

    def training_events(self, increments: Sequence[int]) -> Ints:
        """All events that an update on these increments may read, validation included."""
        places = [np.arange(*self.bounds(t), dtype=np.int32) for t in increments]
        events = np.concatenate(places) if places else np.zeros(0, np.int32)
        read = ~self.heldout if self.roles is None else ~self.heldout & (self.roles.trains | self.validation)
        return events[read[events]]

    def trained(self, t: int) -> npt.NDArray[np.int64]:
        """[labels] the training events of each label before increment t."""
        return plus(self.summary.trained, self.label[self.training_events(range(self.summary.until, t))])

    def met(self, t: int) -> Bools:
        """[W] bool: the users with a training event before increment t."""
        users = self.interactions.user[self.training_events(range(self.summary.until, t))]
        return plus(self.summary.met.astype(np.int64), users) > 0

    def number(self, kind: str, t: int) -> int:
        """The ids of a kind up to increment t, padding included; of what was let go, those of all of it."""
        new = self.interactions.ids(kind)[: self.bounds(t)[1]].max(initial=0)
        return max(int(new) + 1, self.summary.numbers.get(kind, 1))

    def trained_on(self, increments: Sequence[int], *, validation: bool | None, inputs: Iterable[str] = ()) -> Ints:
        """[N] the events of `training_examples`, found without cutting what was before them."""
        ahead = self.validate_on == "next"  # validated on is what comes after; it trains with its own increment
        events = self.training_events([t + 1 for t in increments[-1:]] if ahead and validation else increments)
        if validation or (validation is False and not ahead):
            events = events[self.validation[events] == validation]
        if any(self.features[name].past == "needed" for name in inputs):
            events = events[self._before(events, ~self.heldout) > 0]
        return events

    def training_examples(
        self, increments: Sequence[int], *, validation: bool | None, inputs: Iterable[str] = (), by_run: bool = False
    ) -> Examples:
        """The examples to train on, to validate on, or (None) both; where one of the `inputs` needs what was before,
        those without are left out. `by_run`: histories are cut so that a user's are prefixes of one another. Validation
        on the next increment reads as its test does: events of ids that no training event has had are no past."""
        events = self.trained_on(increments, validation=validation, inputs=inputs)
        read = any(self.features[name].past != "unread" for name in inputs)
        visible = ~self.heldout
        if validation and self.validate_on == "next":
            lists = listed(self.features[name].input for name in inputs)
            lists -= {self.task.labels} if self.unseen_items == "known" else set()
            trained = self.training_events(range(max(increments, default=-1) + 1))
            visible &= self._visible(occurring(self.interactions, lists, trained))
        found = self._examples(events, visible, read, by_run)
        if validation is False and any(self.features[name].following for name in inputs):
            found = replace(found, following=after(events, self._now[events], found.user, self.history))
        return found

    def tested_on(self, t: int, *, heldout: bool, trained_until: int) -> Ints:
        """[N] the test events of increment t, all of it or its held-out part only. With `unseen_items=drop` those are
        left out whose label no training event up to increment `trained_until` has; then, in any case, those with fewer
        than `minimum_history` earlier events of such a label."""
        events = np.arange(*self.bounds(t), dtype=np.int32)
        if heldout:
            events = events[self.heldout[events]]
        if self.roles is not None:
            events = events[self.roles.tested[events]]
        label = self.label
        if self.unseen_items == "drop":
            events = events[belongs(self.trained(trained_until + 1) > 0, label[events])]
        if self.exclude_seen:
            events = events[~self._repeated[events]]
        if self.minimum_history:
            # Of the stream, and not of what this model knows: rows of a table are tested on the same events.
            every = self.task.classes or self.unseen_items == "known"
            counted = np.ones(len(label), bool) if every else belongs(self.trained(trained_until + 1) > 0, label)
            events = events[self._before(events, counted) >= self.minimum_history]
        return events

    def test_examples(
        self,
        t: int,
        *,
        heldout: bool,
        trained_until: int,
        known: Mapping[str, Bools],
        inputs: Iterable[str] = (),
        sample: Sample | None = None,
    ) -> Examples:
        """The examples of `tested_on`, or a `sample` of them. `known` [capacity] bool by kind: the ids that the model
        knows; events of others are taken out of what was before, as the `inputs` read it."""
        events, of = self.tested_on(t, heldout=heldout, trained_until=trained_until), None
        if sample is not None:
            events, of = sample.of(events, t, *self.bounds(t)), len(events)
        read = any(self.features[name].past != "unread" for name in inputs)
        return replace(self._examples(events, self._visible(known), read), of=of)

    def seen_by(self, events: Ints, *, heldout: bool) -> tuple[Ints, Ints, Ints]:
        """log [E], start [N], stop [N]: `log[start:stop]` are the items of an event's user before it (or, where
        `exclude_seen` says "earlier", before its increment), those of held-out events only if `heldout`."""
        order, _, first = self._by_user
        kept = order <= events.max(initial=0)
        if not heldout:
            kept &= ~self.heldout[order]
        before: Ints = np.cumsum(kept) - kept
        place, own = self._now[events], first[self._now[events]]
        if self.exclude_seen == "earlier":
            place = tie_rules.begins_of_increments(order, first, self.increment)[events]
        return self.label[order[kept]], before[own], before[place]

    def latest(self, users: Ints, known: Mapping[str, Bools]) -> Examples:
        """Examples of these users at the end of the stream: what is asked of them has not happened (event -1, label 0).
        `known` [capacity] bool by kind: the ids that the model knows; events of others are no past."""
        visible = self._visible(known)
        order, sorted_users, _ = self._by_user
        past = np.full((len(users), self.history), -1, np.int32)
        for row, user in zip(past, users, strict=True):
            events = order[slice(*np.searchsorted(sorted_users, [user, user + 1]))]
            events = events[visible[events]][-self.history :]
            row[self.history - len(events) :] = events
        nothing = np.zeros(len(users), np.int32)
        return Examples(nothing - 1, users, past, nothing, nothing)

    def items_of(self, user: int) -> Ints:
        """All items of a user, in time order."""
        order, sorted_users, _ = self._by_user
        return self.interactions.item[order[slice(*np.searchsorted(sorted_users, [user, user + 1]))]]

    @property
    def all_notes(self) -> tuple[str, ...]:
        """What loading, cleaning and cutting had to say."""
        _, _, first = self._by_user
        tied = tie_rules.note(int(self._tied.sum()), int((np.arange(len(first)) > first).sum()), self.ties)
        return (*self.interactions.notes, *(step.note for step in self.cleaning), *tied, *self.notes)

    # -- the order by user, then time --------------------------------------------------------------------------------

    @cached_property
    def _by_user(self) -> tuple[Ints, Ints, Ints]:
        """Events sorted by user then time; the users there; for each place the place of its user's first event."""
        order = np.argsort(self.interactions.user, kind="stable").astype(np.int32)
        user = self.interactions.user[order]
        return order, user, np.searchsorted(user, user).astype(np.int32)

    @cached_property
    def _tied(self) -> Bools:
        """Places in the order by user whose event has the time of the one before, of the same user."""
        order, user, _ = self._by_user
        return tie_rules.tied(user, self.interactions.moment[order])

    @cached_property
    def _now(self) -> Ints:
        """For each event the place, in the order by user, at which what was before it ends."""
        return tie_rules.ends_of_past(self._by_user[0], self._tied, self.ties)

    @cached_property
    def _repeated(self) -> Bools:
        """Events whose user had the same item before."""
        return tie_rules.repeated(self.interactions.user, self.label, self.interactions.moment, self.ties)

    def _visible(self, known: Mapping[str, Bools]) -> Bools:
        """[events] bool: those whose ids the model knows; `known` [capacity] bool by kind."""
        visible = np.ones(len(self.label), bool)
        for kind, ids in known.items():
            own = self.interactions.ids(kind)
            visible &= belongs(ids, own) | (own == 0)  # an event without an id of the kind is not unknown
        return visible

    def _before(self, events: Ints, visible: Bools) -> Ints:
        """[N] how many `visible` events of its user are before each."""
        _, start, end = self._pasts(events, visible)
        return end - start

    def _examples(self, events: Ints, visible: Bools, past: bool, by_run: bool = False) -> Examples:
        """Examples of the events; their past, where it is asked for, are the last L events of the user before them that
        are `visible`."""
        before_them = self.past(events, visible, by_run) if past else np.zeros((len(events), 0), np.int32)
        return Examples(events, self.interactions.user[events], before_them, self.label[events], self.increment[events])

    def past(self, events: Ints, visible: Bools, by_run: bool = False) -> Ints:
        """[N, L] int32, places of the last visible events before each; -1: none. `by_run`: see `windows`."""
        gone = self.summary.gone_of(self.interactions.user[events]) if by_run else None
        return windows(*self._pasts(events, visible), self.history, gone)

    def _pasts(self, events: Ints, visible: Bools) -> tuple[Ints, Ints, Ints]:
        """log [E], start [N], stop [N]: `log[start:stop]` are the `visible` events of its user before each."""
        order, _, first = self._by_user
        kept, place = visible[order], self._now[events]
        before: Ints = np.cumsum(kept) - kept
        return order[kept], before[first[place]], before[place]


@checked
def make_stream(
    *,
    source: Table,
    cut: Callable[[Interactions], tuple[Ints, tuple[str, ...]]],
    cleaning: Callable[[Table], tuple[Table, tuple[CleaningStep, ...]]] | None = None,
    history: Count = 50,
    heldout: ShareBelow1 = 0.0,
    validation: ShareBelow1 = 0.1,
    exclude_seen: Earlier = False,
    unseen_items: Unseen = "miss",
    minimum_history: Whole = 0,
    ties: Ties = "strict",
    validate_on: Literal["own", "next"] = "own",
    text: Callable[[Sequence[str]], npt.NDArray[np.float32]] | None = None,
    task: Make | None = None,
    features: Mapping[str, Feature] | None = None,
    roles: Split | None = None,
    targets: Targets = "all",
    seed: Whole = 0,
    until: Count | None = None,
) -> Stream:
    """Cleans, validates, encodes and cuts a source.

    `history`: L, the last events that a model sees. `heldout`: the share of each part that nothing trains on (the
    matrix R needs one above 0); `validation`: the share of the rest for early stopping; both drawn by event from
    `seed`. `ties`: events of one user at the same time are no history of one another (strict), or are in the order of
    the file, of the item ids or of a hash (`incremental.data.ties`). `text` turns titles into numbers [items, ...],
    each title on its own. `task` says what is predicted (`incremental.data.task`; by default the next item); `features`
    are further inputs for models by name (`incremental.data.features`).
    `roles`: what of the base part trains and validates, in place of a share; `targets`: which event of a user after it
    is tested (`incremental.data.roles`). `validate_on` "next": an update stops by the first events of the increment
    after it; they train with that one. `exclude_seen` "earlier": items of the tested increment itself are not left out.

    `until`: the stream ends with this increment, as `prefix` has it. Of what comes later the cut alone reads anything:
    how many events there are, once cleaned, and the last time. A cleaning that reads on is refused.
    """
    if minimum_history > history:
        raise UserError(f"data.minimum_history={minimum_history}: expected 0 to data.history={history}")
    if unseen_items not in get_args(Unseen):
        raise UserError(f"data.unseen_items={unseen_items!r}: expected miss, drop, listed or known")
    if ties not in tie_rules.SAID:
        raise UserError(f"data.ties={ties!r}: expected one of {', '.join(tie_rules.SAID)}")
    table, steps = (source, ()) if cleaning is None else cleaning(source)
    if until is not None and (ahead := [step.name for step in steps if step.uses_future]):
        raise UserError(
            f"data.until={until}: the cleaning step '{ahead[0]}' reads events after increment {until}, so that what is "
            "chosen on the increments up to there has seen later ones; turn it off under data.cleaning, or leave out "
            "data.until"
        )
    interactions = encode(table, ties)
    increment, notes = cut(interactions)
    interactions, increment = in_parts(interactions, increment)
    notes = (*notes, *looks_ahead(unseen_items, validate_on))
    if until is not None:
        if not 1 <= until <= increment[-1]:
            raise UserError(f"data.until={until}: expected an increment of the stream, 1 to {increment[-1]}")
        increment = increment[: np.searchsorted(increment, until, side="right")]
    interactions = interactions.prefix(len(increment))
    if text is not None:
        interactions, said = with_texts(interactions, text, table.origin)
        notes += said
    interactions, _ = (task or next_item())(interactions, history)
    made = stream_of(
        interactions,
        increment,
        history=history,
        heldout=heldout,
        validation=validation,
        exclude_seen=exclude_seen,
        unseen_items=unseen_items,
        minimum_history=minimum_history,
        ties=ties,
        validate_on=validate_on,
        task=task,
        features=features,
        roles=roles,
        targets=targets,
        seed=seed,
    )
    return replace(made, cleaning=steps, notes=notes)


def stream_of(
    log: Interactions,
    increment: Ints,
    *,
    history: Count = 50,
    heldout: ShareBelow1 = 0.0,
    validation: ShareBelow1 = 0.1,
    exclude_seen: Earlier = False,
    unseen_items: Unseen = "miss",
    minimum_history: Whole = 0,
    ties: Ties = "strict",
    validate_on: Literal["own", "next"] = "own",
    task: Make | None = None,
    features: Mapping[str, Feature] | None = None,
    roles: Split | None = None,
    targets: Targets = "all",
    seed: Whole = 0,
) -> Stream:
    """The stream of a log that its task has seen, cut before: what each event's increment is [N]. See `make_stream`."""
    _, own = (task or next_item())(log, history)
    if own.classes and exclude_seen:
        raise UserError("data.task with data.exclude_seen=true: such a label may come again; set it to false")
    given = {"user": own_user(), "history": past_items(length=history), "following": following(length=history)}
    given |= {"event": event(), **own.features}
    if taken := [name for name in features or {} if name in given]:
        there = ", ".join(given)
        raise UserError(f"data.features.{taken[0]}: examples hold this already ({there}); choose another name")
    given |= features or {}
    held, checked, drawn = parts(log, increment, Shares(heldout, validation, validate_on, seed), roles, targets)
    rules = history, exclude_seen, unseen_items, minimum_history, ties, validate_on
    return Stream(log, increment, held, checked, *rules, task=own, features=given, roles=drawn)
