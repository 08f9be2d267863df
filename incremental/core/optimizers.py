"""Optimizers as optax transformations; every float may be traced, so that a sweep over it is one program.

Each takes the peak learning rate as a multiplier behind the schedule's shape (optax's own warm-up schedules do not take
a traced peak), gradient clipping by global norm, and accumulation over `accumulate` steps.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.domains import Count, NotNegative, Positive, ShareBelow1, Whole, checked
from incremental.errors import UserError

Schedule = Literal["constant", "linear", "cosine"]
Span = Literal["increment", "stream"]


class Within(NamedTuple):
    """Where a schedule stands in the running increment."""

    steps: Array  # [] int32, of the increment so far


def restarted(opt_state: Any) -> Any:
    """The optimizer's state at an increment's start: schedules that span an increment begin anew."""
    return jax.tree.map(
        lambda node: Within(jnp.zeros_like(node.steps)) if isinstance(node, Within) else node,
        opt_state,
        is_leaf=lambda node: isinstance(node, Within),
    )


def renewed(new: Any, old: Any) -> Any:
    """The state `new`, in which schedules that span the stream stand where they do in `old`."""

    def spans(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    return jax.tree.map(lambda new, old: old if spans(new) else new, new, old, is_leaf=spans)


def scaled_within(shape: optax.Schedule) -> optax.GradientTransformation:
    """u <- shape(n) u at the increment's step n, from 0."""

    def update(updates: Any, state: Within, params: Any = None) -> tuple[Any, Within]:
        del params
        factor = shape(state.steps)
        return jax.tree.map(lambda u: factor * u, updates), Within(optax.safe_increment(state.steps))

    return optax.GradientTransformation(lambda _params: Within(jnp.int32(0)), update)


def decayed(weight: float) -> optax.GradientTransformationExtraArgs:
    """u <- u + weight θ (decoupled weight decay, Loshchilov & Hutter 2019, arXiv 1711.05101), but for table rows of ids
    that have not arrived: `arrived` are bools that broadcast to the parameters. A row decays from its id's first
    training event on, however early the table was made for it; an item's from when it is a candidate, which with
    data.unseen_items=known is from the start."""

    def update(updates: Any, state: Any, params: Any = None, *, arrived: Any = None, **_: Any) -> tuple[Any, Any]:
        if arrived is None:
            return jax.tree.map(lambda u, p: u + weight * p, updates, params), state
        return jax.tree.map(lambda u, p, a: u + jnp.where(a, weight * p, 0.0), updates, params, arrived), state

    return optax.GradientTransformationExtraArgs(lambda _params: optax.EmptyState(), update)


def shape_of(schedule: Schedule, warmup: int, decay: int) -> optax.Schedule:
    """Steps n, from 0 -> multiplier of the rate: a linear warm-up (n + 1) / (warmup + 1) over `warmup` steps, then
    constant at 1, or a linear or cosine fall to 0 over `decay` further steps."""
    if schedule not in ("constant", "linear", "cosine"):
        raise UserError(f"optimizer.schedule={schedule!r}: expected constant, linear or cosine")
    if schedule != "constant" and decay < 1:
        raise UserError(f"optimizer.decay={decay}: schedule={schedule} needs the number of steps it falls over")

    def multiplier(count: Array) -> Array:
        up = jnp.minimum((count + 1) / (warmup + 1), 1.0)
        if schedule == "constant":
            return up
        done = jnp.clip((count - warmup) / decay, 0.0, 1.0)
        return up * (1.0 - done if schedule == "linear" else 0.5 * (1.0 + jnp.cos(jnp.pi * done)))

    return multiplier


def assembled(
    direction: optax.GradientTransformation,
    learning_rate: float,
    schedule: Schedule,
    warmup: int,
    decay: int,
    span: Span,
    clip: float | None,
    weight_decay: float | None,
    l2: float | None,
    accumulate: int,
) -> optax.GradientTransformation:
    """clip -> + l2 θ -> direction -> decoupled weight decay -> schedule -> -rate, on `accumulate` steps' mean gradient.

    `l2` is weight decay as part of the gradient: with Adam a row whose gradient it alone is shrinks by the whole rate.
    The schedule's steps are the optimizer's in the increment, so that each has a warm-up and a fall of its own; with
    `span` "stream" they are those of all increments together, since the last fresh start. Batches that are left over
    when an increment ends, fewer than `accumulate`, count for the next one's first step, unless its moments are new.
    """
    if span not in ("increment", "stream"):
        raise UserError(f"optimizer.span={span!r}: expected increment or stream")
    parts = [direction]
    if l2 is not None:
        parts.insert(0, decayed(l2))
    if clip is not None:
        parts.insert(0, optax.clip_by_global_norm(clip))
    if weight_decay is not None:
        parts.append(decayed(weight_decay))
    if schedule != "constant" or warmup:
        shape = shape_of(schedule, warmup, decay)
        parts.append(scaled_within(shape) if span == "increment" else optax.scale_by_schedule(shape))
    parts.append(optax.scale(-learning_rate))
    tx = optax.chain(*parts)
    if accumulate > 1:
        steps = optax.MultiSteps(tx, accumulate)
        tx = optax.GradientTransformationExtraArgs(steps.init, steps.update)  # its own way drops `arrived`
    return tx


@checked
def sgd(
    *,
    learning_rate: NotNegative = 0.1,
    momentum: ShareBelow1 | None = None,
    weight_decay: NotNegative | None = None,
    l2: NotNegative | None = None,
    clip: Positive | None = None,
    schedule: Schedule = "constant",
    warmup: Whole = 0,
    decay: Whole = 0,
    span: Span = "increment",
    accumulate: Count = 1,
) -> optax.GradientTransformation:
    """Stochastic gradient descent; `momentum` is heavy-ball, m <- momentum m + g."""
    direction = optax.identity() if momentum is None else optax.trace(momentum)
    return assembled(direction, learning_rate, schedule, warmup, decay, span, clip, weight_decay, l2, accumulate)


@checked
def adagrad(
    *,
    learning_rate: NotNegative = 0.05,
    weight_decay: NotNegative | None = None,
    l2: NotNegative | None = None,
    clip: Positive | None = None,
    schedule: Schedule = "constant",
    warmup: Whole = 0,
    decay: Whole = 0,
    span: Span = "increment",
    accumulate: Count = 1,
) -> optax.GradientTransformation:
    """AdaGrad (Duchi et al. 2011): g / sqrt(Σ g²), the sum started at 0.1."""
    return assembled(
        optax.scale_by_rss(0.1, 1e-7), learning_rate, schedule, warmup, decay, span, clip, weight_decay, l2, accumulate
    )


@checked
def adam(
    *,
    learning_rate: NotNegative = 1e-3,
    b1: ShareBelow1 = 0.9,
    b2: ShareBelow1 = 0.999,
    weight_decay: NotNegative | None = None,
    l2: NotNegative | None = None,
    clip: Positive | None = None,
    schedule: Schedule = "constant",
    warmup: Whole = 0,
    decay: Whole = 0,
    span: Span = "increment",
    accumulate: Count = 1,
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015); with `weight_decay` AdamW (Loshchilov & Hutter 2019)."""
    return assembled(
        optax.scale_by_adam(b1, b2), learning_rate, schedule, warmup, decay, span, clip, weight_decay, l2, accumulate
    )
