"""`make`: a problem, an optimizer and strategies become the functions of one `Program`.

The compiled unit is an epoch: a loop with a traced number of steps over batches gathered on the device
(`incremental.core.steps`, of which this is one arrangement).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax import Array

from incremental.core import ranking, steps
from incremental.core.compaction import compacted, dense, guarded, guarded_problem
from incremental.core.inner import inner
from incremental.core.precision import Precision, multiplying
from incremental.core.prefixes import Sharing
from incremental.core.program import Program
from incremental.core.ranking import rankable, ranker
from incremental.core.spec import Sizes, of_kinds
from incremental.core.steps import Setup
from incremental.core.strategy import PLAIN, Strategy, books, chain
from incremental.core.types import Data, Evaluated, Problem, Seen, State
from incremental.core.untied import refuse_copies
from incremental.domains import Count, Whole, checked
from incremental.errors import UserError
from incremental.metrics.ranking import per_event


class Training(NamedTuple):
    """How one increment is trained.

    Attributes:
        batch_size
        epochs: at most, in one increment
        patience: validations without a better value before training stops; 0 = all epochs, the last one kept
        least_epochs: epochs before patience counts, where training starts from random weights: the base part, an update
            afresh
        metric: of the increment's validation part; "users-recall@10" is a mean over users, each with the mean of his
            events, and not over events
        check_every: epochs from one validation to the next; the last possible one is validated too
        moments: the optimizer's state at an increment's start: the last one's, or as new, but for the place of a
            schedule that spans the stream
        rows: of the id tables that a step works on: all, or those of its batch (`core.compaction`: what is then lazy)
        precision: of the model's arithmetic; parameters and all that mirrors them are float32 in any case
        sharing: of the model's work: "prefix": examples whose histories are prefixes of one another share one run of it
            (`core.prefixes`), and an epoch's order is one of runs
    """

    batch_size: int = 256
    epochs: int = 20
    patience: int = 3
    least_epochs: int = 10
    metric: str = "ndcg@10"
    moments: Literal["keep", "reset"] = "keep"
    rows: Literal["dense", "compact"] = "dense"
    precision: Precision = "float32"
    sharing: Sharing = "none"
    check_every: int = 1


@checked
def training(
    *,
    batch_size: Count = 256,
    epochs: Count = 20,
    patience: Whole = 3,
    least_epochs: Whole = 10,
    metric: str = "ndcg@10",
    moments: Literal["keep", "reset"] = "keep",
    rows: Literal["dense", "compact"] = "dense",
    precision: Precision = "float32",
    sharing: Sharing = "none",
    check_every: Count = 1,
) -> Training:
    """`Training`, checked."""
    try:
        per_event(metric.removeprefix(USERS))
    except UserError as error:
        raise UserError(f"training.metric: {error}") from None
    return Training(batch_size, epochs, patience, least_epochs, metric, moments, rows, precision, sharing, check_every)


class Arrangement(NamedTuple):
    """A problem with its strategies, as the steps have them."""

    parts: dict[str, Strategy]  # by name, the head's own as "head"
    increment: Setup
    base: Setup
    """of the base part: strategies keep their books, those that are `early` and the head's own act"""
    plain: Setup
    """of training inside an increment: the head's own strategy only"""


USERS = "users-"  # before a metric's name


def make(
    problem: Problem,
    tx: optax.GradientTransformation,
    strategies: Mapping[str, Strategy] | Callable[[Problem], Mapping[str, Strategy]] | None = None,
    *,
    sizes: Sizes,
    training: Training = Training(),
    cutoffs: tuple[int, ...] = (),
    rank_batch_size: int | None = None,
    fallback: bool = True,
) -> Program:
    """The program that trains `problem` with `tx` under `strategies` (by name, applied in order), or those that a
    function makes for the problem: for each step anew where it is on a few items that are computed (`of_items`).

    The data loss of a step is Σ_new w ℓ / Σ_new w + Σ_appended w ℓ / B over the update's own rows and those that
    strategies append: appended rows add to the loss of the new ones instead of diluting it, and weigh the same beside a
    last batch of few rows as beside a full one. The base part is plain training: strategies keep their books there
    (`incremental.core.strategy.books`), those that are `early` and the head's own act. `cutoffs` are the K's whose
    recommendations `rank` counts. A test ranks `rank_batch_size` rows at once; None: 256, but where the scores of so
    many are large fewer, and no more than a training step has (`ranking.at_once`). Without `fallback` examples of which
    the model knows nothing are scored as all others, in place of by the items' counts.
    """
    if rank_batch_size is None:
        rank_batch_size = ranking.at_once(sizes.slots, training.batch_size)
    if (training.sharing == "prefix") != (problem.sequence is not None):
        raise UserError(
            f"training.sharing={training.sharing}, but the problem was made with another: give the functions `problem` "
            "and `training` the same sharing"
        )
    compact = training.rows == "compact"
    if compact and problem.of_items and strategies and not callable(strategies):
        raise UserError("make: compact rows of items that are computed need strategies as a function of the problem")
    if compact and problem.settled and problem.of_items is None:
        raise UserError(
            "training.rows=compact: the model computes its tables over a graph, so that a step touches all their rows; "
            "use training.rows=dense, or leave it out"
        )
    on_rows = compacted(problem, sizes) if compact else dense
    optimizer = optax.with_extra_args_support(tx)

    def arranged(problem: Problem) -> Arrangement:
        """Of the whole problem, or of that on a few items."""
        parts = dict((strategies(problem) if callable(strategies) else strategies) or {})
        if problem.strategy is not None:
            if "head" in parts:
                raise UserError("strategies.head: the name 'head' belongs to the model's head; choose another")
            parts = {"head": problem.strategy._replace(early=True), **parts}
        of_items = problem.of_items
        if compact:
            parts = {name: guarded(name, part, problem) for name, part in parts.items()}
            problem = guarded_problem(problem)

        def setup(name: str, own: Mapping[str, Strategy]) -> Setup:
            few = None if of_items is None else lambda ids: getattr(arranged(of_items(ids)), name)
            return Setup(problem, chain(**own), optimizer, on_rows, few)

        whole, quiet = setup("increment", parts), {name: books(part) for name, part in parts.items()}
        head = {name: part for name, part in parts.items() if name == "head"}
        return Arrangement(parts, whole, setup("base", quiet), setup("plain", head))

    parts, setup, base, plain = arranged(problem)
    acts = any(books(part) != part for part in parts.values())  # else the base part is as any other

    def init(key: Array) -> State:
        learner = steps.new_learner(setup, sizes, key)
        own = setup.strategy.init(learner)
        refuse_copies(learner.params, own)
        return State(learner, own, steps.fresh_fit(training.least_epochs), key)

    def restart(state: State, data: Data) -> State:
        learner = steps.new_learner(setup, sizes, jax.random.fold_in(state.key, data.increment))
        fit = state.fit._replace(least=jnp.int32(training.least_epochs))
        return state._replace(learner=learner._replace(increment=state.learner.increment), fit=fit)

    def tables(state: State) -> dict[str, dict[str, Array]]:
        named = flatten_dict(prepare(state).learner.params, sep="/")
        kinds = {**setup.problem.tables, **setup.problem.settled}.items()
        return {kind: {path: named[path] for path, own in kinds if own == kind} for kind in sizes}

    def prepare(state: State) -> Evaluated:
        return state if isinstance(state, Evaluated) else Evaluated(*steps.evaluated(setup, state))

    known = ranking.known if fallback else ranking.known_to_all
    scores = rankable(partial(steps.raw_scores, setup, base), of_kinds(problem.inputs, sizes), known)
    rank = partial(ranker, scores, batch_size=rank_batch_size, prepare=prepare)
    rank_validation, of_event = rank(), per_event(training.metric.removeprefix(USERS))
    mean = ranking.over_users if training.metric.startswith(USERS) else ranking.over_events

    def metric(ranks: Array, data: Data) -> Array:
        return mean(of_event(ranks), data)

    def validate(state: State, data: Data, seen: Seen | None = None) -> State:
        # Of a part of one place XLA would rank that one before the loop, even where there is nothing to rank.
        nothing = jnp.full(data.rows.labels.shape, jnp.inf, jnp.float32)
        due = (state.fit.epoch % training.check_every == 0) | (state.fit.epoch >= training.epochs)
        there = (data.size > 0) & due
        ranks = jax.lax.cond(there, lambda: rank_validation(state, data, seen).rank, lambda: nothing)
        patience, epochs = training.patience, training.epochs
        return steps.validate(state, data, ranks, due, metric=metric, patience=patience, epochs=epochs)

    run_epoch = partial(steps.epoch, batch_size=training.batch_size)
    fit = partial(inner, plain, batch_size=training.batch_size, epochs=training.epochs)
    program = Program(
        init=init,
        restart=restart,
        begin=partial(steps.begin, setup, reset=training.moments == "reset", fit=fit),
        base_epoch=partial(run_epoch, base) if acts else None,
        run_epoch=partial(run_epoch, setup),
        validate=validate,
        end=partial(steps.end, setup, fit=fit),
        rank=rank(cutoffs=cutoffs),
        rank_lists=rank(cutoffs=cutoffs, lists=True),
        scores=lambda state, inputs: scores(prepare(state), inputs),
        represent=lambda state, inputs: steps.outputs(setup, prepare(state), inputs).hidden,
        tables=tables,
        evaluated=prepare,
        inputs=problem.inputs,
        epochs=training.epochs,
        keeps=training.patience > 0,
        cutoffs=cutoffs,
        sizes=sizes,
        sharing=training.sharing,
        following=tuple(name for name, part in parts.items() if part.record is not PLAIN.record and not part.late),
        early=tuple(name for name, part in parts.items() if part.early and name != "head"),
    )
    return multiplying(program, training.precision)
