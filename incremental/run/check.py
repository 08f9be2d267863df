"""Refuses what cannot work before anything runs."""

from collections.abc import Mapping
from typing import Any

import jax

from incremental.core.program import Program
from incremental.core.types import Anchor
from incremental.errors import UserError
from incremental.metrics.metric import Metric
from incremental.run.executor import Executor
from incremental.run.feed import Feed
from incremental.run.policy import Update
from incremental.run.reading import refuse
from incremental.run.records import Metrics, cutoffs


def check(
    feed: Feed,
    executor: Executor,
    policy: Update,
    metrics: Metrics,
    *,
    matrix: bool,
    batch_size: int | None,
    bases: Mapping[int, Any] = {},
) -> None:
    """A UserError says what does not fit together: stream, model, metrics, policy, strategies."""
    if not feed.wait(0 if feed.endless else 1):
        raise UserError("data.cut: the stream has no increment after the base part; cut it finer")
    stream, ks = feed.stream, cutoffs(metrics)
    if matrix and not stream.heldout.any():
        raise UserError("evaluation.matrix=true needs held-out parts: set data.heldout above 0")
    if feed.listed and stream.unseen_items == "drop":
        raise UserError(
            "listed=True tests items that the model has not seen, but the stream leaves them out (unseen_items=drop); "
            "make it with unseen_items=miss or listed"
        )
    if feed.endless and stream.unseen_items == "known":
        raise UserError(
            "data.unseen_items=known says that all items are known from the start, and a log that goes on may bring "
            "others; choose miss, drop or listed"
        )
    if feed.endless and stream.validate_on == "next":
        raise UserError(
            "data.validate_on=next: an update of a log that goes on cannot wait for the increment after it; choose own"
        )
    if feed.sample is not None and (
        whole := [str(each) for each in metrics if isinstance(each, Metric) and each.whole]
    ):
        raise UserError(
            f"evaluation.metrics: {', '.join(whole)} goes by all events of a user in a test, of which "
            f"evaluation.events={feed.sample.events} draws some; leave one of the two out"
        )
    inputs = executor.way.inputs(feed.sizes(0))
    refuse(metrics, stream, executor.way.at(feed.sizes(0, inputs)).program)
    base_items = stream.number(stream.task.labels, 0) - 1
    if max(ks) > base_items:
        raise UserError(
            f"evaluation.metrics: K={max(ks)} is larger than the catalogue of the base part "
            f"({base_items} items); choose smaller K's"
        )
    program = executor.way.at(feed.sizes(0, inputs)).program
    if program.cutoffs != ks:
        raise UserError(
            f"the metrics ask for the K's {ks}, the program counts {program.cutoffs}: give make(..., cutoffs={ks})"
        )
    if any(each.required for each in bases.values()) and not shares_base(program):
        names = ", ".join(dict.fromkeys(program.following + program.early))
        raise UserError(
            f"base: the base part's steps are followed, or changed, by {names} ('head' is the model's), which "
            "cannot begin with a base part that another run has trained; leave base out, or the strategy"
        )
    shapes = jax.eval_shape(program.init, jax.random.key(0))
    if policy.forgets and holds_anchor(shapes.strategy):
        names = ", ".join(name for name, own in shapes.strategy.items() if holds_anchor(own))
        raise UserError(
            f"strategies.{names} pulls towards earlier weights, but update.start=afresh (or full_every) forgets "
            "them; use update.start=continue, or leave the strategy out"
        )
    if empty := untrained(feed, policy, program):
        raise feed.untrainable(program, empty)
    always, numbers = policy._replace(drop=None, budget=None, every=1), {}
    for t in range(stream.summary.until, len(stream)):
        plan = always.plan(t, range(t) or [0], {}, 0)
        numbers[t] = len(stream.training_examples(plan.increments, validation=False))
    trained = {t: number for t, number in numbers.items() if number}
    if batch_size and (few := too_large(batch_size, trained)):
        t, of = few[0], sum(t > 0 for t in trained)
        part = "the base part" if t == 0 else f"{len(few)} of {of} increments, such as increment {t}"
        powers = (1 << power for power in reversed(range(batch_size.bit_length())))
        fits = next(size for size in powers if not too_large(size, trained))
        raise UserError(
            f"training.batch_size={batch_size} is larger than {part} ({trained[t]} training events); "
            f"set training.batch_size={fits}, or have fewer increments (data.cut)"
        )


def too_large(batch_size: int, trained: Mapping[int, int]) -> list[int]:
    """The parts with fewer training events than a batch, where the base part is one or more than half of the increments
    are.

    A thin day of a calendar, and what is left for the last increment, are trained on in one short batch.
    """
    few = [t for t, number in trained.items() if number < batch_size]
    return few if 0 in few or 2 * len(few) > sum(t > 0 for t in trained) else []


def untrained(feed: Feed, policy: Update, program: Program) -> list[int]:
    """The parts whose update has no training example; of a policy that goes by results only the base part is known."""
    stream, inputs = feed.stream, program.inputs
    plans = dict(policy.plans(len(stream) if policy.drop is None and policy.budget is None else 1))
    validation = None if program.counting else False
    there = [
        t < stream.summary.until  # trained on before its events were let go
        or len(stream.training_examples(range(t, t + 1), validation=validation, inputs=inputs)) > 0
        for t in range(len(stream))
    ]
    trained = {t: plan.arrived if program.counting else plan.increments for t, plan in plans.items()}
    return [t for t, increments in trained.items() if not any(there[i] for i in increments)]


def shares_base(program: Program) -> bool:
    """Whether a run need not train its base part where there is one: nothing in it follows the steps, or acts."""
    return not program.following and not program.early


def holds_anchor(tree: Any) -> bool:
    """Whether a strategy's state holds an `Anchor`."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Anchor))
    return any(isinstance(leaf, Anchor) for leaf in leaves)
