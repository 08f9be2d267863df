"""The vocabulary of the core: what flows between problem, strategies, learner and drivers.

Letters in shapes: B batch, L sequence length, D width, V catalogue capacity (items), W user capacity, S steps,
T increments, C memory capacity, U touched rows, K cutoff, N rows or negatives, E events.
Row 0 of every id table is padding.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.spec import Input, Sizes

Params = Any  # a pytree of float arrays
PyTree = Any


class Batch(NamedTuple):
    """Examples, and what the step and its strategies add to them.

    Memories store the first six fields; the others belong to one step.
    """

    inputs: dict[str, Any]  # by name, as the spec has them: "user" [B] int32, "history" [B, L] int32 (left-padded), …
    labels: Array  # [B] int32, ids of the labels' kind
    weight: Array  # [B] float32, multiplies a row's loss
    valid: Array  # [B] bool, False = padding
    increment: Array  # [B] int32, when the row arrived
    owner: Any = None  # [B] int32: its user, whom the model need not read; None: it has none
    candidates: Array | None = None  # [V] bool: the items that take part in a loss or a ranking
    negatives: Array | None = None  # [N] int32, shared by the rows; None: the loss's exact form over candidates
    log_q: Array | None = None  # [N] float32, log of the expected number of draws of each negative
    step: Array | None = None  # [] int32, the update's steps before this one
    memory: Any = None  # what a strategy's `batch` hook leaves for its own `loss` and `grads`; others do not see it


STORED = Batch._fields[:6]  # those that describe an example on its own, as a memory keeps them


def stored(batch: Batch) -> Batch:
    """The fields that describe an example on its own."""
    return Batch(**{name: getattr(batch, name) for name in STORED})


def with_labels(candidates: Array, rows: Batch) -> Array:
    """[V] bool: the candidates and the rows' labels: a label that is trained on is one, or the loss has no bound."""
    return candidates.at[jnp.where(rows.valid, rows.labels, len(candidates))].set(True, mode="drop")


class Outputs(NamedTuple):
    """What a model says of a batch. `scores` costs nothing where it is not used: XLA drops it."""

    hidden: Array  # [B, D] float32
    scores: Array  # [B, V] float32


class Problem(NamedTuple):
    """A model and a head at fixed capacities, as pure functions."""

    init: Callable[[Array], Params]  # (key)
    apply: Callable[..., Outputs]  # (params, inputs, *, key=None); key=None is deterministic
    loss: Callable[[Params, Outputs, Batch], Array]  # -> [B] float32
    example: Batch  # of ShapeDtypeStructs: one row, without the leading axis
    tables: dict[str, str]  # path of each id table in params -> the kind of its ids
    strategy: "Any"  # the head's own strategy (draws negatives, keeps counts), or None
    features: Callable[[Params, dict[str, Any]], dict[str, Array]]
    """(params, inputs) -> path of each dense kernel -> what entered it, [N, D_in] float32, N >= B; without dropout"""
    scores: Callable[..., Array] = lambda _params, outputs, rows, items=slice(None): outputs.scores[rows][:, items]
    """(params, outputs, rows [n] int32, items [m] int32 or a slice) -> [n, m]: `outputs.scores[rows][:, items]`, at the
    cost of these rows and items alone"""
    settle: Callable[[Params], Params] = lambda params: params
    """(params) -> params with the item tables that are computed (`core.tower`); `apply` and `loss` take both"""
    settled: Mapping[str, str] = {}
    """path of each table that `settle` computes -> the kind of its ids"""
    of_items: "Callable[[Array], Problem] | None" = None
    """(ids [U]) -> the problem whose computed tables have these rows only; None: it reads nothing but its parameters"""
    negative: bool = False
    """whether a row's loss may be below 0; else a step whose data loss is stops the run"""
    inputs: Mapping[str, Input] = {}
    """what an example holds of each of the model's inputs"""
    labels: str = "item"
    """the kind of the ids that labels, candidates and negatives are"""
    together: bool = False
    """whether a row's loss reads the batch's other rows; gradients of single examples are then refused"""


class Catalogue(NamedTuple):
    """What the model has been trained on so far."""

    seen: Array  # [V] bool: the items a ranking may contain
    events: Array  # [V] float32: training events an item
    arrived: dict[str, Array]  # [capacity] bool by kind, those of the labels apart: trained on


class Learner(NamedTuple):
    """Everything that plain training changes."""

    params: Params
    opt_state: PyTree
    catalogue: Catalogue
    increment: Array  # [] int32, of the last update begun; -1 before the base part


class Fit(NamedTuple):
    """How far the training of one increment is; the loop keeps the best epoch (`incremental.run.stopping`)."""

    value: Array  # [] float32, the best validation value
    bad: Array  # [] int32, epochs since
    epoch: Array  # [] int32, epochs run
    active: Array  # [] bool
    last: Array  # [] float32, the last epoch's validation value; -inf: there is none
    better: Array  # [] bool, the last epoch is the best so far
    least: Array  # [] int32, epochs before `bad` counts: 0 where training goes on from weights that were trained
    offered: Array  # [] int32, the increment whose rows, and those before, earlier updates have offered to memories


class State(NamedTuple):
    """A run's whole state: saved, vmapped and sharded as one."""

    learner: Learner
    strategy: PyTree  # each strategy's own state, by name
    fit: Fit
    key: Array  # [] PRNG key of the run; never advanced, only folded


class Step(NamedTuple):
    """What `record` sees of one optimizer step."""

    batch: Batch  # the rows that were trained on, replayed ones included
    new: Batch  # the update's own rows, before any `batch` hook
    outputs: Outputs  # of `batch`
    grads: Params  # of the total loss, before the `grads` hook
    penalty: Params  # the part of `grads` that is the strategies' terms' own, outputs held fixed
    updates: Params  # as added to the parameters
    params: Params  # before the step
    first_pass: Array  # [] bool: the update's first epoch
    before: Any = -1  # [] int32: the rows of `new` of later increments are in no earlier update

    @property
    def offered(self) -> Batch:
        """`new`, with those rows valid that memories insert, in the first pass: each event once in a run."""
        return self.new._replace(valid=self.new.valid & (self.new.increment > self.before))


class Loss(NamedTuple):
    """What one step says; of several steps, the sums."""

    total: Array  # [] float32: the data loss and the strategies' terms
    terms: dict[str, Any]  # by name: "data", and each strategy that has one, [] float32
    examples: Array  # [] int32, appended ones included


class Broken(NamedTuple):
    """The first step of an epoch whose loss is not finite, or below 0 where it may not be."""

    step: Array  # [] int32; -1: there is none
    terms: dict[str, Any]  # of that step's loss, by name


class Info(NamedTuple):
    """What an epoch says."""

    loss: Array | None  # [] float32, mean over the steps; None: the model has no loss
    terms: dict[str, Any]  # its terms, by name, [] float32 each
    examples: Array  # [] int32, appended ones included
    steps: Array  # [] int32
    broken: Broken | None  # None: nothing can break
    reports: dict[str, Any]  # by "STRATEGY/KEY", scalars


class Data(NamedTuple):
    """The examples of one update on the device, padded to a capacity so that increments share one program."""

    rows: Batch  # leading axis N >= size
    size: Array  # [] int32, real rows
    increment: Array  # [] int32
    events: Array  # [E] int32, ids of the labels' kind, 0 = padding: the training events not yet in the catalogue
    arrived: dict[str, Array]  # [E] int32, their ids of each other kind
    side: Mapping[str, Array] = {}  # frozen tables by name [capacity, ...], of the ids that have occurred
    listed: Array | None = None  # [V] bool: items that a ranking may contain beside those seen
    validation: Batch | None = None  # validation rows of all its increments [M, ...], padding not valid; for `end`


class Seen(NamedTuple):
    """Items to leave out of each row's ranking: `log[start:stop]`, at most S of them."""

    log: Array  # [E] int32
    start: Array  # [N] int32
    stop: Array  # [N] int32
    window: Array  # [S] int32, 0..S-1: carries the static S


class Ranks(NamedTuple):
    """A ranking of the whole catalogue for each row."""

    rank: Array  # [N] float32: candidates scored higher, ties counted as half; inf where the label is none
    recommended: Array  # [K's, V] int32: how often each item was among a row's first K
    scores: Array | None = None  # [N, V] float32 of a catalogue of at most 128, whose items are classes


class Memory(NamedTuple):
    """C rows of past examples. Found by type: every strategy that keeps rows keeps them in one."""

    rows: Batch  # the stored fields, leading axis C; `valid` says which slots are filled
    inserted: Array  # [] int32: rows offered so far


class Anchor(NamedTuple):
    """Parameters a strategy pulls towards or keeps. Found by type: it cannot be combined with a fresh start."""

    params: Params


class Teacher(NamedTuple):
    """Parameters a strategy distils from, at the end of the last increment; a fresh start may learn from them too."""

    params: Params
    ready: Array  # [] float32: 0 until the first increment is finished, then 1


class Program(NamedTuple):
    """What a driver runs: `make` builds it for a model with gradients, baselines build it directly."""

    init: Callable[[Array], State]  # (key)
    restart: Callable[[State, Data], State]  # parameters, moments and catalogue afresh
    begin: Callable[[State, Data], State]
    base_epoch: Callable[[State, Data], tuple[State, Info]] | None
    """an epoch of the base part: plain training, of which strategies keep their books; None: it is as any other"""
    run_epoch: Callable[[State, Data], tuple[State, Info]]
    """an epoch of an increment"""
    validate: Callable[[State, Data, Seen | None], State]
    end: Callable[[State, Data], State]
    rank: Callable[[State, Data, Seen | None], Ranks]
    scores: Callable[[State, dict[str, Array]], Array]  # -> [B, V] float32, -inf where not a candidate
    represent: Callable[[State, dict[str, Array]], Array] | None  # -> [B, D] float32; None: the model has none
    tables: Callable[[State], dict[str, dict[str, Array]]]  # kind -> path -> table, a row an id
    inputs: Mapping[str, Input]  # what an example's inputs hold
    epochs: int  # at most, in one update
    keeps: bool  # an update ends with its best epoch, which may be another than the last
    cutoffs: tuple[int, ...]  # the K's whose recommendations `rank` counts
    sizes: Sizes
    counting: bool = False  # an update's rows are all events that arrived, those of the validation part too, each once
    shardings: Callable[[PyTree], PyTree] | None = None  # of a tree's leaves over several devices
    at: "Callable[[Array], Program] | None" = None  # (texts [V, ...]): see `incremental.core.tower`; None: needs none
    following: tuple[str, ...] = ()  # strategies, the head's too, whose `record` follows the steps
    early: tuple[str, ...] = ()  # strategies that act in the base part too


def bytes_of(tree: PyTree) -> int:
    """Bytes of a tree's arrays (PRNG keys apart)."""
    return sum(
        leaf.nbytes for leaf in jax.tree.leaves(tree) if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
