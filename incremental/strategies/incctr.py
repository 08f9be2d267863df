"""IncCTR's distillation: the labels mixed with what the last model says (Wang et al. 2020, arXiv 2009.02147)."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.distillation import NEVER, Taught, taught, untaught
from incremental.core.negatives import mean_over
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Outputs, Params, Problem
from incremental.domains import Share, checked
from incremental.errors import UserError

Link = Literal["softmax", "sigmoid", "pairs"]


class Scores(NamedTuple):
    """What a model says of each example's label and of other items."""

    label: Array  # [B]
    others: Array  # [B, N]


@checked
def incctr(problem: Problem, *, weight: Share = 0.2, link: Link = "softmax", new: Share = 0.0) -> Strategy:
    """Loss: (1/Σ w_x) Σ_x w_x [(1 - λ_x) ℓ(y, p) + λ_x ℓ(q, p)] over the examples x, λ_x = `weight`; those that a
    strategy before this one appended have w_x / B in place of w_x / Σ w_x.

    ℓ(y, p) is the head's own loss. q and p are what the teacher and the model say of x, by `link`, over the label y and
    the items that the head draws for the batch; where it draws none, over the candidates:

    - "softmax" (for the softmax heads): p = softmax(s), of a drawn item s_j - log Q_j; ℓ(q, p) = -Σ_j q_j log p_j.
    - "sigmoid" (for `bce`): p_j = σ(s_j); ℓ(q, p) = H(q_y, p_y) + the mean over the items j ≠ y of H(q_j, p_j),
      H(q, p) = -q log p - (1 - q) log(1 - p). Beside `gbce`, which weighs its label by β and divides by k + 1, the
      label's part of ℓ(q, p) is (k + 1) / β times as strong as in ℓ(y, p).
    - "pairs" (for `bpr`): p_j = σ(s_y - s_j); ℓ(q, p) = the mean over the items j ≠ y of H(q_j, p_j).

    With q = 1 for the label and 0 for the others, all of them known, ℓ(q, p) is the named head's own loss. It has the
    gradient 0 in each score where p = q, whichever items are drawn. The teacher is the model at the end of the last
    increment, without dropout: its q are those that IncCTR's code stores before the increment's training. Of ids that
    the teacher was not trained on its rows are random. An example whose user or label is such an id has λ_x = `new` ·
    `weight`, and while `new` is 0 such items are left out of p and q; the code has `new` = 1. A new item in an
    example's history changes nothing. λ = 0 is fine-tuning.

    The paper is on clicks, with one output a row, and has λ = 0.2; its feature table that grows is the model's matter.
    The examples are those that are in the batch where this strategy stands in the order of strategies: put it before a
    replay, whose examples then keep their labels. With `training.rows=compact` the head must draw. State: 1 float a
    parameter, 1 bool an id.
    """
    if link not in get_args(Link):
        raise UserError(f"strategies.incctr: link={link!r}: expected one of {', '.join(get_args(Link))}")

    def batch(state: Taught, batch: Batch, key: Array) -> Batch:
        """Moves λ_x of each example's weight to its second term, whose share [B] of the loss it notes."""
        del key
        known = state.known.labels[batch.labels]
        if "user" in batch.inputs:
            known = known & state.known.others["user"][batch.inputs["user"]]
        mixed = state.teacher.ready * weight * jnp.where(known, 1.0, new)
        own = jnp.where(batch.valid, batch.weight, 0.0)
        new_ones = jnp.arange(len(own)) < batch.own
        total = jnp.maximum(jnp.where(new_ones, own, 0.0).sum(), 1e-6)
        share = mixed * own / jnp.where(new_ones, total, batch.own)  # as the data loss weighs them
        return batch._replace(weight=batch.weight * (1.0 - mixed), memory=share)

    def loss(state: Taught, params: Params, batch: Batch, outputs: Outputs) -> Array:
        share: Array = batch.memory
        n = len(share)
        teacher = jax.lax.stop_gradient(state.teacher.params)
        inputs = jax.tree.map(lambda leaf: leaf[:n], batch.inputs)
        said = scores_of(problem, params, outputs, batch, n)
        told = scores_of(problem, teacher, problem.apply(teacher, inputs), batch, n)
        counts = among(batch, state.known.labels | (new > 0.0), n)
        return (share * divergence(link, told, said, counts, drawn_log_q(batch, n))).sum()

    return Strategy(init=untaught, batch=batch, loss=loss, end=taught)


def scores_of(problem: Problem, params: Params, outputs: Outputs, batch: Batch, n: int) -> Scores:
    """The scores of the first `n` examples."""

    def of_own(ids: Array) -> Array:
        """Of each example's own items, ids [n, N]."""
        return jax.vmap(lambda row, of: problem.scores(params, outputs, row[None], of)[0])(jnp.arange(n), ids)

    if batch.negatives is None:
        every = outputs.scores[:n]
        return Scores(jnp.take_along_axis(every, batch.labels[:n, None], 1)[:, 0], every)
    label = of_own(batch.labels[:n, None])[:, 0]
    if batch.negatives.ndim > 1:
        return Scores(label, of_own(batch.negatives[:n]))
    return Scores(label, problem.scores(params, outputs, jnp.arange(n), batch.negatives))


def among(batch: Batch, known: Array, n: int) -> Array:
    """[n, N] bool: which of the other items count."""
    if batch.negatives is None:
        items: Any = jnp.arange(len(known))
        known = known if batch.candidates is None else known & batch.candidates
    else:
        items = batch.negatives[:n] if batch.negatives.ndim > 1 else batch.negatives
    return known[items] & (items != batch.labels[:n, None])


def drawn_log_q(batch: Batch, n: int) -> Array:
    """log Q of the other items, [N] or [n, N]; 0 where none are drawn."""
    if batch.log_q is None:
        return jnp.zeros(1)
    return batch.log_q[:n] if batch.log_q.ndim > 1 else batch.log_q


def divergence(link: Link, told: Scores, said: Scores, counts: Array, log_q: Array) -> Array:
    """ℓ(q, p) of each example [B], q by `told` and p by `said`; `counts` [B, N], `log_q` as the others."""
    if link == "softmax":
        counts = counts & jnp.isfinite(log_q)  # it is infinite where a head draws a padding row's label

        def logits(of: Scores) -> Array:
            others = jnp.where(counts, of.others - jnp.where(counts, log_q, 0.0), NEVER)
            return jnp.concatenate([of.label[:, None], others], 1)

        return -(jax.nn.softmax(logits(told)) * jax.nn.log_softmax(logits(said))).sum(1)
    if link == "pairs":
        return mean_over(entropy(told.label[:, None] - told.others, said.label[:, None] - said.others), counts)
    return entropy(told.label, said.label) + mean_over(entropy(told.others, said.others), counts)


def entropy(told: Array, said: Array) -> Array:
    """H(σ(told), σ(said))."""
    return optax.sigmoid_binary_cross_entropy(said, jax.nn.sigmoid(told))
