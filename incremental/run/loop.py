"""The loop: test on an increment, train on it, go on. The only schedule; what happens is yielded, not acted upon."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from flax.traverse_util import flatten_dict

from incremental.core.spec import Sizes
from incremental.core.types import Fit, Info, PyTree, Ranks
from incremental.data.features import Examples
from incremental.errors import UserError
from incremental.metrics.metric import Metric
from incremental.metrics.named import resolved
from incremental.run.ahead import Ahead
from incremental.run.check import check, shares_base
from incremental.run.executor import Base, Executor, Snapshot
from incremental.run.exhausted import spoken
from incremental.run.feed import Feed
from incremental.run.policy import Plan, Update
from incremental.run.progress import (
    Cost,
    Epoch,
    EpochDone,
    Evaluated,
    Event,
    Failed,
    Finished,
    Paused,
    Progress,
    Record,
    Result,
    Resumed,
    Trained,
)
from incremental.run.records import Metrics, matrix_entries, prequential

METRICS = ("ndcg@10", "recall@10", "mrr@10")


class Bases(Protocol):
    """Where a lane finds its base part trained already, or leaves it for others."""

    @property
    def required(self) -> bool:
        """Whether a lane that cannot begin with another's base part is refused; else it trains its own."""
        ...

    def take(self, sizes: Sizes) -> Base | None:
        """The base part in tables of these sizes, if there is one."""
        ...

    def keep(self, base: Base) -> None: ...


def run_stream(
    feed: Feed,
    executor: Executor,
    policy: Update,
    *,
    metrics: Metrics = METRICS,
    matrix: bool = False,
    batch_size: int | None = None,
    bases: Mapping[int, Bases] = {},
    start: Mapping[int, Snapshot] = {},
) -> Iterator[Event]:
    """Runs a stream to its end, in every lane of the executor; a generator of events.

    For each part t = 0 (base), 1, …, T: test on all of t with the model trained until t-1 (t > 0), grow the tables to
    the ids of t, train as `policy` says. With `matrix`, after each update (and before the first) the held-out part of
    every increment is tested. `batch_size` is only checked against the increments' sizes. `start` are lanes that go on
    from a snapshot. Where a lane of `bases` finds the base part, it is not trained: its learner and its cost are taken
    over, and strategies see the base part begin and end. A strategy whose `record` follows the steps has it trained all
    the same; the lane then goes on with the learner that is there. Where there is none, the lane leaves its own there.

    Between two events nothing runs but a thread that compiles what the next increment will need. What the consumer
    does with an event is not on the updates' clock.
    """
    measured = resolved(metrics)
    check(feed, executor, policy, measured, matrix=matrix, batch_size=batch_size, bases=bases)
    with spoken(feed, executor, policy, batch_size), Ahead() as ahead:
        yield from Run(feed, executor, policy, measured, matrix, bases, ahead).events(start)


def finished(events: Iterable[Event]) -> Result:
    """The result of a run of one lane, once it is over."""
    for event in events:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Finished):
            return event.result
    raise UserError("the run has no end: its feed never ended")


class Run:
    """One run: what is fixed, and how far each lane is."""

    def __init__(
        self,
        feed: Feed,
        executor: Executor,
        policy: Update,
        metrics: Metrics,
        matrix: bool,
        bases: Mapping[int, Bases],
        ahead: Ahead,
    ) -> None:
        self.feed, self.executor, self.policy, self.metrics = feed, executor, policy, metrics
        self.matrix, self.bases, self.ahead = matrix, bases, ahead
        self.lists = any("lists" in metric.reads for metric in metrics if isinstance(metric, Metric))
        self.inputs = executor.way.inputs(feed.sizes(0))
        self.progress = [Progress() for _ in range(executor.lanes)]
        self.failed: set[int] = set()
        self.since = time.perf_counter()

    def events(self, start: Mapping[int, Snapshot]) -> Iterator[Event]:
        """See `run_stream`."""
        executor = self.executor
        executor.load(start, self.feed.sizes(0, self.inputs))
        for lane, snapshot in start.items():
            self.progress[lane] = snapshot.progress
            yield Resumed(lane, snapshot.progress)
        if self.matrix:
            yield from self.matrix_row([lane for lane in range(executor.lanes) if lane not in start], -1)
        while here := self.alive:
            t = min(self.progress[lane].increment for lane in here)
            before = time.perf_counter()
            if not self.feed.wait(t):
                break
            self.since += time.perf_counter() - before  # a live log's events are no work of the update
            here = [lane for lane in here if self.progress[lane].increment == t]
            new = [lane for lane in here if not self.progress[lane].begun]
            if t > 0 and new:
                yield from self.test(new, t)
            for plan, lanes in self.plans(here):
                yield from self.train(lanes, t, plan)
            here = [lane for lane in here if lane not in self.failed]
            if self.matrix:
                yield from self.matrix_row(here, t)
            for lane in here:
                self.progress[lane] = self.progress[lane]._replace(increment=t + 1)
            yield self.paused(here, over=True)
            for lane in here:
                own = self.progress[lane]
                tested = (r for r in own.records if r.evaluated_on == t and r.trained_until == t - 1)
                yield Trained(lane, own.costs[-1], tuple(tested))
        snapshots, early = executor.snapshots(dict(enumerate(self.progress))), executor.program.early
        for lane in self.alive:
            own = self.progress[lane]
            yield Finished(lane, Result(snapshots(lane).state, executor.sizes, own.records, own.costs, early))

    @property
    def alive(self) -> list[int]:
        """The lanes that have not diverged."""
        return [lane for lane in range(self.executor.lanes) if lane not in self.failed]

    def sizes(self, t: int) -> Sizes:
        """The capacities at increment t, not below those that there are."""
        return self.feed.sizes(t, self.inputs, self.executor.sizes)

    def paused(self, lanes: Sequence[int], *, over: bool) -> Paused:
        """Where these lanes stand."""
        progress = {lane: self.progress[lane] for lane in lanes}
        return Paused(over, progress, self.executor.snapshots(progress))

    # -- training --------------------------------------------------------------------------------------------------

    def plans(self, lanes: Sequence[int]) -> list[tuple[Plan, list[int]]]:
        """What the policy makes of each lane so far, the same before and after a resume; lanes that agree together."""
        agreed: dict[Plan, list[int]] = {}
        for lane in lanes:
            own = self.progress[lane]
            quality = {
                record.evaluated_on: record.value
                for record in own.records
                if record.metric == self.metrics[0] and record.trained_until == record.evaluated_on - 1
            }
            spent = sum(cost.examples for cost in own.costs[1:])
            plan = self.policy.plan(own.increment, self.updated(lane), quality, spent)
            agreed.setdefault(plan, []).append(lane)
        return [*agreed.items()]

    def updated(self, lane: int) -> list[int]:
        """The increments at whose end the lane was updated."""
        return [cost.increment for cost in self.progress[lane].costs if cost.epochs]

    def look_ahead(self, lanes: Sequence[int], t: int, plan: Plan) -> None:
        """What increment t + 1 will run, after `plan` at t, is compiled beside what is done now."""
        now = [t] if plan.increments else []
        plans = {self.policy.ahead(t + 1, [*self.updated(lane), *now]) for lane in lanes}
        plans = {each for each in plans if each.increments}
        self.ahead.start(self.feed, self.executor, self.inputs, t + 1, plans, matrix=self.matrix, lists=self.lists)

    def train(self, lanes: list[int], t: int, plan: Plan) -> Iterator[Event]:
        """The update at t, for lanes that stand before it or in it."""
        executor, number = self.executor, self.executor.lanes
        if not plan.increments:
            self.look_ahead(lanes, t, plan)
            self.charge(lanes, t, plan, np.zeros(number, int), np.zeros(number, int))
            return
        wanted = self.sizes(t)
        data, validation, seen = self.feed.update(executor.way.at(wanted).program, t, plan, executor.way.place)
        new = [lane for lane in lanes if not self.progress[lane].begun]
        taken: dict[int, Base] = {}
        self.clock(lanes, training=False)
        executor.grow(wanted)
        if new:
            executor.begin(new, data, afresh=plan.afresh)
            for lane in new:
                self.progress[lane] = self.progress[lane]._replace(begun=True)
            if t == 0 and (taken := self.found_bases(new)):
                self.take(taken)
                self.clock(new, training=False)  # reading it is no training
        self.look_ahead(lanes, t, plan)
        fit = executor.fit()
        while going := self.going(lanes, fit):
            epoch = min(going.values())
            on = [lane for lane, behind in going.items() if behind == epoch]
            info, fit = executor.epoch(on, epoch, data, validation, seen, base=t == 0)
            self.clock(on)
            for lane in on:
                yield self.epoch_over(lane, t, of_lane(info, lane), of_lane(fit, lane))
            lanes = [lane for lane in lanes if lane not in self.failed]
            yield self.paused(lanes, over=False)
            self.clock(lanes, training=False)
        if not lanes:
            return
        executor.restore(lanes)
        self.clock(lanes)
        if t == 0:
            self.leave([lane for lane in lanes if lane not in taken], fit)
            self.clock(lanes, training=False)
        executor.end(lanes, data)
        self.clock(lanes)
        written = executor.written()
        self.clock(lanes, training=False)
        self.charge(lanes, t, plan, np.asarray(fit.epoch), written)

    def going(self, lanes: Sequence[int], fit: Fit) -> dict[int, int]:
        """The lanes that go on in this update, and how many epochs each has behind it."""
        most = self.executor.program.epochs
        return {lane: int(fit.epoch[lane]) for lane in lanes if fit.active[lane] and fit.epoch[lane] < most}

    def epoch_over(self, lane: int, t: int, info: Info, fit: Fit) -> Event:
        """Notes a lane's epoch; a loss that became NaN or infinite puts the lane off for good."""
        error = divergence(info, t, int(fit.epoch))
        if error is not None:
            self.failed.add(lane)
            return Failed(lane, error, self.progress[lane])
        own, ran = self.progress[lane], epoch_of(t, fit, info)
        examples = own.examples + int(info.examples)
        self.progress[lane] = own._replace(examples=examples, epochs=(*own.epochs, ran))
        return EpochDone(lane, ran)

    def charge(self, lanes: Sequence[int], t: int, plan: Plan, epochs: np.ndarray, written: np.ndarray) -> None:
        """Puts the finished update on each lane's account."""
        kept = self.executor.strategy_bytes() + self.feed.past_bytes(plan, t)
        for lane in lanes:
            own = self.progress[lane]
            spent = own.seconds, own.compile_seconds, own.waited_seconds, own.wall_seconds, own.examples
            cost = Cost(t, *spent, int(epochs[lane]), int(written[lane]), kept, self.executor.lanes)
            self.progress[lane] = Progress(t, records=own.records, costs=(*own.costs, cost), epochs=own.epochs)

    def clock(self, lanes: Sequence[int], *, training: bool = True) -> None:
        """Each lane is charged an equal part of the time since the last call: of the update's, where it was `training`
        and no waiting for compilation."""
        passed, compiling = time.perf_counter() - self.since, self.executor.way.compiling()
        self.since += passed
        trained = passed - compiling.waited if training else 0.0
        for lane in lanes:
            own = self.progress[lane]
            self.progress[lane] = own._replace(
                seconds=own.seconds + trained / len(lanes),
                compile_seconds=own.compile_seconds + compiling.seconds / len(lanes),
                waited_seconds=own.waited_seconds + compiling.waited / len(lanes),
                wall_seconds=own.wall_seconds + passed / len(lanes),
            )

    # -- base parts ------------------------------------------------------------------------------------------------

    def found_bases(self, lanes: Sequence[int]) -> dict[int, Base]:
        """The base parts that other runs have trained, where these lanes may begin with them."""
        if not shares_base(self.executor.program):
            return {}
        found = {lane: self.bases[lane].take(self.executor.sizes) for lane in lanes if lane in self.bases}
        return {lane: base for lane, base in found.items() if base is not None}

    def take(self, found: Mapping[int, Base]) -> None:
        """The lanes go on as if they had trained these base parts."""
        self.executor.begin_with(found)
        for lane, base in found.items():
            spent = self.progress[lane]._replace(seconds=base.cost.seconds, examples=base.cost.examples)
            self.progress[lane] = spent

    def leave(self, lanes: Sequence[int], fit: Fit) -> None:
        """Leaves the lanes' base parts for others; where there is one already, the lane goes on with that one: its
        steps, which strategies have followed, were the same up to rounding."""
        lanes = [lane for lane in lanes if lane in self.bases]
        if self.executor.program.early or not lanes:
            return
        learner = self.executor.learners()
        there = {}
        for lane in lanes:
            base, own = self.bases[lane].take(self.executor.sizes), self.progress[lane]
            if base is not None:
                there[lane] = base.learner
            else:
                cost = Cost(0, own.seconds, 0.0, 0.0, 0.0, own.examples, int(fit.epoch[lane]), 0, 0)
                self.bases[lane].keep(Base(learner(lane), cost, self.executor.sizes))
        self.executor.put_learners(there)

    # -- tests -----------------------------------------------------------------------------------------------------

    def test(self, lanes: Sequence[int], t: int) -> Iterator[Event]:
        """The prequential evaluation of all of increment t."""
        if self.feed.listed:
            self.executor.grow(self.sizes(t))
        for rows, lane, ranks in self.ranked(lanes, t, t - 1, heldout=False):
            records = prequential(self.metrics, self.feed.stream, t, t - 1, rows, ranks, listed=self.feed.listed)
            yield self.noted(lane, records)
        self.clock(lanes, training=False)

    def matrix_row(self, lanes: Sequence[int], trained_until: int) -> Iterator[Event]:
        """R[trained_until, ·]: every metric on the held-out part of every increment, later ones too."""
        records: dict[int, list[Record]] = {lane: [] for lane in lanes}
        for t in range(len(self.feed.stream)):
            for _, lane, ranks in self.ranked(lanes, t, trained_until, heldout=True):
                records[lane] += matrix_entries(self.metrics, t, trained_until, np.asarray(ranks.rank))
        for lane, own in records.items():
            yield self.noted(lane, own)
        self.clock(lanes, training=False)

    def ranked(
        self, lanes: Sequence[int], t: int, trained_until: int, *, heldout: bool
    ) -> Iterator[tuple[Examples, int, Ranks]]:
        """The test rows of increment t, and each lane's rankings; lanes that know other items have other rows."""
        known, executor = self.executor.known(), self.executor
        alike: dict[bytes, list[int]] = {}
        for lane in lanes:
            alike.setdefault(b"".join(ids[lane].tobytes() for ids in known.values()), []).append(lane)
        for group in alike.values():
            own, place = {kind: ids[group[0]] for kind, ids in known.items()}, executor.way.place
            rows, data, seen = self.feed.tests(executor.program, own, t, trained_until, place, heldout=heldout)
            found = executor.rank(data, seen, lists=self.lists)
            for lane in group:
                rank, recommended, *more = found[lane]
                scores, lists = (None if each is None else each[: len(rows)] for each in more)
                yield rows, lane, Ranks(rank[: len(rows)], recommended, scores, lists)

    def noted(self, lane: int, records: list[Record]) -> Evaluated:
        """Adds evaluations to a lane's progress."""
        own = self.progress[lane]
        self.progress[lane] = own._replace(records=(*own.records, *records))
        return Evaluated(lane, tuple(records))


def of_lane(tree: PyTree, lane: int) -> Any:
    """One lane's part of what is on the host."""
    import jax

    return jax.tree.map(lambda leaf: leaf[lane], tree)


def epoch_of(t: int, fit: Fit, info: Info) -> Epoch:
    """The epoch of increment t that has just been validated, from what was fetched of it."""

    def floats(named: Mapping[str, Any]) -> dict[str, float]:
        return {path: float(value) for path, value in flatten_dict(named, sep="/").items()}

    value = float(fit.last)
    return Epoch(
        t,
        int(fit.epoch),
        None if info.loss is None else float(info.loss),
        value if np.isfinite(value) else None,
        floats(info.terms),
        floats(info.reports),
    )


def divergence(info: Info, t: int, epoch: int) -> UserError | None:
    """Why a run whose loss is not finite, or below what it can be, stops: the place, and the terms that were not."""
    broken = info.broken
    if broken is None or int(broken.step) < 0:
        return None
    terms = [name for name, value in broken.terms.items() if not np.isfinite(value)]
    if not terms and broken.terms["data"] < 0:
        return UserError(
            f"the data loss became {float(broken.terms['data']):.3g} at increment {t}, epoch {epoch}, step "
            f"{int(broken.step)}, but the head's loss of a row is never negative: a label is no candidate, or the "
            "head's formula is wrong. A head whose loss may be negative says so: Head(..., negative=True)"
        )
    return UserError(
        f"the loss became NaN or infinite at increment {t}, epoch {epoch}, step {int(broken.step)}, in the term(s) "
        f"{', '.join(terms) or 'sum'} ('data' is the model's own loss, the others are strategies). What was "
        "saved before is kept. Lower optimizer.learning_rate or the strategy's weight; debug=nan finds the operation"
    )
