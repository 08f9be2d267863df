"""The `loop` driver: test on an increment, train on it, go on; a plain Python loop around compiled epochs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from incremental.core.sharding import put
from incremental.core.types import (
    Anchor,
    Batch,
    Data,
    Fit,
    Info,
    Learner,
    Params,
    Program,
    Ranks,
    Seen,
    Sizes,
    State,
    bytes_of,
)
from incremental.data.stream import Rows, Stream
from incremental.errors import UserError
from incremental.run.capacity import capacity, grow
from incremental.run.compiled import Compiled
from incremental.run.policy import Plan, Update
from incremental.run.progress import Cost, Epoch, Progress, Record, Result
from incremental.run.records import cutoffs, matrix_entries, prequential

Build = Callable[[Sizes], Program]
LEAST_CAPACITY = 1024  # of a table or of an update's rows: a smaller one saves less than compiling anew costs
BYTES_AN_INTERACTION = 16  # user, item: 4 bytes each; time: 8


class Saver(Protocol):
    """Keeps a run's state. `before` are the parameters at the running update's start."""

    def save(self, state: State, before: Params, sizes: Sizes, progress: Progress) -> None: ...

    def due(self) -> bool:
        """Whether the last save is long enough ago for one between two epochs."""
        ...


class Base(NamedTuple):
    """A base part that another run has trained: what `run` may begin with in place of training it."""

    learner: Learner
    cost: Cost

    @property
    def sizes(self) -> Sizes:
        """The capacities of its tables."""
        return Sizes(*(ids.shape[-1] for ids in (self.learner.catalogue.seen, self.learner.catalogue.users)))


class Bases(Protocol):
    """Where a run finds its base part trained already, or leaves it for others."""

    @property
    def required(self) -> bool:
        """Whether a run that cannot begin with another's base part is refused; else it trains its own."""
        ...

    def take(self, sizes: Sizes) -> Base | None:
        """The base part in tables of these sizes, if there is one."""
        ...

    def keep(self, base: Base) -> None: ...


class Listener(Protocol):
    """Told what happens; it draws progress bars, prints and tracks."""

    def epoch(self, epoch: Epoch) -> None: ...

    def increment(self, cost: Cost, tested: Sequence[Record]) -> None: ...


class Silent:
    """A listener that says nothing."""

    def epoch(self, epoch: Epoch) -> None:
        del epoch

    def increment(self, cost: Cost, tested: Sequence[Record]) -> None:
        del cost, tested


SILENT = Silent()


class Functions:
    """A program's functions at one pair of capacities, compiled as they are met."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.checked = False
        self.init = Compiled(program.init)
        self.restart = Compiled(program.restart, donate=(0,))
        self.begin = Compiled(program.begin, donate=(0,))
        self.run_epoch = Compiled(program.run_epoch, donate=(0,))
        self.base_epoch = Compiled(program.base_epoch, donate=(0,)) if program.base_epoch else self.run_epoch
        self.validate = Compiled(program.validate, donate=(0,))
        self.end = Compiled(program.end, donate=(0,))
        self.rank = Compiled(program.rank)
        self.written = Compiled(parameters_written)
        self.copy = Compiled(lambda tree: jax.tree.map(jnp.copy, tree))

    def refuse_types(self, state: State, data: Data) -> None:
        """A strategy whose state changes its type is refused before training, not at a later increment.

        Tracing is little work: compiling uses it again where the shapes are the same.
        """
        if self.checked:
            return
        # An epoch of an increment, which the base part does not run: what it refuses is said before any training.
        epoch: Any = lambda state, data: self.run_epoch.traced(state, data)[0]  # noqa: E731
        hooks = ("begin", self.begin.traced, data), ("record", epoch, data), ("end", self.end.traced, data)
        for hook, traced, rows in hooks:
            try:
                changed = traced(state, rows).strategy
            except TypeError as error:
                if "carry" not in str(error):
                    raise
                raise UserError(
                    f"a strategy changes the type of its state or of the weights in `record` or a step: {error}"
                ) from None
            for name, own in state.strategy.items():
                if types_of(own) != types_of(changed[name]):
                    raise UserError(
                        f"strategies.{name}: its state changes in `{hook}`, from {types_of(own)} to "
                        f"{types_of(changed[name])}; shapes and dtypes must stay as `init` made them"
                    )
        self.checked = True

    @property
    def seconds(self) -> float:
        """Spent on compilation."""
        return sum(each.seconds for each in {each for each in vars(self).values() if isinstance(each, Compiled)})


@lru_cache(maxsize=2)
def functions_of(build: Build, sizes: Sizes) -> Functions:
    """The functions of a program: the same ones for equal builds, so that the seeds of a sweep compile once."""
    return Functions(build(sizes))


def types_of(tree: Any) -> str:
    """Structure, shapes and dtypes, to compare and to show."""
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))


def parameters_written(before: Params, after: Params) -> jax.Array:
    """How many parameters differ."""
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).sum(), before, after)), jnp.int32(0))


def sizes_at(stream: Stream, t: int) -> Sizes:
    """The tables' capacities for the ids that occurred up to increment t."""
    last = stream.bounds(t)[1]
    seen = stream.interactions
    least = LEAST_CAPACITY if stream.question is None else 8  # of behaviours there are few, and their scores are kept
    items, users = (int(ids[:last].max()) + 1 for ids in (seen.item, seen.user))
    return Sizes(capacity(items, least), capacity(users, LEAST_CAPACITY))


def sizes_of(state: State) -> Sizes:
    """The capacities of a state's tables."""
    return Sizes(*(leaf.shape[-1] for leaf in (state.learner.catalogue.seen, state.learner.catalogue.users)))


def padded(values: np.ndarray, rows: int) -> Any:
    """`values` with zeros behind, `rows` long."""
    return np.pad(values, [(0, rows - len(values))] + [(0, 0)] * (values.ndim - 1))


def row_capacity(n: int) -> int:
    """A power of two for n rows, so that increments of like size share a program."""
    return 1 << max(n - 1, LEAST_CAPACITY - 1).bit_length()


def as_data(rows: Rows, inputs: tuple[str, ...], increment: int, arrived: tuple[np.ndarray, np.ndarray]) -> Data:
    """Rows as `Data` on the host, padded to a capacity."""
    size, events = row_capacity(len(rows)), row_capacity(len(arrived[0]))
    whole: Any = (np.ones(size, np.float32), np.arange(size) < len(rows), np.int32(len(rows)), np.int32(increment))
    weight, valid, number, now = whole
    batch = Batch(
        inputs={name: padded(getattr(rows, name), size) for name in inputs},
        labels=padded(rows.label, size),
        weight=weight,
        valid=valid,
        increment=padded(rows.increment, size),
        owner=padded(rows.user, size),
    )
    users, items = (padded(ids, events) for ids in arrived)
    return Data(batch, number, now, users, items)


NOBODY = (np.zeros(0, np.int32), np.zeros(0, np.int32))


def run(
    build: Build,
    stream: Stream,
    update: Update,
    *,
    seed: int = 0,
    metrics: tuple[str, ...] = ("ndcg@10", "recall@10", "mrr@10"),
    matrix: bool = False,
    listed: bool = False,
    batch_size: int | None = None,
    listener: Listener = SILENT,
    saver: Saver | None = None,
    resume: Callable[[Callable[[Sizes], Functions]], tuple[State, Params, Sizes, Progress] | None] | None = None,
    bases: Bases | None = None,
    whole: bool = False,
) -> Result:
    """Runs a stream to its end and returns the state, the evaluations and the costs.

    For each part t = 0 (base), 1, …, T: test on all of t with the model trained until t-1 (t > 0), grow the tables to
    the ids of t, train as `update` says. With `matrix`, after each update (and before the first) the held-out part of
    every increment is tested. With `listed` the candidates of the test on t are also the items that t brings, of which
    the model has seen nothing (at most their texts); else those are misses. `build(sizes)` makes the program at given
    capacities. `batch_size` is only checked against the increments' sizes. Where `bases` has the base part, it is not
    trained: its learner and its cost are taken over, and strategies see the base part begin and end. A strategy whose
    `record` follows the steps has it trained all the same; the run then goes on with the learner that is there. Where
    `bases` has none, the run leaves its own there. With `whole` the tables have room for all ids of the stream from the
    start: the results are those of tables that grow.
    """
    driver = Driver(build, stream, update, metrics, listener, saver, bases, listed=listed, whole=whole)
    driver.check(matrix, batch_size)
    return driver.run(jax.random.key(seed), matrix, resume)


class Driver:
    """One run's fixed parts; what changes is passed along."""

    def __init__(
        self,
        build: Build,
        stream: Stream,
        update: Update,
        metrics: tuple[str, ...],
        listener: Listener = SILENT,
        saver: Saver | None = None,
        bases: Bases | None = None,
        *,
        listed: bool = False,
        whole: bool = False,
    ) -> None:
        self.build, self.stream, self.update, self.bases, self.whole = build, stream, update, bases, whole
        self.metrics, self.listener, self.saver, self.listed = metrics, listener, saver, listed
        self.cutoffs = cutoffs(metrics)
        self.made: dict[Sizes, Functions] = {}
        self.texts: tuple[tuple[int, int], Any] = (0, 0), None  # (known items, V) and their texts
        self.inputs = build(sizes_at(stream, 0)).inputs

    def functions(self, sizes: Sizes) -> Functions:
        """The functions at these capacities; older capacities are dropped, tables only grow."""
        if sizes not in self.made:
            self.made = {sizes: functions_of(self.build, sizes)}
        return self.made[sizes]

    def sizes(self, t: int, least: Sizes = Sizes(0, 0)) -> Sizes:
        """The capacities at increment t, not below those that a state has already.

        That of users is coarser where no table has a row a user, to compile less.
        """
        sizes = sizes_at(self.stream, len(self.stream) - 1 if self.whole else t)
        if "user" not in self.inputs:
            sizes = sizes._replace(users=row_capacity(sizes.users))
        return Sizes(*map(max, sizes, least))

    def check(self, matrix: bool, batch_size: int | None) -> None:
        """Refuses what cannot work before anything runs."""
        stream = self.stream
        if len(stream) < 2:
            raise UserError("data.cut: the stream has no increment after the base part; cut it finer")
        if matrix and not stream.heldout.any():
            raise UserError("evaluation.matrix=true needs held-out parts: set data.heldout above 0")
        if self.listed and stream.unseen_items == "drop":
            raise UserError(
                "evaluation.candidates=listed tests items that the model has not seen, data.unseen_items=drop leaves "
                "them out; set data.unseen_items=miss"
            )
        self.refuse_inputs()
        base_items = int(stream.interactions.item[: stream.bounds(0)[1]].max())
        if max(self.cutoffs) > base_items:
            raise UserError(
                f"evaluation.metrics: K={max(self.cutoffs)} is larger than the catalogue of the base part "
                f"({base_items} items); choose smaller K's"
            )
        program = self.functions(self.sizes(0)).program
        if program.cutoffs != self.cutoffs:
            raise UserError(
                f"the metrics ask for the K's {self.cutoffs}, the program counts {program.cutoffs}: give "
                f"make(..., cutoffs={self.cutoffs})"
            )
        if self.bases is not None and self.bases.required and not shares_base(program):
            names = ", ".join(dict.fromkeys(program.following + program.early))
            raise UserError(
                f"base: the base part's steps are followed, or changed, by {names} ('head' is the model's), which "
                "cannot begin with a base part that another run has trained; leave base out, or the strategy"
            )
        shapes = jax.eval_shape(program.init, jax.random.key(0))
        if self.update.forgets and holds_anchor(shapes.strategy):
            names = ", ".join(name for name, own in shapes.strategy.items() if holds_anchor(own))
            raise UserError(
                f"strategies.{names} pulls towards earlier weights, but update.start=afresh (or full_every) forgets "
                "them; use update.start=continue, or leave the strategy out"
            )
        for t in range(len(stream)):
            plan = self.update._replace(drop=None, budget=None, every=1).plan(t, range(t) or [0], {}, 0)
            rows = stream.training_rows(plan.increments, validation=False, history=False)
            if batch_size and 0 < len(rows) < batch_size:
                part = "the base part" if t == 0 else f"increment {t}"
                raise UserError(
                    f"training.batch_size={batch_size} is larger than {part} ({len(rows)} training events); "
                    "lower it, or cut the stream coarser (data.cut)"
                )

    def refuse_inputs(self) -> None:
        """A model that does not read what the stream's rows hold."""
        question, inputs = self.stream.question, self.inputs
        if question is None and {"asked", "tokens"} & {*inputs}:
            raise UserError(
                "model: it predicts behaviours, but the stream's labels are items; +predict@data.predict=..."
            )
        if question is not None and "history" in inputs:
            raise UserError("model: its history is of labels, which data.predict makes behaviours; use model=behaviour")

    def run(self, key: jax.Array, matrix: bool, resume: Any) -> Result:
        """See `run`."""
        found = resume(self.functions) if resume else None
        if found:
            state, before, sizes, progress = found
        else:
            sizes, progress = self.sizes(0), Progress()
            state = self.functions(sizes).init(key)
            before = self.functions(sizes).copy(state.learner.params)
            if matrix:
                progress = self.noted(progress, self.matrix_row(state, -1))
        while progress.increment < len(self.stream):
            t = progress.increment
            if not progress.begun and t > 0:
                if self.listed and (wanted := self.sizes(t, sizes)) != sizes:
                    state, sizes = grow(state, self.functions(wanted).program), wanted
                progress = self.noted(progress, self.test(state, t, t - 1))
            state, before, sizes, progress = self.train(state, before, sizes, progress)
            if matrix:
                progress = self.noted(progress, self.matrix_row(state, t))
            progress = progress._replace(increment=t + 1)
            if self.saver:
                self.saver.save(state, before, sizes, progress)
            tested = [
                record for record in progress.records if record.evaluated_on == t and record.trained_until == t - 1
            ]
            self.listener.increment(progress.costs[-1], tested)
        early = self.functions(sizes).program.early
        return Result(state, sizes, progress.records, progress.costs, early)

    @staticmethod
    def noted(progress: Progress, records: list[Record]) -> Progress:
        """The progress with more evaluations."""
        return progress._replace(records=(*progress.records, *records))

    # -- training --------------------------------------------------------------------------------------------------

    def train(
        self, state: State, before: Params, sizes: Sizes, progress: Progress
    ) -> tuple[State, Params, Sizes, Progress]:
        """The update at `progress.increment`, from where it stands."""
        t = progress.increment
        plan = self.plan(progress)
        if not plan.increments:
            return state, before, sizes, self.charged(progress, 0, 0, bytes_of(state.strategy))
        wanted = sizes if progress.begun else self.sizes(t, sizes)
        functions = self.functions(wanted)
        data, validation, seen = self.update_data(functions.program, t, plan)
        compiled = functions.seconds
        start = time.perf_counter()

        def clocked(progress: Progress, examples: int = 0) -> Progress:
            """The progress with the time since the last call, compilation apart."""
            nonlocal start, compiled
            now, compiling = time.perf_counter(), functions.seconds - compiled
            progress = progress._replace(
                seconds=progress.seconds + now - start - compiling,
                compile_seconds=progress.compile_seconds + compiling,
                examples=progress.examples + examples,
            )
            start, compiled = time.perf_counter(), functions.seconds
            return progress

        base: Base | None = None
        if not progress.begun:
            if sizes != wanted:
                growing = time.perf_counter()
                state, sizes = grow(state, functions.program), wanted
                jax.block_until_ready(state)
                grown = time.perf_counter() - growing
                # Growing is a program for one use: its time is compilation.
                start += grown
                progress = progress._replace(compile_seconds=progress.compile_seconds + grown)
            before = functions.copy(state.learner.params)
            if plan.afresh:
                state = functions.restart(state, data)
            functions.refuse_types(state, data)
            state = functions.begin(state, data)
            progress = progress._replace(begun=True)
            if t == 0 and (base := self.base(functions.program, sizes)) is not None:
                state, progress = self.taken_over(base, functions.program, state, progress)
                start, compiled = time.perf_counter(), functions.seconds  # reading it is no training
        run_epoch = functions.base_epoch if t == 0 else functions.run_epoch
        fit = told(state.fit)
        while fit.active and fit.epoch < functions.program.epochs:
            state, info = run_epoch(state, data)
            state = functions.validate(state, validation, seen)
            jax.block_until_ready(state)
            info, fit = jax.device_get((info, told(state.fit)))
            refuse_divergence(info, t, int(fit.epoch))
            progress = clocked(progress, int(info.examples))
            progress = progress._replace(epochs=(*progress.epochs, epoch_of(t, fit, info)))
            self.listener.epoch(progress.epochs[-1])
            if self.saver and self.saver.due():
                self.saver.save(state, before, sizes, progress)
                start = time.perf_counter()
        epochs = int(fit.epoch)
        if t == 0 and base is None and self.bases is not None and not functions.program.early:
            if (base := self.bases.take(sizes)) is None:
                cost = Cost(t, progress.seconds, 0.0, progress.examples, epochs, 0, 0)
                self.bases.keep(Base(jax.device_get(state.fit.learner), cost))
            else:  # strategies have followed its steps, which were those of the base part there, up to rounding
                state = state._replace(fit=state.fit._replace(learner=put(base.learner, functions.program)))
            start = time.perf_counter()
        state = functions.end(state, data)
        jax.block_until_ready(state)
        progress = clocked(progress)
        changed = int(functions.written(before, state.learner.params))
        return state, before, sizes, self.charged(progress, epochs, changed, bytes_of(state.strategy))

    def base(self, program: Program, sizes: Sizes) -> Base | None:
        """The base part that another run has trained, where there is one and this run may begin with it."""
        return self.bases.take(sizes) if self.bases is not None and shares_base(program) else None

    @staticmethod
    def taken_over(base: Base, program: Program, state: State, progress: Progress) -> tuple[State, Progress]:
        """The base part begun, as if it had just been trained."""
        learner, epoch = put((base.learner, jnp.int32(base.cost.epochs)), program)
        fit = state.fit._replace(learner=learner, epoch=epoch, active=jnp.array(False))
        spent = progress._replace(seconds=base.cost.seconds, examples=base.cost.examples)
        return state._replace(fit=fit), spent

    def plan(self, progress: Progress) -> Plan:
        """What the policy makes of the run so far; the same before and after a resume."""
        t = progress.increment
        quality = {
            record.evaluated_on: record.value
            for record in progress.records
            if record.metric == self.metrics[0] and record.trained_until == record.evaluated_on - 1
        }
        updated = [cost.increment for cost in progress.costs if cost.epochs]
        return self.update.plan(t, updated, quality, sum(cost.examples for cost in progress.costs[1:]))

    def charged(self, progress: Progress, epochs: int, written: int, strategy_bytes: int) -> Progress:
        """The progress with the finished update's cost on the account."""
        t = progress.increment
        past = [i for i in self.plan(progress).increments if i < t]
        kept = strategy_bytes + BYTES_AN_INTERACTION * len(self.stream.training_events(past))
        cost = Cost(t, progress.seconds, progress.compile_seconds, progress.examples, epochs, written, kept)
        return progress._replace(
            begun=False, seconds=0.0, compile_seconds=0.0, examples=0, costs=(*progress.costs, cost)
        )

    def update_data(self, program: Program, t: int, plan: Plan) -> tuple[Data, Data, Seen | None]:
        """Training examples of the update at t, those of its validation, and what validation leaves out.

        Validated on is what no update has trained on yet; a memory may keep validation rows of all of its increments.
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
        checked = every = as_data(newest, program.inputs, t, NOBODY)
        if plan.increments != plan.newest:
            older = stream.training_rows(plan.increments, validation=True, history=history)
            every = as_data(older, program.inputs, t, NOBODY)
        data = as_data(rows, program.inputs, t, arrived)._replace(validation=every.rows)
        given: Any = (data, checked, seen)
        data, validation, seen = put(given, program)
        text = self.text(t, program)
        return data._replace(text=text), validation._replace(text=text), seen

    def text(self, t: int, program: Program) -> Any:
        """[V, ...] the texts of the items that occurred up to increment t, on the device; 0 for the future's items."""
        stream, capacity = self.stream, program.sizes.items
        if stream.text is None:
            return None
        arrived = int(stream.interactions.item[: stream.bounds(t)[1]].max(initial=0)) + 1
        known = min(arrived, capacity), capacity
        if self.texts[0] != known:
            self.texts = known, put(padded(stream.text[: known[0]], capacity), program)
        return self.texts[1]

    # -- evaluation ------------------------------------------------------------------------------------------------

    def seen(self, rows: Rows, *, heldout: bool) -> Seen:
        """The items to leave out of each row's ranking."""
        log, start, stop = self.stream.seen_by(rows, heldout=heldout)
        most = capacity(int((stop - start).max(initial=1)))
        length, log_length = row_capacity(len(rows)), row_capacity(len(log) + most)
        window: Any = np.arange(most, dtype=np.int32)
        first, last = (padded(place.astype(np.int32), length) for place in (start, stop))
        return Seen(padded(log, log_length), first, last, window)

    def ranked(self, state: State, t: int, trained_until: int, *, heldout: bool) -> tuple[Rows, Ranks]:
        """The test rows of increment t and, on the host, what became of them."""
        functions = self.functions(sizes_of(state))
        known = np.asarray(state.learner.catalogue.seen)
        rows, data, seen = self.test_data(functions.program, known, t, trained_until, heldout=heldout)
        ranks: Ranks = jax.device_get(functions.rank(state, data, seen))
        own = None if ranks.scores is None else ranks.scores[: len(rows)]
        return rows, Ranks(ranks.rank[: len(rows)], ranks.recommended, own)

    def test_data(
        self, program: Program, known: np.ndarray, t: int, trained_until: int, *, heldout: bool
    ) -> tuple[Rows, Data, Seen | None]:
        """The test rows of increment t, on the host and on the device, and what their rankings leave out."""
        rows = self.stream.test_rows(
            t, heldout=heldout, trained_until=trained_until, known=known, history="history" in program.inputs
        )
        # Users beyond the table are unknown: row 0.
        users = np.where(rows.user < program.sizes.users, rows.user, 0)
        seen = self.seen(rows, heldout=True) if self.stream.exclude_seen else None
        data = as_data(replace(rows, user=users), program.inputs, t, NOBODY)
        new = self.listed and not heldout
        if new:
            items = np.unique(self.stream.interactions.item[slice(*self.stream.bounds(t))])
            listed: Any = np.isin(np.arange(program.sizes.items), items)
            data = data._replace(listed=listed)
        data, seen = put((data, seen), program)
        return rows, data._replace(text=self.text(t if new else trained_until, program)), seen

    def test(self, state: State, t: int, trained_until: int) -> list[Record]:
        """The prequential evaluation of all of increment t: metrics; those of cold users, of cold and of rare items
        apart; coverage, bias."""
        rows, ranked = self.ranked(state, t, trained_until, heldout=False)
        return prequential(self.metrics, self.stream, t, trained_until, rows, ranked, listed=self.listed)

    def matrix_row(self, state: State, trained_until: int) -> list[Record]:
        """R[trained_until, ·]: every metric on the held-out part of every increment, later ones too."""
        records = []
        for t in range(len(self.stream)):
            _, ranked = self.ranked(state, t, trained_until, heldout=True)
            records += matrix_entries(self.metrics, t, trained_until, np.asarray(ranked.rank))
        return records


def shares_base(program: Program) -> bool:
    """Whether a run need not train its base part where there is one: nothing in it follows the steps, or acts."""
    return not program.following and not program.early


def holds_anchor(tree: Any) -> bool:
    """Whether a strategy's state holds an `Anchor`."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Anchor))
    return any(isinstance(leaf, Anchor) for leaf in leaves)


def told(fit: Fit) -> Fit:
    """The numbers of a `Fit`, without the best epoch's weights."""
    return fit._replace(learner=(), strategy=())  # type: ignore[arg-type]


def epoch_of(t: int, fit: Fit, info: Info) -> Epoch:
    """The epoch of increment t that has just been validated, from what was fetched of it."""

    def floats(named: dict[str, Any]) -> dict[str, float]:
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


def refuse_divergence(info: Info, t: int, epoch: int) -> None:
    """Stops a run whose loss is not finite, naming the place and the terms that were not."""
    broken = info.broken
    if broken is None or int(broken.step) < 0:
        return
    terms = [name for name, value in broken.terms.items() if not np.isfinite(value)]
    if not terms and broken.terms["data"] < 0:
        raise UserError(
            f"the data loss became {float(broken.terms['data']):.3g} at increment {t}, epoch {epoch}, step "
            f"{int(broken.step)}, but the head's loss of a row is never negative: a label is no candidate, or the "
            "head's formula is wrong. A head whose loss may be negative says so: Head(..., negative=True)"
        )
    raise UserError(
        f"the loss became NaN or infinite at increment {t}, epoch {epoch}, step {int(broken.step)}, in the term(s) "
        f"{', '.join(terms) or 'sum'} ('data' is the model's own loss, the others are strategies). The last good "
        "checkpoint is kept. Lower optimizer.learning_rate or the strategy's weight; debug=nan finds the operation"
    )
