"""The steps of training as functions of their own: `make` puts them together, and so may any other builder of a
`Program`.

From small to large: `data_loss`, `penalties` and `DataGradient` say what is descended, `descend` is one optimizer step
on some table rows, `step` one on a batch, `epoch` a loop of them over an update's examples. `begin`, `validate` and
`end` stand around the epochs. All of them are pure, work under `jit` and `vmap`, and take a `Setup`: the problem, the
strategies and the optimizer. Plain training inside an increment is `core.inner`.

Keys derive from (seed, increment, epoch, step), never from counters, so that going back to the best epoch cannot repeat
draws.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.compaction import Whole, dense
from incremental.core.optimizers import renewed, restarted
from incremental.core.order import shuffled
from incremental.core.prefixes import by_runs
from incremental.core.sharding import split
from incremental.core.spec import Sizes
from incremental.core.strategy import Strategy, after_base, named_key
from incremental.core.types import (
    STORED,
    Batch,
    Broken,
    Catalogue,
    Data,
    Fit,
    Info,
    Learner,
    Loss,
    Outputs,
    Params,
    Problem,
    PyTree,
    State,
    Step,
    stored,
    with_labels,
    with_negatives,
)
from incremental.errors import UserError

ROUNDING = 1e-3  # what rounding may take a data loss below 0


class Setup(NamedTuple):
    """What a step is made of.

    Attributes:
        problem
        strategy: a chain, the head's own strategy in it as "head"
        tx
        on_rows: (descend, learner, S, batch): the step on whole tables, or on the rows that its batch touches
        of_items: (ids [U] int32) -> the same on these items alone; None: items are not computed (`core.tower`)
    """

    problem: Problem
    strategy: Strategy
    tx: optax.GradientTransformationExtraArgs
    on_rows: Callable[..., tuple[Learner, PyTree, Loss]] = dense
    of_items: Callable[[Array], "Setup"] | None = None


# -- the start of things -----------------------------------------------------------------------------------------------


def empty_catalogue(sizes: Sizes) -> Catalogue:
    """Nothing seen yet."""
    others = {kind: jnp.zeros(size, bool) for kind, size in sizes.items() if kind != sizes.labels}
    return Catalogue(jnp.zeros(sizes.slots, bool), jnp.zeros(sizes.slots, jnp.float32), others)


def count_arrivals(catalogue: Catalogue, data: Data) -> Catalogue:
    """The catalogue with the update's new events, and what is listed; id 0 is padding and stays unseen."""
    count = catalogue.events.at[data.events].add(1.0).at[0].set(0.0)
    others = {
        kind: known.at[data.arrived[kind]].set(True).at[0].set(False) for kind, known in catalogue.arrived.items()
    }
    seen = catalogue.seen | (count > 0)
    return Catalogue(seen if data.listed is None else seen | data.listed, count, others)


def fresh_fit(least: Any = 0, offered: Any = -1) -> Fit:
    """The start of an increment's training: no epoch run, anything is better than nothing."""
    none, zero, yes = jnp.float32(-jnp.inf), jnp.int32(0), jnp.array(True)
    return Fit(none, zero, zero, yes, none, yes, jnp.int32(least), jnp.int32(offered))


def new_learner(setup: Setup, sizes: Sizes, key: Array) -> Learner:
    """Random weights, before the base part."""
    params = setup.problem.init(named_key(key, "params"))
    return Learner(params, setup.tx.init(params), empty_catalogue(sizes), jnp.int32(-1))


def phase_key(state: State, name: str) -> Array:
    """The key of a part of the increment's training, such as "begin"."""
    return named_key(jax.random.fold_in(state.key, state.learner.increment), name)


# -- what is descended -------------------------------------------------------------------------------------------------


def data_loss(
    setup: Setup, params: Params, own: PyTree, increment: Array, batch: Batch, scale: Array, key: Array | None
) -> tuple[Array, Outputs]:
    """Σ w ℓ / `scale` over the valid examples, float32, and the outputs that ℓ is read from.

    The model sees `params` through the strategies' `view`, in their states `own`; `key` is that of its dropout.
    """
    viewed = setup.problem.settle(setup.strategy.view(own, params, increment, True))
    outputs = setup.problem.apply(viewed, batch.inputs, key=key)
    outputs = outputs._replace(scores=setup.strategy.scores(own, outputs.scores, batch.inputs, True))
    rows = setup.problem.loss(viewed, outputs, batch)
    # `where` keeps a padding row's non-finite loss out, and the second one out of the gradient.
    weight = jnp.where(batch.valid, batch.weight, 0.0)
    return jnp.where(batch.valid, weight * rows, 0.0).sum() / scale, outputs


def total_weight(batch: Batch) -> Array:
    """Σ w over the valid examples, float32."""
    return jnp.where(batch.valid, batch.weight, 0.0).sum()


def penalties(setup: Setup, params: Params, own: PyTree, batch: Batch, outputs: Outputs) -> Params:
    """The gradient of the strategies' loss terms alone, the outputs held fixed."""

    def terms(params: Params) -> Array:
        given = setup.strategy.loss(own, params, batch, jax.lax.stop_gradient(outputs))
        return jnp.float32(0.0) + sum(jax.tree.leaves(given))

    return jax.grad(terms)(params)


@dataclass(frozen=True, eq=False)
class DataGradient:
    """`grad_fn` of the hook `grads`: gradients of the data loss, with the step's dropout, negatives and candidates."""

    setup: Setup
    params: Params
    own: PyTree  # the strategies' states
    increment: Array  # [] int32
    batch: Batch  # the step's
    key: Array  # of dropout

    def __call__(self, batch: Batch, params: Params = None) -> Params:
        """The gradient of Σ w ℓ / Σ w over these examples, at `params`; None: at those of the step."""
        scale = jnp.maximum(total_weight(batch), 1e-6)
        return self._at(params, self._beside(batch), scale, self.key)

    def examples(self, batch: Batch, params: Params = None) -> Params:
        """The gradient of w ℓ for each example alone, leading axis B; 0 for one that is not valid.

        The sum over B, divided by Σ w, is `grad_fn(batch)`, dropout apart: each example has its own. Works on table
        rows as well, which saves most of the B times as many numbers as parameters. Refused where an example's loss
        reads the batch's other examples, as where their labels are its negatives (`Head.together`): its gradient would
        hold theirs, and clipping it would bound nobody's share.
        """
        if self.setup.problem.together:
            raise UserError(
                "grad_fn.examples: the head's loss of an example reads its batch's other examples (in_batch_softmax "
                "has their labels as negatives), so that it has no gradient of its own; choose a head that draws its "
                "negatives from the catalogue, such as sampled_softmax, or the full softmax"
            )
        beside = self._beside(batch)
        own = beside.negatives is not None and beside.negatives.ndim > 1
        names = (*STORED, "negatives", "log_q") if own else STORED

        def of(row: dict[str, Any], key: Array) -> Params:
            one = beside._replace(**jax.tree.map(lambda leaf: leaf[None], row))
            return self._at(params, one, jnp.float32(1.0), key)

        rows = {name: getattr(beside, name) for name in names}
        return jax.vmap(of)(rows, jax.random.split(self.key, len(batch.labels)))

    def _at(self, params: Params, rows: Batch, scale: Array, key: Array) -> Params:
        def loss(params: Params) -> Array:
            return data_loss(self.setup, params, self.own, self.increment, rows, scale, key)[0]

        return jax.grad(loss)(self.params if params is None else params)

    def _beside(self, batch: Batch) -> Batch:
        """The examples with what the step has drawn for its own."""
        step = self.batch
        batch = batch._replace(candidates=step.candidates, negatives=step.negatives, log_q=step.log_q)
        batch = with_negatives(batch)
        if step.candidates is not None and not isinstance(step.candidates, Whole):
            batch = batch._replace(candidates=with_labels(step.candidates, batch))
        return batch


# -- one step ----------------------------------------------------------------------------------------------------------


def arrived_rows(problem: Problem, params: Params, catalogue: Catalogue, ids: Mapping[str, Array]) -> Params:
    """Bools that broadcast to the parameters: False for the table rows of ids that are still to come, and of padding.
    Tables of a kind in `ids` hold the rows of these ids only."""
    seen = {problem.labels: catalogue.seen, **catalogue.arrived}

    def of(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        kind = problem.tables.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        if kind is None:
            return jnp.array(True)
        arrived = seen[kind][ids[kind]] if kind in ids else seen[kind]
        return arrived.reshape(-1, *[1] * (leaf.ndim - 1))

    return jax.tree_util.tree_map_with_path(of, params)


def step(setup: Setup, state: State, new: Batch, number: Array, key: Array) -> tuple[State, Loss]:
    """One optimizer step: on `new` [B] and on what the strategies append; `number` [] int32 is its place in the update.

    Data loss: Σ_new w ℓ / Σ_new w + Σ_appended w ℓ / B.
    """
    new = new._replace(candidates=state.learner.catalogue.seen, step=number, own=len(new.labels))
    batch = setup.strategy.batch(state.strategy, new, named_key(key, "batch"))
    batch = with_negatives(batch._replace(**split({name: getattr(batch, name) for name in STORED})))
    if batch.candidates is not None:
        batch = batch._replace(candidates=with_labels(batch.candidates, batch))
    descent = partial(descend, setup, new=new, first_pass=state.fit.epoch == 0, before=state.fit.offered, key=key)
    learner, own, loss = setup.on_rows(descent, state.learner, state.strategy, batch)
    return state._replace(learner=learner, strategy=own), loss


def descend(
    setup: Setup,
    learner: Learner,
    own: PyTree,
    kept: PyTree,
    batch: Batch,
    noted: Batch,
    ids: dict[str, Array],
    *,
    new: Batch,
    first_pass: Array,
    before: Array,
    key: Array,
) -> tuple[Learner, PyTree, Loss]:
    """One optimizer step of `learner` on `batch`, by the strategies' states `own`; `record` gets `kept` and `noted`.

    `ids` are those whose table rows the learner holds, by kind; a kind that is not in it has its whole table. `new`,
    `first_pass` and `before` are those of `Step`.
    """
    if setup.of_items is not None and (kind := next(iter(setup.problem.settled.values()))) in ids:
        setup = setup.of_items(ids[kind])
    strategy, params = setup.strategy, learner.params
    scale = total_weight(new)
    # After the division by `scale` an appended row's weight is divided by the batch size.
    appended = jnp.arange(len(batch.labels)) >= len(new.labels)
    weighed = batch._replace(weight=jnp.where(appended, batch.weight * (scale / len(new.labels)), batch.weight))
    model_key = named_key(key, "model")

    def objective(params: Params) -> Any:
        data, outputs = data_loss(setup, params, own, learner.increment, weighed, scale, model_key)
        terms = strategy.loss(own, params, batch, outputs)
        return data + sum(jax.tree.leaves(terms)), (outputs, {"data": data, **terms})

    (loss, (outputs, terms)), grads = jax.value_and_grad(objective, has_aux=True)(params)
    penalty = penalties(setup, params, own, batch, outputs)  # where no strategy reads it, XLA drops it
    grad_fn = DataGradient(setup, params, own, learner.increment, batch, model_key)
    chosen = strategy.grads(own, grads, params, grad_fn, batch, named_key(key, "grads"))
    arrived = arrived_rows(setup.problem, params, learner.catalogue, ids)
    updates, opt_state = setup.tx.update(chosen, learner.opt_state, params, arrived=arrived)
    updates = strategy.updates(own, updates, params)
    seen = Step(noted, new, outputs, grads, penalty, updates, params, first_pass, before)
    kept = strategy.record(kept, seen, named_key(key, "record"))
    learner = learner._replace(params=optax.apply_updates(params, updates), opt_state=opt_state)
    return learner, kept, Loss(loss, terms, batch.valid.sum())


# -- an increment ------------------------------------------------------------------------------------------------------


def begin(setup: Setup, state: State, data: Data, *, reset: bool, fit: Callable[..., Any]) -> State:
    """The update with `data` begun; with `reset` the optimizer's moments are new ones. `fit(learner, S, begun)` is
    `core.inner`."""
    least, offered = state.fit.least, state.learner.increment
    learner = state.learner._replace(catalogue=count_arrivals(state.learner.catalogue, data), increment=data.increment)
    if reset:
        learner = learner._replace(opt_state=renewed(setup.tx.init(learner.params), learner.opt_state))
    learner = learner._replace(opt_state=restarted(learner.opt_state))
    state = state._replace(learner=learner)
    key = phase_key(state, "begin")
    training = fit(learner, state.strategy, (data, key))
    own, learner = setup.strategy.begin(state.strategy, learner, data, key, fit=training)
    return State(learner, own, fresh_fit(least, offered), state.key)


def end(setup: Setup, state: State, data: Data, *, fit: Callable[..., Any]) -> State:
    """The update finished, from the state that its best epoch left."""
    own, learner, key = state.strategy, state.learner, phase_key(state, "end")
    own, learner = setup.strategy.end(own, learner, data, key, fit=fit(learner, own))
    return State(learner, own, fresh_fit(), state.key)


def batches(size: Array, batch_size: int) -> Array:
    """[] int32: the steps of an epoch over so many rows."""
    return (size + batch_size - 1) // batch_size


def epoch(setup: Setup, state: State, data: Data, *, batch_size: int) -> tuple[State, Info]:
    """Steps over all examples of `data`, in a new order; a loop whose number of steps is traced.

    The order is uniform over the examples or, where those of a run share the model's work, over the runs.
    """
    capacity = data.rows.labels.shape[0]
    key = jax.random.fold_in(phase_key(state, "epoch"), state.fit.epoch)
    draw, sequence = named_key(key, "order"), setup.problem.sequence
    if sequence is None:
        order = shuffled(draw, data.size, capacity)
    else:
        order = by_runs(draw, data.rows, data.rows.inputs[sequence], data.size)
    steps = batches(data.size, batch_size)
    own = setup.strategy.prepare(state.strategy, state.learner, data, named_key(key, "prepare"))
    state = state._replace(strategy=own)

    @partial(jax.jit, inline=True)  # traced once, for the shapes of its loss and for the loop
    def one(state: State, i: Array) -> tuple[State, Loss]:
        place = i * batch_size + jnp.arange(batch_size)
        new = jax.tree.map(lambda rows: rows[order[jnp.minimum(place, capacity - 1)]], stored(data.rows))
        new = new._replace(valid=new.valid & (place < data.size))
        return step(setup, state, new, state.fit.epoch * steps + i, jax.random.fold_in(key, i))

    def body(i: Array, carry: tuple[State, Loss, Broken]) -> tuple[State, Loss, Broken]:
        state, sums, broken = carry
        state, loss = one(state, i)
        below = (loss.terms["data"] < -ROUNDING) & (not setup.problem.negative)
        wrong = ~jnp.isfinite(loss.total) | below
        first = (broken.step < 0) & wrong
        broken = jax.tree.map(lambda new, old: jnp.where(first, new, old), Broken(i, loss.terms), broken)
        return state, jax.tree.map(jnp.add, sums, loss), broken

    shapes = jax.eval_shape(lambda state: one(state, 0)[1], state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state, sums, broken = jax.lax.fori_loop(0, steps, body, (state, zeros, Broken(jnp.int32(-1), zeros.terms)))
    fit = state.fit._replace(epoch=state.fit.epoch + 1, active=state.fit.active & (broken.step < 0))
    loss, terms = jax.tree.map(lambda total: total / steps, (sums.total, sums.terms))
    state = state._replace(fit=fit)
    return state, Info(loss, terms, sums.examples, steps, broken, setup.strategy.report(state.strategy))


def validate(
    state: State,
    data: Data,
    ranks: Array,
    due: Array | bool = True,
    *,
    metric: Callable[[Array, Data], Array],
    patience: int,
    epochs: int,
) -> State:
    """Notes whether the epoch is the best so far by `metric` of the `ranks` [N] float32 of the examples of `data`.

    With an empty validation part, or `patience` 0, the last always is. An epoch that is not `due` counts neither way.
    `epochs` is their greatest number.
    """
    fit = state.fit
    value = metric(ranks, data)
    always = (data.size == 0) | (patience == 0)
    better = always | (due & (value > fit.value))
    bad = jnp.where(better | (fit.epoch <= fit.least), 0, fit.bad + jnp.int32(due))
    best_value = jnp.where(better, value, fit.value)
    last = jnp.where((data.size > 0) & due, value, -jnp.inf)
    active = fit.active & (always | (bad < patience)) & (fit.epoch < epochs)
    return state._replace(fit=fit._replace(value=best_value, bad=bad, active=active, last=last, better=better))


# -- evaluation --------------------------------------------------------------------------------------------------------


def evaluated(setup: Setup, state: State) -> State:
    """The state with the parameters that the model sees in an evaluation: for a ranking they are computed once."""
    params = setup.strategy.view(state.strategy, state.learner.params, state.learner.increment, False)
    return state._replace(learner=state.learner._replace(params=setup.problem.settle(params)))


def outputs(setup: Setup, state: State, inputs: dict[str, Array]) -> Outputs:
    """What the model of an `evaluated` state says of some examples."""
    return setup.problem.apply(state.learner.params, split(inputs))


def raw_scores(setup: Setup, base: Setup, state: State, inputs: dict[str, Array]) -> Array:
    """[B, V] float32: the scores of an `evaluated` state with the strategies' corrections; in the base part those of
    the strategies that act there."""
    said, own = outputs(setup, state, inputs).scores, state.strategy
    corrected, early = (each.strategy.scores(own, said, inputs, False) for each in (setup, base))
    return after_base(state.learner.increment, corrected, early)
