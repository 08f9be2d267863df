"""The vocabulary of the core: what flows between problem, strategies, steps and the executor.

Letters in shapes: B batch, L sequence length, D width, V catalogue capacity (items), W user capacity, S steps,
T increments, C memory capacity, U touched rows, K cutoff, N rows or negatives, E events.
Row 0 of every id table is padding.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.spec import Input

Params = Any  # a pytree of float arrays
PyTree = Any


class Batch(NamedTuple):
    """Examples, and what the step and its strategies add to them.

    Memories store the first six fields; the others belong to one step.

    Attributes:
        inputs: by name, as the spec has them: "user" [B] int32, "history" [B, L] int32 (left-padded), …
        labels: [B] int32, ids of the labels' kind
        weight: [B] float32, multiplies a row's loss
        valid: [B] bool, False = padding
        increment: [B] int32, when the row arrived
        owner: [B] int32: its user, whom the model need not read; None: it has none
        candidates: [V] bool: the items that take part in a loss or a ranking
        negatives: [N] int32, shared by the rows, or [B, N], each row's own; None: the loss's exact form over candidates
        log_q: of the shape of `negatives`, float32, log of the expected number of draws of each
        step: [] int32, the update's steps before this one
        memory: what a strategy's `batch` hook leaves for its own `loss`, `grads` and `record`; others do not see it
        own: how many rows, the first ones, are the update's own: `training.batch_size`; strategies appended the others
    """

    inputs: dict[str, Any]
    labels: Array
    weight: Array
    valid: Array
    increment: Array
    owner: Any = None
    candidates: Array | None = None
    negatives: Array | None = None
    log_q: Array | None = None
    step: Array | None = None
    memory: Any = None
    own: Any = None


STORED = Batch._fields[:6]  # those that describe an example on its own, as a memory keeps them


def stored(batch: Batch) -> Batch:
    """The fields that describe an example on its own."""
    return Batch(**{name: getattr(batch, name) for name in STORED})


def with_labels(candidates: Array, rows: Batch) -> Array:
    """[V] bool: the candidates and the rows' labels: a label that is trained on is one, or the loss has no bound."""
    return candidates.at[jnp.where(rows.valid, rows.labels, len(candidates))].set(True, mode="drop")


def with_negatives(batch: Batch) -> Batch:
    """The batch with negatives for all its rows: where each has its own, rows that were appended have those of the
    first rows again."""
    if batch.negatives is None or batch.negatives.ndim == 1:
        return batch
    shape = len(batch.labels), batch.negatives.shape[1]
    again: dict[str, Any] = {name: jnp.resize(getattr(batch, name), shape) for name in ("negatives", "log_q")}
    return batch._replace(**again)


class Outputs(NamedTuple):
    """What a model says of a batch. `scores` costs nothing where it is not used: XLA drops it.

    Attributes:
        hidden: [B, D] float32
        scores: [B, V] float32
    """

    hidden: Array
    scores: Array


class Problem(NamedTuple):
    """A model and a head at fixed capacities, as pure functions.

    Attributes:
        init: (key)
        apply: (params, inputs, *, key=None); key=None is deterministic
        loss: -> [B] float32
        example: of ShapeDtypeStructs: one row, without the leading axis
        tables: path of each id table in params -> the kind of its ids
        strategy: the head's own strategy (draws negatives, keeps counts), or None
        features: (params, inputs) -> path of each dense kernel -> what entered it, [N, D_in] float32, N >= B; without
            dropout
        scores: (params, outputs, rows [n] int32, items [m] int32 or a slice) -> [n, m]: `outputs.scores[rows][:,
            items]`, at the cost of these rows and items alone
        settle: (params) -> params with the tables that are computed (`core.tower`, `core.graph`); `apply` and `loss`
            take both
        settled: path of each table that `settle` computes -> the kind of its ids
        of_items: (ids [U]) -> the problem whose computed tables have these rows only; None: it reads nothing but its
            parameters
        negative: whether a row's loss may be below 0; else a step whose data loss is stops the run
        inputs: what an example holds of each of the model's inputs
        labels: the kind of the ids that labels, candidates and negatives are
        together: whether a row's loss reads the batch's other rows; gradients of single examples are then refused
        sequence: the input whose prefixes share a run, so that an epoch is ordered by runs; None: each example is one
        items: (params) -> the model's output side, `Items` of all ids of the labels' kind: table [V, D] and bias [V];
            None: the head scores with tables of its own
    """

    init: Callable[[Array], Params]
    apply: Callable[..., Outputs]
    loss: Callable[[Params, Outputs, Batch], Array]
    example: Batch
    tables: dict[str, str]
    strategy: "Any"
    features: Callable[[Params, dict[str, Any]], dict[str, Array]]
    scores: Callable[..., Array] = lambda _params, outputs, rows, items=slice(None): outputs.scores[rows][:, items]
    settle: Callable[[Params], Params] = lambda params: params
    settled: Mapping[str, str] = {}
    of_items: "Callable[[Array], Problem] | None" = None
    negative: bool = False
    inputs: Mapping[str, Input] = {}
    labels: str = "item"
    together: bool = False
    sequence: str | None = None
    items: Callable[[Params], Any] | None = None


class Catalogue(NamedTuple):
    """What the model has been trained on so far.

    Attributes:
        seen: [V] bool: the items a ranking may contain
        events: [V] float32: training events an item
        arrived: [capacity] bool by kind, those of the labels apart: trained on
    """

    seen: Array
    events: Array
    arrived: dict[str, Array]


class Learner(NamedTuple):
    """Everything that plain training changes.

    Attributes:
        params: the model's, float arrays
        opt_state: the optimizer's
        catalogue: what has arrived
        increment: [] int32, of the last update begun; -1 before the base part
    """

    params: Params
    opt_state: PyTree
    catalogue: Catalogue
    increment: Array


class Fit(NamedTuple):
    """How far the training of one increment is; the loop keeps the best epoch (`incremental.run.stopping`).

    Attributes:
        value: [] float32, the best validation value
        bad: [] int32, epochs since
        epoch: [] int32, epochs run
        active: [] bool
        last: [] float32, the last epoch's validation value; -inf: there is none
        better: [] bool, the last epoch is the best so far
        least: [] int32, epochs before `bad` counts: 0 where training goes on from weights that were trained
        offered: [] int32, the increment whose rows, and those before, earlier updates have offered to memories
    """

    value: Array
    bad: Array
    epoch: Array
    active: Array
    last: Array
    better: Array
    least: Array
    offered: Array


class State(NamedTuple):
    """A run's whole state: saved, vmapped and sharded as one.

    Attributes:
        learner: what plain training changes
        strategy: each strategy's own state, by name
        fit: how far the increment's training is
        key: [] PRNG key of the run; never advanced, only folded
    """

    learner: Learner
    strategy: PyTree
    fit: Fit
    key: Array


class Evaluated(State):
    """A state whose parameters are those that rankings see (`Program.evaluated`)."""


class Step(NamedTuple):
    """What `record` sees of one optimizer step.

    Attributes:
        batch: the rows that were trained on, replayed ones included
        new: the update's own rows, before any `batch` hook
        outputs: of `batch`
        grads: of the total loss, before the `grads` hook
        penalty: the part of `grads` that is the strategies' terms' own, outputs held fixed
        updates: as added to the parameters
        params: before the step
        first_pass: [] bool: the update's first epoch
        before: [] int32: the rows of `new` of later increments are in no earlier update
    """

    batch: Batch
    new: Batch
    outputs: Outputs
    grads: Params
    penalty: Params
    updates: Params
    params: Params
    first_pass: Array
    before: Any = -1

    @property
    def offered(self) -> Batch:
        """`new`, with those rows valid that memories insert, in the first pass: each event once in a run."""
        return self.new._replace(valid=self.new.valid & (self.new.increment > self.before))


class Loss(NamedTuple):
    """What one step says; of several steps, the sums.

    Attributes:
        total: [] float32: the data loss and the strategies' terms
        terms: by name: "data", and each strategy that has one, [] float32
        examples: [] int32, appended ones included
    """

    total: Array
    terms: dict[str, Any]
    examples: Array


class Broken(NamedTuple):
    """The first step of an epoch whose loss is not finite, or below 0 where it may not be.

    Attributes:
        step: [] int32; -1: there is none
        terms: of that step's loss, by name
    """

    step: Array
    terms: dict[str, Any]


class Info(NamedTuple):
    """What an epoch says.

    Attributes:
        loss: [] float32, mean over the steps; None: the model has no loss
        terms: its terms, by name, [] float32 each
        examples: [] int32, appended ones included
        steps: [] int32
        broken: None: nothing can break
        reports: by "STRATEGY/KEY", scalars
    """

    loss: Array | None
    terms: dict[str, Any]
    examples: Array
    steps: Array
    broken: Broken | None
    reports: dict[str, Any]


class Data(NamedTuple):
    """The examples of one update on the device, padded to a capacity so that increments share one program.

    Attributes:
        rows: leading axis N >= size
        size: [] int32, real rows
        increment: [] int32
        events: [E] int32, ids of the labels' kind, 0 = padding: the training events not yet in the catalogue
        arrived: [E] int32, the ids of each other kind that gradients see: where histories do not hold the kind, as of
            users, not those of validation events, unless the model counts
        side: frozen tables by name [capacity, ...], of the ids that have occurred
        listed: [V] bool: items that are candidates though they were not seen, of a ranking or from this update on
        validation: validation rows of all its increments [M, ...], padding not valid; for `end`
    """

    rows: Batch
    size: Array
    increment: Array
    events: Array
    arrived: dict[str, Array]
    side: Mapping[str, Array] = {}
    listed: Array | None = None
    validation: Batch | None = None


class Seen(NamedTuple):
    """Items to leave out of each row's ranking: `log[start:stop]`, at most S of them.

    Attributes:
        log: [E] int32
        start: [N] int32
        stop: [N] int32
        window: [S] int32, 0..S-1: carries the static S
    """

    log: Array
    start: Array
    stop: Array
    window: Array


class Ranks(NamedTuple):
    """A ranking of the whole catalogue for each row.

    Attributes:
        rank: [N] float32: candidates scored higher, ties counted as half; inf where the label is none
        recommended: [K's, V] int32: how often each item was among a row's first K
        scores: [N, V] float32 of a catalogue of at most 128, whose items are classes
        lists: [N, K] int32: a row's first K, the largest of the K's, best first; 0 where there are fewer candidates.
            None: not asked for
    """

    rank: Array
    recommended: Array
    scores: Array | None = None
    lists: Array | None = None


class Memory(NamedTuple):
    """C rows of past examples. Found by type: every strategy that keeps rows keeps them in one.

    Attributes:
        rows: the stored fields, leading axis C; `valid` says which slots are filled
        inserted: [] int32: rows offered so far
    """

    rows: Batch
    inserted: Array


class Anchor(NamedTuple):
    """Parameters a strategy pulls towards or keeps. Found by type: it cannot be combined with a fresh start.

    Attributes:
        params: as the learner's
    """

    params: Params


class Teacher(NamedTuple):
    """Parameters a strategy distils from, at the end of the last increment; a fresh start may learn from them too.

    Attributes:
        params: as the learner's
        ready: [] float32: 0 until the first increment is finished, then 1
    """

    params: Params
    ready: Array


class Net(NamedTuple):
    """Weights that a strategy trains for itself. Found by type: no axis is one of ids, whatever its length.

    Attributes:
        weights: a tree of them
    """

    weights: PyTree


def bytes_of(tree: PyTree) -> int:
    """Bytes of a tree's arrays, or of their shapes (PRNG keys apart)."""
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
