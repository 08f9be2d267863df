"""In-batch softmax with logQ correction: a row's negatives are the other rows' labels."""

from typing import Annotated, Literal, NamedTuple, get_args

import jax.numpy as jnp
from annotated_types import Gt, Le
from jax import Array

from incremental.core.problem import Head
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Step
from incremental.domains import checked
from incremental.errors import UserError
from incremental.heads.sampled_softmax import sampled_cross_entropy

Frequency = Literal["streaming", "counted"]


@checked
def in_batch_softmax(*, frequency: Frequency = "streaming", rate: Annotated[float, Gt(0), Le(1)] = 0.05) -> Head:
    """`sampled_cross_entropy` with the labels of the increment's own rows as negatives, shared by the batch.

    What is subtracted is the log of how often an item is expected in a batch. "counted": rows × its share of the
    training events so far, as of the increment's start. "streaming" (Yi et al. 2019, algorithm 2): 1 / the number of
    steps between two batches that have it, estimated as the stream goes; `rate` is the newest gap's weight. A row meets
    the labels of the B - 1 others only, so that its sum falls short of the softmax's by 1 / B of it, at most.
    """
    if frequency not in get_args(Frequency):
        raise UserError(f"head.frequency={frequency!r}: expected {' or '.join(get_args(Frequency))}")
    strategy = streaming(rate) if frequency == "streaming" else counted()
    return Head(sampled_cross_entropy, strategy, together=True)


def counted() -> Strategy:
    """Each label as often as it stands there. State: the log of each item's share of the events [V] float32."""

    def begin(state: Array, learner: Learner, data: Data, key: Array) -> tuple[Array, Learner]:
        del state, data, key
        events = learner.catalogue.events
        return jnp.log(events) - jnp.log(events.sum()), learner

    def batch(state: Array, batch: Batch, key: Array) -> Batch:
        del key
        log_q = jnp.log(batch.valid.sum()) + state[batch.labels]
        return batch._replace(negatives=batch.labels, log_q=jnp.where(batch.valid, log_q, jnp.inf))

    return Strategy(init=lambda learner: jnp.zeros(learner.catalogue.seen.shape), begin=begin, batch=batch)


class Gaps(NamedTuple):
    """How many steps lie between the batches that have an item."""

    gap: Array  # [V] float32: the estimate; 0 = not met yet
    last: Array  # [V] int32: the step that had it last; before it is met, the step at which it could first appear
    step: Array  # [] int32: steps so far


def streaming(rate: float) -> Strategy:
    """Each label once, Q = 1 / gap. State: `Gaps`.

    With t steps since the item's last one, gap <- (1 - rate) gap + rate t; the first gap is counted from the start of
    the increment that brought the item, and until it ends its length so far stands for it. Once, because 1 / gap is how
    likely a batch has the item at all: a frequent one would stand there several times.
    """

    def init(learner: Learner) -> Gaps:
        size = learner.catalogue.seen.shape
        return Gaps(jnp.zeros(size), jnp.zeros(size, jnp.int32), jnp.int32(0))

    def begin(state: Gaps, learner: Learner, data: Data, key: Array) -> tuple[Gaps, Learner]:
        del data, key
        return state._replace(last=jnp.where(state.gap > 0, state.last, state.step)), learner

    def batch(state: Gaps, batch: Batch, key: Array) -> Batch:
        del key
        labels = batch.labels
        since = (state.step + 1 - state.last[labels]).astype(jnp.float32)
        gap = jnp.where(state.gap[labels] > 0, state.gap[labels], since)
        alike = (labels[:, None] == labels[None, :]) & batch.valid[None, :]
        first = batch.valid & (alike.argmax(1) == jnp.arange(len(labels)))
        return batch._replace(negatives=labels, log_q=jnp.where(first, -jnp.log(gap), jnp.inf))

    def record(state: Gaps, step: Step, key: Array) -> Gaps:
        del key
        now, labels = state.step + 1, step.new.labels
        since = (now - state.last[labels]).astype(jnp.float32)
        old = state.gap[labels]
        gap = jnp.where(old > 0, (1.0 - rate) * old + rate * since, since)
        at = jnp.where(step.new.valid, labels, len(state.gap))  # an item's rows all write the same
        return Gaps(state.gap.at[at].set(gap, mode="drop"), state.last.at[at].set(now, mode="drop"), now)

    return Strategy(init=init, begin=begin, batch=batch, record=record)
