"""Row compaction: a step costs what its batch touches, not what the catalogue holds.

An optimizer moves every row of every table. With `training.rows=compact` a step, after the `batch` hooks, collects the
ids in its batch, takes those rows of the id tables and of every leaf that mirrors one (moments, Fishers, anchors,
teachers: found by path and shape), renames the ids to 0..U-1, runs as it would on whole tables, and writes the rows
back. Model, head, optimizer and strategies are the same ones.

Exact is what leaves a row without a gradient alone: SGD and AdaGrad on the data loss, clipping, replay, A-GEM, DER.
Lazy is what would move such a row; it now happens only in the steps that touch it: the decay of moments and what they
still move (momentum; Adam becomes "lazy Adam"), weight decay, and a penalty's pull on rows that have drifted (its value
in the log sums over touched rows). Refused is what needs the whole catalogue: heads that score it (full softmax),
strategies that read its scores (lwf, ader), whose own state is as large without mirroring a table (ogd) or follows the
weights themselves (ema), or that leave a whole table in the batch's memory (sa_caisr), and `accumulate`, whose mean
gradient reaches rows that the last of its steps did not touch.
That is found out when the step is traced: in place of what it must not read a hook gets `Whole`, so that a strategy
which nobody here knows is refused too. What cannot be found out is a hook that treats the rows it gets as if they were
all: a table's norm, say.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.ids import Ids
from incremental.core.mirrors import mirrored, path_of
from incremental.core.packing import of_all_lanes
from incremental.core.spec import Sizes
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Learner, Loss, Memory, Net, Outputs, Params, Problem, PyTree, Step
from incremental.errors import UserError

SHARE = 8
REMEDY = "use training.rows=dense, or leave it out"
LOSS, RECORD, SCORES = Strategy().loss, Strategy().record, Strategy().scores

Kind = str | None  # "item", "user", or not a row an id
Path = jax.tree_util.KeyPath
Descend = Callable[..., tuple[Learner, PyTree, Loss]]
"""(learner, shown, own, batch, noted, ids) -> (learner, own, loss): one optimizer step on `batch`; its ids are rows
of the learner's tables: by kind, those of the catalogue's `ids`. `shown` are the strategies' states for the hooks that
meet it, `own` and `noted` state and batch for `record`, which keeps the catalogue's ids."""


class Whole:
    """Stands for what a compact step must not read. It may be passed on and sliced; anything else is refused."""

    def __init__(self, what: str) -> None:
        vars(self)["what"] = what

    def refuse(self, *_: Any) -> NoReturn:
        raise UserError(f"training.rows=compact: {vars(self)['what']}, but a step has a few rows only; {REMEDY}")

    def __getattr__(self, name: str) -> NoReturn:
        self.refuse()

    def __getitem__(self, _: Any) -> "Whole":
        return self

    def __len__(self) -> int:
        self.refuse()


for _name in set(dir(jax.Array)) - set(dir(Whole)):  # operators, which Python looks up in the class
    if _name.startswith("__"):
        setattr(Whole, _name, Whole.refuse)


# -- ids ---------------------------------------------------------------------------------------------------------------


def with_ids(function: Callable[[str, Array], Array], batch: Batch, problem: Problem) -> Batch:
    """The batch with `function(kind, ids)` for each array of ids in it, and in the rows that travel in its memory."""

    def within(leaf: Any) -> Any:
        return with_ids(function, leaf, problem) if isinstance(leaf, Batch) else leaf

    def of(name: str, ids: Array) -> Array:
        kind = problem.inputs[name].kind
        return ids if kind is None else function(kind, ids)

    negatives = batch.negatives
    if negatives is not None:  # in one row, for a list is of ids that repeat
        negatives = function(problem.labels, negatives.reshape(-1)).reshape(negatives.shape)
    return batch._replace(
        inputs={name: of(name, ids) for name, ids in batch.inputs.items()},
        labels=function(problem.labels, batch.labels),
        negatives=negatives,
        memory=jax.tree.map(within, batch.memory, is_leaf=lambda leaf: isinstance(leaf, Batch)),
    )


def arrays_of(batch: Batch, kinds: Iterable[str], problem: Problem) -> dict[str, list[Array]]:
    """The arrays of ids of each kind in the batch, and row 0."""
    found: dict[str, list[Array]] = {kind: [jnp.zeros(1, jnp.int32)] for kind in kinds}

    def note(kind: str, ids: Array) -> Array:
        if kind in found:
            found[kind].append(ids)
        return ids

    with_ids(note, batch, problem)
    return found


def ascending(arrays: list[Array]) -> Array:
    """Their ids [U] int32."""
    return jnp.sort(jnp.concatenate([ids.reshape(-1) for ids in arrays]))


def touched(batch: Batch, capacity: dict[str, int], problem: Problem) -> dict[str, Array]:
    """The ids of each kind [U] int32, ascending, row 0 among them; of a repeated one the first place counts.

    A kind with no more rows than the batch has ids is left out: its tables stay whole.
    """
    found = {kind: ascending(arrays) for kind, arrays in arrays_of(batch, capacity, problem).items()}
    return {kind: ids for kind, ids in found.items() if len(ids) < capacity[kind]}


def different(batch: Batch, capacity: dict[str, int], problem: Problem) -> tuple[dict[str, Array], Array]:
    """As `touched`, with room for fewer ids, those in lists divided by `SHARE`, and if there is room for all that
    differ, [] bool."""
    found, fits = {}, jnp.array(True)
    for kind, arrays in arrays_of(batch, capacity, problem).items():
        room = sum(-(-ids.size // (SHARE if ids.ndim > 1 else 1)) for ids in arrays)
        if room < capacity[kind]:
            ids = ascending(arrays)
            new = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
            place = jnp.where(new, jnp.cumsum(new) - 1, room)
            found[kind] = jnp.full(room, ids[-1]).at[place].set(ids, mode="drop")
            fits = fits & (new.sum() <= room)
    return found, fits


def renamed(batch: Batch, ids: dict[str, Array], problem: Problem) -> Batch:
    """The batch with each id's first place among `ids`."""

    def place(kind: str, old: Array) -> Array:
        return jnp.searchsorted(ids[kind], old).astype(old.dtype) if kind in ids else old

    return with_ids(place, batch, problem)


# -- rows --------------------------------------------------------------------------------------------------------------


def places(ids: Array, capacity: int) -> Array:
    """`ids` [U] without what is repeated: in its stead `capacity` and more, so that no two are equal."""
    repeated = jnp.concatenate([jnp.zeros(1, bool), ids[1:] == ids[:-1]])
    return jnp.where(repeated, capacity + jnp.arange(len(ids), dtype=ids.dtype), ids)


def take(leaf: Array, kind: Kind, ids: dict[str, Array]) -> Array:
    """The leaf's rows of `ids`. Spare ones are 0 in every leaf, so that no norm and no penalty counts them."""
    return leaf.at[places(ids[kind], len(leaf))].get(mode="fill", fill_value=0) if kind in ids else leaf


def put(leaf: Array, kind: Kind, rows: Array, ids: dict[str, Array]) -> Array:
    """The leaf with its rows of `ids` replaced; spare ones are dropped."""
    if kind not in ids:
        return rows
    return leaf.at[places(ids[kind], len(leaf))].set(rows, mode="drop", unique_indices=True)


def by_type(leaf: Any) -> bool:
    """Nodes that are treated as one leaf: the rows of a memory keep the catalogue's ids, a net has none."""
    return isinstance(leaf, Memory | Net | Ids)


def compacted(problem: Problem, sizes: Sizes) -> Callable[..., tuple[Learner, PyTree, Loss]]:
    """(descend, learner, own, batch) -> (learner, own, loss): the step on the rows that the batch touches."""
    params = {path_of(path): leaf for path, leaf in paths(jax.eval_shape(problem.init, jax.random.key(0)))}
    shapes = {name: leaf.shape for name, leaf in params.items()}
    kinds = {*problem.tables.values(), *problem.settled.values()}
    capacity = {kind: number for kind, number in sizes.items() if kind in kinds}

    def kind_of(path: Path, leaf: Any) -> Kind:
        """Of a leaf that mirrors an id table."""
        return problem.tables.get(mirrored(path, leaf, shapes) or "")

    def large(path: Path, leaf: Any) -> bool:
        """Whether a leaf has the size of a table and is no mirror."""
        return bool({*capacity.values()} & {*jnp.shape(leaf)}) and kind_of(path, leaf) is None

    def taken(tree: PyTree, ids: dict[str, Array]) -> PyTree:
        def of(path: Path, leaf: Any) -> Any:
            if isinstance(leaf, Ids):
                others = {kind: take(known, kind, ids) for kind, known in leaf.others.items()}
                return Ids(take(leaf.labels, problem.labels, ids), others)
            return leaf if by_type(leaf) else take(leaf, kind_of(path, leaf), ids)

        return jax.tree_util.tree_map_with_path(of, tree, is_leaf=by_type)

    def put_back(tree: PyTree, small: PyTree, ids: dict[str, Array]) -> PyTree:
        def of(path: Path, leaf: Any, rows: Any) -> Any:
            if isinstance(leaf, Ids):
                return leaf  # only `begin` and `end` change these
            return rows if by_type(leaf) else put(leaf, kind_of(path, leaf), rows, ids)

        return jax.tree_util.tree_map_with_path(of, tree, small, is_leaf=by_type)

    def shown(own: PyTree, small: PyTree) -> PyTree:
        """The strategies' states for hooks that meet renamed ids."""

        def of(path: Path, leaf: Any, rows: Any) -> Any:
            if by_type(leaf) or not large(path, leaf):
                return rows
            name, _, place = path_of(path).partition("/")
            shape = "x".join(map(str, leaf.shape))
            return Whole(f"strategies.{name} reads its state {place or 'S'} ({shape}), which has the catalogue's size")

        return jax.tree_util.tree_map_with_path(of, own, small, is_leaf=by_type)

    def travelling(memory: PyTree) -> PyTree:
        """What strategies left in the batch, for hooks that meet renamed ids."""

        def of(path: Path, leaf: Any) -> Any:
            if by_type(leaf) or kind_of(path, leaf) is None:
                return leaf
            name, _, place = path_of(path).partition("/")
            return Whole(f"strategies.{name} leaves a whole table in the batch's memory ({place})")

        return jax.tree_util.tree_map_with_path(of, memory, is_leaf=by_type)

    def recorded(small: PyTree) -> PyTree:
        """The strategies' states for `record`, which meets the catalogue's ids."""

        def of(path: Path, leaf: Any) -> Any:
            name = path_of(path).partition("/")[0]
            said: Any = Whole(f"strategies.{name} reads in `record` which ids it has met")
            return Ids(said, dict.fromkeys(leaf.others, said)) if isinstance(leaf, Ids) else leaf

        return jax.tree_util.tree_map_with_path(of, small, is_leaf=by_type)

    def refuse(learner: Learner) -> None:
        for node in jax.tree.leaves(learner.opt_state, is_leaf=lambda node: isinstance(node, optax.MultiStepsState)):
            if isinstance(node, optax.MultiStepsState):
                raise UserError(
                    "training.rows=compact: optimizer.accumulate collects gradients over several steps, but each has "
                    f"rows of its own; set optimizer.accumulate=1 and raise training.batch_size, or {REMEDY}"
                )
        for name, tree in (("model", learner.params), ("optimizer", learner.opt_state)):
            for path, leaf in paths(tree):
                if large(path, leaf):
                    raise UserError(
                        f"training.rows=compact: {name}: {path_of(path)} {jnp.shape(leaf)} has the catalogue's size "
                        f"but is no table with a row an id, nor like one; {REMEDY}"
                    )

    def on(
        ids: dict[str, Array], descend: Descend, learner: Learner, own: PyTree, batch: Batch
    ) -> tuple[Learner, PyTree, Loss]:
        small, state = taken(learner, ids), taken(own, ids)
        candidates: Any = Whole("the head reads who is a candidate, to score all (choose one that draws negatives)")
        named = renamed(batch, ids, problem)
        named = named._replace(candidates=candidates, memory=travelling(named.memory))
        small, state, loss = descend(small, shown(own, state), recorded(state), named, batch, ids)
        return put_back(learner, small, ids), put_back(own, state, ids), loss

    def step(descend: Descend, learner: Learner, own: PyTree, batch: Batch) -> tuple[Learner, PyTree, Loss]:
        refuse(learner)
        ids = touched(batch, capacity, problem)
        if problem.sequence is None:
            return on(ids, descend, learner, own, batch)
        # Histories that share runs hold few different ids: a step on these, and one on all for a batch with more. Each
        # is a loop of one turn or none, whose buffers XLA updates in place, where a `cond` would copy the tables.
        few, fits = different(batch, capacity, problem)
        fits = ~of_all_lanes(~fits)
        turn = jax.jit(lambda ids, learner, own: on(ids, descend, learner, own, batch), inline=True)
        loss = jax.eval_shape(turn, ids, learner, own)[2]  # the trace that the second loop needs
        carry = learner, own, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), loss)
        for chosen, rows in ((fits, few), (~fits, ids)):
            carry = jax.lax.fori_loop(
                0, chosen.astype(int), lambda _, carry, rows=rows: turn(rows, carry[0], carry[1]), carry
            )
        return carry

    return step


def paths(tree: PyTree) -> list[tuple[Path, Any]]:
    """The leaves with their paths."""
    return jax.tree_util.tree_leaves_with_path(tree)


def dense(descend: Descend, learner: Learner, own: PyTree, batch: Batch) -> tuple[Learner, PyTree, Loss]:
    """The step on whole tables."""
    return descend(learner, own, own, batch, batch, {})


# -- what hooks are given ----------------------------------------------------------------------------------------------


def guarded_problem(problem: Problem) -> Problem:
    """The problem with a loss that cannot read the scores of the catalogue."""

    def loss(params: Params, outputs: Outputs, batch: Batch) -> Array:
        scores: Any = Whole("the head reads the scores of all items (choose one that draws negatives)")
        return problem.loss(params, outputs._replace(scores=scores), batch)

    return problem._replace(loss=loss)


def guarded(name: str, part: Strategy, problem: Problem) -> Strategy:
    """The strategy with hooks that cannot read the scores of the catalogue nor, in `record`, the tables."""
    scores: Any = Whole(f"strategies.{name} reads the scores of all items")
    weights = Whole(f"strategies.{name} reads the tables' weights in `record`, not only how they moved")

    def loss(state: PyTree, params: Params, batch: Batch, outputs: Outputs) -> Any:
        return part.loss(state, params, batch, outputs._replace(scores=scores))

    def record(state: PyTree, step: Step, key: Array) -> PyTree:
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: weights if path_of(path) in problem.tables else leaf, step.params
        )
        return part.record(state, step._replace(params=params, outputs=step.outputs._replace(scores=scores)), key)

    def corrected(state: PyTree, own: Array, inputs: dict[str, Array], training: bool) -> Array:
        changed = part.scores(state, scores if training else own, inputs, training)
        return own if changed is scores else changed

    return part._replace(
        loss=part.loss if part.loss is LOSS else loss,
        record=part.record if part.record is RECORD else record,
        scores=part.scores if part.scores is SCORES else corrected,
    )
