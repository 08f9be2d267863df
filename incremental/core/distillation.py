"""A frozen teacher, what it knew, and the rows it teaches: what distillations share."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.ids import Ids, nobody, trained
from incremental.core.types import Batch, Data, Learner, Outputs, Problem, Teacher
from incremental.errors import UserError

Over = Literal["known", "drawn"]
"""the items that two models are compared over: those known to the method, or those of them that the head draws"""
NEVER = -1e30  # the logit of what does not count: finite, so that no difference of two is NaN


class Taught(NamedTuple):
    """The last increment's model and the ids it was trained on."""

    teacher: Teacher
    known: Ids


def untaught(learner: Learner) -> Taught:
    """No teacher yet; `init` of a distillation."""
    return Taught(Teacher(learner.params, jnp.float32(0.0)), nobody(learner))


def taught(state: Taught, learner: Learner, data: Data, key: Array) -> tuple[Taught, Learner]:
    """The finished increment's model becomes the teacher; `end` of a distillation."""
    del state, data, key
    return Taught(Teacher(learner.params, jnp.float32(1.0)), trained(learner)), learner


def marked(state: Taught, batch: Batch, key: Array) -> Batch:
    """Notes which rows are here, without those that later strategies append; `batch` of a distillation."""
    del state, key
    return batch._replace(memory=batch.valid)


def lesson(problem: Problem, state: Taught, batch: Batch, outputs: Outputs) -> tuple[Outputs, Outputs, Array]:
    """Student's and teacher's outputs on the n marked rows, and the share [n] of each row in the mean.

    Padding, and rows of a user whom the teacher did not know, have share 0; before the teacher is ready all have.
    """
    n = len(batch.memory)
    inputs = jax.tree.map(lambda leaf: leaf[:n], batch.inputs)
    params = jax.lax.stop_gradient(state.teacher.params)
    counts = batch.memory & state.known.others["user"][inputs["user"]] if "user" in inputs else batch.memory
    share = state.teacher.ready * counts / jnp.maximum(counts.sum(), 1)
    return Outputs(outputs.hidden[:n], outputs.scores[:n]), problem.apply(params, inputs), share


def refuse_over(strategy: str, over: Over) -> None:
    """A UserError for another word."""
    if over not in get_args(Over):
        raise UserError(f"strategies.{strategy}.over={over!r}: expected one of {', '.join(get_args(Over))}")


def drawn(strategy: str, batch: Batch) -> tuple[Array, Array, Array]:
    """The items [N] that the head draws for the whole batch, which of them count [N] bool, and their log Q [N], 0
    where they do not."""
    if batch.negatives is None or batch.negatives.ndim > 1:
        raise UserError(
            f"strategies.{strategy}.over=drawn: the head draws no negatives for a whole batch; choose "
            "head=sampled_softmax, or over=known"
        )
    log_q: Any = batch.log_q
    counts = jnp.isfinite(log_q)  # it is infinite where a head's draw does not count, as an item's second one
    return batch.negatives, counts, jnp.where(counts, log_q, 0.0)
