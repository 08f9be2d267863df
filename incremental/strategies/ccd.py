"""CCD's replay: slow copies of the model say what it has forgotten (Lee et al., KDD 2024, arXiv 2405.19046)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from incremental.core.distillation import Taught, lesson
from incremental.core.ids import Ids, nobody, rows_of, since, trained
from incremental.core.strategy import Strategy
from incremental.core.types import Anchor, Batch, Data, Learner, Outputs, Params, Problem, Teacher
from incremental.domains import Count, NotNegative, Positive, Share, Whole, checked


class Proxies(NamedTuple):
    """The slow copies, what they know, and the running epoch of the update."""

    stable: Anchor  # its mean over weights of several random starts would say nothing
    plastic: Teacher
    known: Ids
    epoch: Array  # [] int32; -1: none has begun


class Drawn(NamedTuple):
    """Which rows are here, without those that later strategies append; the noise of a draw."""

    valid: Array  # [n] bool
    noise: Array  # [2, n, top] float32, of Gumbel's distribution


class Pairs(NamedTuple):
    """What a proxy says of some items for each row."""

    items: Array  # [n, pairs] int32
    target: Array  # [n, pairs] float32, σ of the proxy's score
    real: Array  # [n, pairs] bool


@checked
def ccd(
    problem: Problem,
    *,
    weight: NotNegative = 0.5,
    stable: Share = 0.9,
    plastic: Share = 0.0,
    stable_pairs: Count = 5,
    plastic_pairs: Whole = 5,
    top: Count = 50,
    sharpness: NotNegative = 1e-4,
    anneal: Positive = 10.0,
) -> Strategy:
    """Loss: weight · e^(-epoch / anneal) · mean over new rows of Σ_pairs -[q log p + (1 - q) log(1 - p)], p = σ(s_i).

    Only the student's side of CCD is here (Lee et al. 2024, "Continual Collaborative Distillation for Recommender
    System"). Missing are its five large teachers, the distillation of their ensemble's ranking into a new student, and
    their own update: they have another width than the student, and a run has one model. The ids that it gives rows from
    the graph are left to `warm_rows`.

    Two proxies are averages of the model's parameters: at an increment's end S ← stable S + (1 - stable) θ, and P
    likewise with `plastic`; they start as θ at the base part's end, and an id's row as it is after its first increment.
    0 makes a proxy the last increment's model, 1 freezes it. The paper averages the embeddings of users and items,
    which is the same for matrix factorisation. Of a row's items known to the proxies, without its own label and those
    that its inputs hold, a proxy takes its `top` ones, and draws `stable_pairs` (`plastic_pairs`) without replacement,
    with chances ∝ exp(sharpness (r_i - r_i(proxy))), r the ranks by the model and by the proxy: what was forgotten
    comes oftener. q = σ(s_i(proxy)); of an item that both draw the larger q counts, once.

    Deviations: pairs are drawn for each row of a batch in each step, not for each user every 5 epochs; what a user had
    in earlier increments is not known to a model that reads no history; the sum over users is a mean, as the data loss
    is; the head's negatives do not avoid the proxies' top items. Which rows count is as in
    `incremental.strategies.lwf`. Each step scores the whole catalogue by both proxies and compares it with `top`
    scores. A fresh start is refused beside it. weight = 0 is plain training. State: 2 floats a parameter, 1 bool an id.
    """

    def init(learner: Learner) -> Proxies:
        params = learner.params
        return Proxies(Anchor(params), Teacher(params, jnp.float32(0.0)), nobody(learner), jnp.int32(-1))

    def begin(state: Proxies, learner: Learner, data: Data, key: Array) -> tuple[Proxies, Learner]:
        del data, key
        return state._replace(epoch=jnp.int32(-1)), learner

    def prepare(state: Proxies, learner: Learner, data: Data, key: Array) -> Proxies:
        del learner, data, key
        return state._replace(epoch=state.epoch + 1)

    def batch(state: Proxies, batch: Batch, key: Array) -> Batch:
        del state
        return batch._replace(memory=Drawn(batch.valid, jax.random.gumbel(key, (2, len(batch.labels), top))))

    def loss(state: Proxies, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del params
        drawn: Drawn = batch.memory
        marked = batch._replace(memory=drawn.valid)
        proxies = state.plastic._replace(params=state.stable.params), state.plastic
        lessons = [lesson(problem, Taught(proxy, state.known), marked, outputs) for proxy in proxies]
        student, _, share = lessons[0]
        allowed = state.known.labels & ~present(problem, batch, len(drawn.valid), len(state.known.labels))
        one, other = (
            pairs(student.scores, teacher.scores, allowed, noise, number, sharpness)
            for (_, teacher, _), noise, number in zip(lessons, drawn.noise, (stable_pairs, plastic_pairs), strict=True)
        )
        same = (one.items[:, :, None] == other.items[:, None]) & one.real[:, :, None] & other.real[:, None]
        larger = jnp.maximum(one.target, jnp.where(same, other.target[:, None], 0.0).max(2, initial=0.0))
        one, other = one._replace(target=larger), other._replace(real=other.real & ~same.any(1))

        def entropy(pairs: Pairs) -> Array:
            s = jnp.take_along_axis(student.scores, pairs.items, 1)
            return jnp.where(pairs.real, optax.sigmoid_binary_cross_entropy(s, pairs.target), 0.0).sum(1)

        return weight * jnp.exp(-state.epoch / anneal) * (share * (entropy(one) + entropy(other))).sum()

    def end(state: Proxies, learner: Learner, data: Data, key: Array) -> tuple[Proxies, Learner]:
        del data, key
        known, params = trained(learner), learner.params
        new = rows_of(problem, params, since(known, state.known), others=False)

        start = state.plastic.ready == 0.0

        def averaged(proxy: Params, rate: float) -> Params:
            return jax.tree.map(
                lambda old, now, new: jnp.where(new | start, now, rate * old + (1.0 - rate) * now), proxy, params, new
            )

        slow = Anchor(averaged(state.stable.params, stable))
        fast = Teacher(averaged(state.plastic.params, plastic), jnp.float32(1.0))
        return Proxies(slow, fast, known, state.epoch), learner

    return Strategy(init=init, begin=begin, prepare=prepare, batch=batch, loss=loss, end=end)


def present(problem: Problem, batch: Batch, n: int, items: int) -> Array:
    """[n, V] bool: the first n rows' labels and the items among their inputs."""
    ids = [batch.labels[:n, None]]
    for name, given in problem.inputs.items():
        if given.kind == problem.labels:
            ids.append(batch.inputs[name][:n].reshape(n, -1))
    every = jnp.concatenate(ids, axis=1)
    return jnp.zeros((n, items), bool).at[jnp.arange(n)[:, None], every].set(True)


def pairs(student: Array, proxy: Array, allowed: Array, noise: Array, number: int, sharpness: float) -> Pairs:
    """`number` items for each row from the proxy's first `top`, by the scores [n, V] of both over the `allowed` [n, V];
    `noise` [n, top] is Gumbel's."""
    student, proxy = (jax.lax.stop_gradient(jnp.where(allowed, scores, -jnp.inf)) for scores in (student, proxy))
    top = min(noise.shape[1], proxy.shape[1])
    best, items = jax.lax.top_k(proxy, top)
    # The model's rank of each: some lines at a time, for a sort of all scores takes far longer on a CPU.
    place = jax.lax.map(
        lambda line: (line[0] <= line[1][:, None]).sum(1, dtype=jnp.int32),
        (student, jnp.take_along_axis(student, items, 1)),
        batch_size=8,
    )
    forgotten = proxy.shape[1] - place - jnp.arange(top)
    chance = jnp.where(jnp.isfinite(best), sharpness * forgotten + noise[:, :top], -jnp.inf)
    _, chosen = jax.lax.top_k(chance, min(number, top))
    score = jnp.take_along_axis(best, chosen, 1)
    return Pairs(jnp.take_along_axis(items, chosen, 1), jax.nn.sigmoid(score), jnp.isfinite(score))
