"""`make`: a problem, an optimizer and strategies become the functions of one `Program`.

The compiled unit is an epoch: a loop with a traced number of steps over batches gathered on the device. Keys derive
from (seed, increment, epoch, step), never from counters, so that going back to the best epoch cannot repeat draws.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax import Array

from incremental.core.compaction import compacted, dense, guarded, guarded_problem
from incremental.core.optimizers import restarted
from incremental.core.precision import Precision, multiplying
from incremental.core.ranking import rankable, ranker
from incremental.core.sharding import split
from incremental.core.strategy import Strategy, books, chain, named_key
from incremental.core.types import (
    Batch,
    Catalogue,
    Data,
    Fit,
    Learner,
    Outputs,
    Params,
    Problem,
    Program,
    Seen,
    Sizes,
    State,
    Step,
    stored,
    with_labels,
)
from incremental.core.untied import refuse_copies
from incremental.errors import UserError
from incremental.metrics.ranking import per_event

ROUNDING = 1e-3  # what rounding may take a data loss below 0


class Training(NamedTuple):
    """How one increment is trained."""

    batch_size: int = 256
    epochs: int = 20
    """at most, in one increment"""
    patience: int = 3
    """epochs without a better validation value before training stops; 0 = all epochs, the last one kept"""
    least_epochs: int = 10
    """epochs before patience counts, where training starts from random weights: the base part, an update afresh"""
    metric: str = "ndcg@10"
    """of the increment's validation part"""
    moments: Literal["keep", "reset"] = "keep"
    """the optimizer's state at an increment's start: the last one's, or as new"""
    rows: Literal["dense", "compact"] = "dense"
    """of the id tables that a step works on: all, or those of its batch (`core.compaction`: what is then lazy)"""
    precision: Precision = "float32"
    """of the model's arithmetic; parameters and all that mirrors them are float32 in any case"""


def training(
    *,
    batch_size: int = 256,
    epochs: int = 20,
    patience: int = 3,
    least_epochs: int = 10,
    metric: str = "ndcg@10",
    moments: Literal["keep", "reset"] = "keep",
    rows: Literal["dense", "compact"] = "dense",
    precision: Precision = "float32",
) -> Training:
    """`Training`, checked."""
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("epochs", epochs, 1),
        ("patience", patience, 0),
        ("least_epochs", least_epochs, 0),
    ):
        if value < least:
            raise UserError(f"training.{name}={value}: expected at least {least}")
    per_event(metric)
    return Training(batch_size, epochs, patience, least_epochs, metric, moments, rows, precision)


def empty_catalogue(sizes: Sizes) -> Catalogue:
    """Nothing seen yet."""
    return Catalogue(jnp.zeros(sizes.items, bool), jnp.zeros(sizes.items, jnp.float32), jnp.zeros(sizes.users, bool))


def count_arrivals(catalogue: Catalogue, data: Data) -> Catalogue:
    """The catalogue with the update's new events; id 0 is padding and stays unseen."""
    count = catalogue.events.at[data.items].add(1.0).at[0].set(0.0)
    return Catalogue(catalogue.seen | (count > 0), count, catalogue.users.at[data.users].set(True).at[0].set(False))


def fresh_fit(learner: Learner, strategy: Any, least: Any = 0, offered: Any = -1) -> Fit:
    """The start of an increment's training: no epoch run, anything is better than nothing."""
    none, zero = jnp.float32(-jnp.inf), jnp.int32(0)
    return Fit(learner, strategy, none, zero, zero, jnp.array(True), none, jnp.int32(least), jnp.int32(offered))


def arrived_rows(problem: Problem, params: Params, catalogue: Catalogue, ids: Mapping[str, Array]) -> Params:
    """Bools that broadcast to the parameters: False for the table rows of ids that are still to come. Tables of a kind
    in `ids` hold a batch's rows only, which are none of these."""
    seen = {"item": catalogue.seen, "user": catalogue.users}

    def of(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        kind = problem.tables.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        return jnp.array(True) if kind is None or kind in ids else seen[kind].reshape(-1, *[1] * (leaf.ndim - 1))

    return jax.tree_util.tree_map_with_path(of, params)


def shuffled(key: Array, size: Array, capacity: int) -> Array:
    """[capacity] int32: a uniform permutation of 0..size-1, then the padding rows."""
    draws = jax.random.uniform(key, (capacity,))
    return jnp.argsort(jnp.where(jnp.arange(capacity) < size, draws, 2.0)).astype(jnp.int32)


def make(
    problem: Problem,
    tx: optax.GradientTransformation,
    strategies: Mapping[str, Strategy] | Callable[[Problem], Mapping[str, Strategy]] | None = None,
    *,
    sizes: Sizes,
    training: Training = Training(),
    cutoffs: tuple[int, ...] = (),
    rank_batch_size: int = 256,
) -> Program:
    """The program that trains `problem` with `tx` under `strategies` (by name, applied in order), or those that a
    function makes for the problem: for each step anew where it is on a few items that are computed (`of_items`).

    The data loss of a step is Σ_new w ℓ / Σ_new w + Σ_appended w ℓ / B over the update's own rows and those that
    strategies append: appended rows add to the loss of the new ones instead of diluting it, and weigh the same beside a
    last batch of few rows as beside a full one. The base part is plain training: strategies keep their books there
    (`incremental.core.strategy.books`), those that are `early` and the head's own act. `cutoffs` are the K's whose
    recommendations `rank` counts.
    """
    compact = training.rows == "compact"

    def made(problem: Problem) -> tuple[Problem, dict[str, Strategy], tuple[Strategy, Strategy]]:
        """The problem and its strategies as the steps see them; their chain in an increment and in the base part."""
        parts = dict((strategies(problem) if callable(strategies) else strategies) or {})
        if problem.strategy is not None:
            if "head" in parts:
                raise UserError("strategies.head: the name 'head' belongs to the model's head; choose another")
            parts = {"head": problem.strategy._replace(early=True), **parts}
        if compact:
            parts = {name: guarded(name, part, problem) for name, part in parts.items()}
            problem = guarded_problem(problem)
        return problem, parts, (chain(**parts), chain(**{name: books(part) for name, part in parts.items()}))

    on_rows = compacted(problem, sizes) if compact else dense
    of_items = problem.of_items
    problem, parts, chains = whole = made(problem)
    strategy = chains[0]
    acts = any(books(part) != part for part in parts.values())  # else the base part is as any other
    if compact and of_items and strategies and not callable(strategies):
        raise UserError("make: compact rows of items that are computed need strategies as a function of the problem")
    tx = optax.with_extra_args_support(tx)
    batch_size = training.batch_size
    validation_metric = per_event(training.metric)

    def draw_learner(key: Array) -> Learner:
        params = problem.init(named_key(key, "params"))
        return Learner(params, tx.init(params), empty_catalogue(sizes), jnp.int32(-1))

    def init(key: Array) -> State:
        learner = draw_learner(key)
        own = strategy.init(learner)
        refuse_copies(learner.params, own)
        return State(learner, own, fresh_fit(learner, own, training.least_epochs), key)

    def restart(state: State, data: Data) -> State:
        learner = draw_learner(jax.random.fold_in(state.key, data.increment))
        fit = state.fit._replace(least=jnp.int32(training.least_epochs))
        return state._replace(learner=learner._replace(increment=state.learner.increment), fit=fit)

    def phase_key(state: State, name: str) -> Array:
        return named_key(jax.random.fold_in(state.key, state.learner.increment), name)

    def begin(state: State, data: Data) -> State:
        least, offered = state.fit.least, state.learner.increment
        learner = state.learner._replace(
            catalogue=count_arrivals(state.learner.catalogue, data), increment=data.increment
        )
        if training.moments == "reset":
            learner = learner._replace(opt_state=tx.init(learner.params))
        learner = learner._replace(opt_state=restarted(learner.opt_state))
        state = state._replace(learner=learner)
        own, learner = strategy.begin(state.strategy, learner, data, phase_key(state, "begin"))
        return State(learner, own, fresh_fit(learner, own, least, offered), state.key)

    def data_loss(
        problem: Problem,
        strategy: Strategy,
        params: Params,
        own: Any,
        increment: Array,
        batch: Batch,
        scale: Array,
        key: Any,
    ) -> Any:
        """Σ w ℓ / scale, and the outputs."""
        viewed = problem.settle(strategy.view(own, params, increment, True))
        outputs = problem.apply(viewed, batch.inputs, key=key)
        rows = problem.loss(viewed, outputs, batch)
        # `where` keeps a padding row's non-finite loss out, and the second one out of the gradient.
        weight = jnp.where(batch.valid, batch.weight, 0.0)
        return jnp.where(batch.valid, weight * rows, 0.0).sum() / scale, outputs

    def step(base: bool, state: State, new: Batch, number: Array, key: Array) -> tuple[State, dict[str, Any]]:
        strategy = chains[base]
        new = new._replace(candidates=state.learner.catalogue.seen, step=number)
        batch = strategy.batch(state.strategy, new, named_key(key, "batch"))
        batch = batch._replace(**split({name: getattr(batch, name) for name in Batch._fields[:5]}))
        if batch.candidates is not None:
            batch = batch._replace(candidates=with_labels(batch.candidates, batch))
        descent = partial(descend, base, new=new, first_pass=state.fit.epoch == 0, before=state.fit.offered, key=key)
        learner, own, metrics = on_rows(descent, state.learner, state.strategy, batch)
        return state._replace(learner=learner, strategy=own), metrics

    def descend(
        base: bool,
        learner: Learner,
        own: Any,
        kept: Any,
        batch: Batch,
        noted: Batch,
        ids: dict[str, Array],
        *,
        new: Batch,
        first_pass: Array,
        before: Array,
        key: Array,
    ) -> tuple[Learner, Any, dict[str, Any]]:
        """One optimizer step on `batch`, by the strategies' states `own`; `record` gets `kept` and `noted`."""
        here, _, own_chains = made(of_items(ids["item"])) if of_items and "item" in ids else whole
        strategy = own_chains[base]
        loss_of, params = partial(data_loss, here, strategy), learner.params
        scale = jnp.where(new.valid, new.weight, 0.0).sum()
        # After the division by `scale` an appended row's weight is divided by the batch size.
        appended = jnp.arange(len(batch.labels)) >= len(new.labels)
        weighed = batch._replace(weight=jnp.where(appended, batch.weight * (scale / len(new.labels)), batch.weight))
        model_key = named_key(key, "model")

        def objective(params: Params) -> Any:
            data, outputs = loss_of(params, own, learner.increment, weighed, scale, model_key)
            terms = strategy.loss(own, params, batch, outputs)
            return data + sum(jax.tree.leaves(terms)), (outputs, {"data": data, **terms})

        def grad_fn(rows: Batch) -> Params:
            weight = jnp.where(rows.valid, rows.weight, 0.0).sum()
            rows = rows._replace(candidates=batch.candidates, negatives=batch.negatives, log_q=batch.log_q)
            if batch.candidates is not None and not compact:
                rows = rows._replace(candidates=with_labels(batch.candidates, rows))
            return jax.grad(
                lambda params: loss_of(params, own, learner.increment, rows, jnp.maximum(weight, 1e-6), model_key)[0]
            )(params)

        (loss, (outputs, terms)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        # Where no strategy reads it, XLA drops it.
        penalty = jax.grad(
            lambda params: (
                jnp.float32(0.0)
                + sum(jax.tree.leaves(strategy.loss(own, params, batch, jax.lax.stop_gradient(outputs))))
            )
        )(params)
        chosen = strategy.grads(own, grads, params, grad_fn, batch)
        arrived = arrived_rows(here, params, learner.catalogue, ids)
        updates, opt_state = tx.update(chosen, learner.opt_state, params, arrived=arrived)
        updates = strategy.updates(own, updates, params)
        seen = Step(noted, new, outputs, grads, penalty, updates, params, first_pass, before)
        kept = strategy.record(kept, seen, named_key(key, "record"))
        learner = learner._replace(params=optax.apply_updates(params, updates), opt_state=opt_state)
        metrics = {"loss": loss, "terms": terms, "examples": batch.valid.sum()}
        return learner, kept, metrics

    def epoch(base: bool, state: State, data: Data) -> tuple[State, dict[str, Any]]:
        capacity = data.rows.labels.shape[0]
        key = jax.random.fold_in(phase_key(state, "epoch"), state.fit.epoch)
        order = shuffled(named_key(key, "order"), data.size, capacity)
        steps = (data.size + batch_size - 1) // batch_size

        def one(state: State, i: Array) -> tuple[State, dict[str, Any]]:
            place = i * batch_size + jnp.arange(batch_size)
            new = jax.tree.map(lambda rows: rows[order[jnp.minimum(place, capacity - 1)]], stored(data.rows))
            new = new._replace(valid=new.valid & (place < data.size))
            return step(base, state, new, state.fit.epoch * steps + i, jax.random.fold_in(key, i))

        def body(i: Array, carry: Any) -> Any:
            state, sums, broken = carry
            state, metrics = one(state, i)
            below = (metrics["terms"]["data"] < -ROUNDING) & (not problem.negative)
            wrong = ~jnp.isfinite(metrics["loss"]) | below
            first = (broken["step"] < 0) & wrong
            here = {"step": i, "terms": metrics["terms"]}
            broken = jax.tree.map(lambda new, old: jnp.where(first, new, old), here, broken)
            return state, jax.tree.map(jnp.add, sums, metrics), broken

        shapes = jax.eval_shape(lambda state: one(state, jnp.int32(0))[1], state)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        unbroken = {"step": jnp.int32(-1), "terms": zeros["terms"]}
        state, sums, broken = jax.lax.fori_loop(0, steps, body, (state, zeros, unbroken))
        fit = state.fit._replace(epoch=state.fit.epoch + 1, active=state.fit.active & (broken["step"] < 0))
        mean = jax.tree.map(lambda total: total / steps, {"loss": sums["loss"], "terms": sums["terms"]})
        return state._replace(fit=fit), {
            **mean,
            "examples": sums["examples"],
            "steps": steps,
            "broken": broken,
            "reports": strategy.report(state.strategy),
        }

    def evaluated(state: State) -> State:
        """The state with the parameters that the model sees in an evaluation: for a ranking they are computed once."""
        params = strategy.view(state.strategy, state.learner.params, state.learner.increment, False)
        return state._replace(learner=state.learner._replace(params=problem.settle(params)))

    def outputs(state: State, inputs: dict[str, Array]) -> Outputs:
        return problem.apply(state.learner.params, split(inputs))

    def tables(state: State) -> dict[str, dict[str, Array]]:
        named = flatten_dict(evaluated(state).learner.params, sep="/")
        kinds = {**problem.tables, **problem.settled}.items()
        return {kind: {path: named[path] for path, own in kinds if own == kind} for kind in ("item", "user")}

    scores = rankable(lambda state, inputs: outputs(state, inputs).scores)
    rank_validation = ranker(scores, batch_size=rank_batch_size, prepare=evaluated)

    def validate(state: State, data: Data, seen: Seen | None = None) -> State:
        """Keeps the epoch if it is the best so far; an empty validation part, or patience 0, keeps the last."""
        learner, own, fit, key = state
        real = jnp.arange(data.rows.labels.shape[0]) < data.size
        values = validation_metric(rank_validation(state, data, seen).rank)
        value = jnp.where(real, values, 0.0).sum() / jnp.maximum(data.size, 1)
        always = (data.size == 0) | (training.patience == 0)
        better = always | (value > fit.value)
        bad = jnp.where(better | (fit.epoch <= fit.least), 0, fit.bad + 1)
        best, best_own = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (learner, own), (fit.learner, fit.strategy)
        )
        best_value = jnp.where(better, value, fit.value)
        last = jnp.where(data.size > 0, value, -jnp.inf)
        active = fit.active & (always | (bad < training.patience)) & (fit.epoch < training.epochs)
        return State(
            learner,
            own,
            fit._replace(learner=best, strategy=best_own, value=best_value, bad=bad, active=active, last=last),
            key,
        )

    def end(state: State, data: Data) -> State:
        own, learner = strategy.end(state.fit.strategy, state.fit.learner, data, phase_key(state, "end"))
        return State(learner, own, fresh_fit(learner, own), state.key)

    program = Program(
        init=init,
        restart=restart,
        begin=begin,
        base_epoch=partial(epoch, True) if acts else None,
        run_epoch=partial(epoch, False),
        validate=validate,
        end=end,
        rank=ranker(scores, batch_size=rank_batch_size, cutoffs=cutoffs, prepare=evaluated),
        scores=lambda state, inputs: scores(evaluated(state), inputs),
        represent=lambda state, inputs: outputs(evaluated(state), inputs).hidden,
        tables=tables,
        inputs=tuple(problem.example.inputs),
        epochs=training.epochs,
        cutoffs=cutoffs,
        sizes=sizes,
        following=tuple(name for name, part in parts.items() if part.record is not Strategy().record),
        early=tuple(name for name, part in parts.items() if part.early and name != "head"),
    )
    return multiplying(program, training.precision)
