"""PISA: user by user, plasticity against stability (Yoo et al. 2025, SIGIR, "Embracing Plasticity")."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core import neighbours as graph
from incremental.core import sides
from incremental.core.clusters import k_means
from incremental.core.cosine import unit
from incremental.core.distillation import NEVER, Taught, marked, taught, untaught
from incremental.core.order import ordered
from incremental.core.sides import Sides
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Outputs, Params, Problem
from incremental.domains import Count, NotNegative, Positive, Share, checked


class Balanced(NamedTuple):
    """The last model, its graph, and what follows from them for the present increment."""

    taught: Taught
    history: graph.Neighbours  # of the users, in all increments that are finished
    until: Array  # [] int32: the last of them
    arrived: Array  # [W, n] int32: the users' neighbours in the present increment
    last: Sides  # [W, D] and [V, D]: the last model's outputs, p
    forward: Sides  # those of the forward model, f
    centres: Array  # [K, D]


@checked
def pisa(
    problem: Problem,
    *,
    weight: NotNegative = 0.5,
    ratio: Share = 0.2,
    temperature: Positive = 0.5,
    clusters: Count = 20,
    neighbours: Count = 20,
    epochs: Count | None = None,
) -> Strategy:
    """Loss: weight · (Pu + Pn + Su + Sn): agree with a model that was only fine-tuned, and with the last one.

    f are the outputs of the forward model: plain training on the increment from its first weights, `epochs` of them
    (None: `training.epochs`), then frozen. p are those of the last increment's model, h the present ones; u are the
    batch's users, each once. Old is who is in the last model's increments.

    - Affinity: s_u = softmax_k ⟨c_k, h_u⟩, s'_u with p_u. The K = `clusters` centres c_k are those of k-means on the
      present outputs of the items seen so far, made anew at the start of each epoch (at most 100 rounds).
    - Drift d_u = Jensen-Shannon divergence of s'_u and s_u. Weight of plasticity w_u = σ(d_u - mean d), the mean over
      the batch's old users, of stability v_u = 1 - w_u. Of the w of the old users those above their (1 - `ratio`)
      quantile are kept, others become 0; of the v likewise. So ratio 1 drops the smallest, and 0 all.
    - Contrast of anchors x_r with rows z_r, τ = `temperature`, cos = 0 for a zero vector:
      C(x, z, ω) = mean_r -ω_r log [exp(cos(x_r, z_r) / τ) / Σ_q exp(cos(x_r, z_q) / τ)], rows of weight 0 in the mean.
    - Pu = C(f_u, h_u, w_u) and Su = C(p_u, h_u, v_u) over the old users; w and v carry gradient.
    - Pn = C(f_i, h_u, w_u) over all the batch's users u and their items i in the increment, w_u = ½ for a new user;
      Sn = C(p_i, h_u, v_u) over the old users and their items before. w and v are constants here. A user's other rows
      are equal to his own, and stand in the denominator.

    A batch without an old user or an old label has no such loss. Of a user's items the last `neighbours` count, in the
    increment and before it; one that came twice counts twice. The authors stop the forward model's training early, go
    on with its optimizer's moments, and keep all items; here the forward model has a fixed number of epochs and moments
    of its own, and its examples are not in the run's count. Of a model on a graph f, p and h are computed over the
    present increment's graph. It needs a model that reads the user alone, for a user of others has no output. Compact
    rows are refused. A step costs B · D multiplications for each pair of a batch's user and item, at most
    2 `neighbours` of them a user. State: P + (W + V) (2 D + 1) + W (2 `neighbours` + 1) + K D numbers.
    """

    def init(learner: Learner) -> Balanced:
        sides.refuse("pisa", problem)
        history = graph.nobody(learner, neighbours).users
        said = sides.outputs(problem, learner.params, len(history.degree))
        none = jax.tree.map(jnp.zeros_like, said)
        centres = jnp.zeros((clusters, said.items.shape[1]))
        return Balanced(untaught(learner), history, jnp.int32(-1), history.latest, none, none, centres)

    def begin(state: Balanced, learner: Learner, data: Data, key: Array, fit: Any) -> tuple[Balanced, Learner]:
        users = len(state.history.degree)
        number = {} if epochs is None else {"epochs": epochs}
        trained = jax.lax.cond(  # the base part has no need of it
            data.increment > 0, lambda: fit(learner.params, data, key, **number), lambda: learner.params
        )
        return state._replace(
            arrived=graph.with_items(graph.nobody(learner, neighbours).users, data, state.until).latest,
            last=sides.outputs(problem, state.taught.teacher.params, users),
            forward=sides.outputs(problem, trained, users),
        ), learner

    def prepare(state: Balanced, learner: Learner, data: Data, key: Array) -> Balanced:
        del data
        items = sides.outputs(problem, learner.params, 1).items
        return state._replace(centres=k_means(items, learner.catalogue.seen, clusters, key))

    def loss(state: Balanced, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del params
        known, n = state.taught.known, len(batch.memory)
        (name,) = problem.inputs
        users = batch.inputs[name][:n]
        same = (users[:, None] == users) & batch.memory
        here = batch.memory & ~(same & jnp.tri(n, k=-1, dtype=bool)).any(1)  # each user's first row
        old, hidden = here & known.others["user"][users], outputs.hidden[:n]
        past, forward = state.last.users[users], state.forward.users[users]

        drift = divergence(*(jax.nn.log_softmax(vectors @ state.centres.T) for vectors in (past, hidden)))
        mean = jnp.where(old, drift, 0.0).sum() / jnp.maximum(old.sum(), 1)
        plastic = jax.nn.sigmoid(drift - mean)
        w, v = (sparse(each, old, ratio) for each in (plastic, 1.0 - plastic))

        def rows(items: Array, vectors: Array, who: Array, weights: Array) -> Array:
            """The contrast of the users' items [n, m] with the users, a row a pair."""
            real = who[:, None] & (items > 0)
            return contrast(vectors[items], hidden, jax.lax.stop_gradient(weights), real, temperature)

        total = (
            contrast(forward[:, None], hidden, w, old[:, None], temperature)
            + contrast(past[:, None], hidden, v, old[:, None], temperature)
            + rows(state.arrived[users], state.forward.items, here, jnp.where(old, w, 0.5))
            + rows(state.history.latest[users], state.last.items, old, v)
        )
        acts = old.any() & (batch.memory & known.labels[batch.labels[:n]]).any()
        return jnp.where(acts, state.taught.teacher.ready * weight * total, 0.0)

    def end(state: Balanced, learner: Learner, data: Data, key: Array) -> tuple[Balanced, Learner]:
        history = graph.with_items(state.history, data, state.until)
        last, learner = taught(state.taught, learner, data, key)
        return state._replace(taught=last, history=history, until=data.increment), learner

    return Strategy(init=init, begin=begin, prepare=prepare, batch=marked, loss=loss, end=end)


def divergence(p: Array, q: Array) -> Array:
    """[N]: the Jensen-Shannon divergence, in nats, of distributions given by their logarithms [N, K]."""
    middle = jnp.logaddexp(p, q) - jnp.log(2.0)
    return 0.5 * (jnp.exp(p) * (p - middle) + jnp.exp(q) * (q - middle)).sum(1)


def sparse(weights: Array, rows: Array, ratio: Array | float) -> Array:
    """The `weights` [n] of those `rows` [n] bool that are above these rows' (1 - `ratio`) quantile; others are 0.

    Between two ranks the quantile is linear, as `numpy.quantile`'s.
    """
    ranked = jnp.sort(jnp.where(rows, jax.lax.stop_gradient(weights), jnp.inf))
    place = (1.0 - ratio) * jnp.maximum(rows.sum() - 1, 0)
    low = jnp.floor(place).astype(jnp.int32)
    lower, upper = ranked[low], ranked[jnp.ceil(place).astype(jnp.int32)]
    bound = jnp.where(upper > lower, lower + (place - low) * (upper - lower), lower)
    return jnp.where(rows & (weights > bound), weights, 0.0)


def contrast(anchors: Array, hidden: Array, weights: Array, real: Array, temperature: Array | float) -> Array:
    """C of the pairs of `anchors` [n, m, D] and their users' `hidden` [n, D] that are `real` [n, m] bool, with the
    users' `weights` [n]. There is no gradient to the anchors."""
    told = surprise(unit(anchors), unit(hidden), real, temperature)
    return (weights[:, None] * told).sum() / jnp.maximum(real.sum(), 1)


@jax.custom_vjp
def surprise(x: Array, z: Array, real: Array, temperature: Array | float) -> Array:
    """[n, m]: log Σ_q exp(x · z_q / τ) - x · z / τ of each pair of x [n, m, D] and z [n, D] that is real, 0 of others.

    The rows of one user have one vector, so that the sum is over users, each as often as it has rows. It costs as many
    rows as there are pairs, however many there might be; its gradient is that in z.
    """

    def add(told: Array, place: Array, logits: Array, _rows: Array) -> Array:
        return told.at[place].set(jax.nn.logsumexp(logits, axis=1))

    told = _over_pairs(add, jnp.zeros(real.size), x, z, real, temperature).reshape(real.shape)
    return jnp.where(real, told - (x * z[:, None]).sum(2) / temperature, 0.0)


def _kept(x: Array, z: Array, real: Array, temperature: Any) -> Any:
    return surprise(x, z, real, temperature), (x, z, real, temperature)


def _pulled(kept: Any, cotangent: Array) -> Any:
    x, z, real, temperature = kept
    pull = jnp.where(real, cotangent, 0.0)

    def add(total: Array, place: Array, logits: Array, rows: Array) -> Array:
        return total + (pull.reshape(-1)[place][:, None] * jax.nn.softmax(logits, axis=1)).T @ rows

    total = _over_pairs(add, jnp.zeros_like(z), x, z, real, temperature)
    return None, (total - (pull[:, :, None] * x).sum(1)) / temperature, None, None


surprise.defvjp(_kept, _pulled)


def _over_pairs(
    add: Callable[..., Array], sums: Array, x: Array, z: Array, real: Array, temperature: Array | float
) -> Array:
    """`add(sums, place [n], logits [n, n], rows [n, D])` over the real pairs, n at a time; others stand behind the last
    one."""
    n, m = real.shape
    number, rows = real.sum(1), x.reshape(n * m, -1)
    often = jnp.where(number > 0, jnp.log(jnp.maximum(number, 1).astype(jnp.float32)), NEVER)
    order = ordered((~real.reshape(-1)).astype(jnp.int32))

    def some(i: Array, sums: Array) -> Array:
        place = jax.lax.dynamic_slice_in_dim(order, i * n, n)
        return add(sums, place, rows[place] @ z.T / temperature + often, rows[place])

    return jax.lax.fori_loop(0, -(-number.sum() // n), some, sums)
