"""GraphSAIL: self, local and global distances to the last model (Xu et al. 2020, arXiv 2008.13517)."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core import clusters as groups
from incremental.core import neighbours as graph
from incremental.core import sides
from incremental.core.distillation import NEVER, Taught, taught, untaught
from incremental.core.sides import Sides
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Outputs, Params, Problem
from incremental.domains import Count, NotNegative, Positive, checked
from incremental.errors import UserError

Divergence = Literal["old_new", "new_old"]
EPS = 1e-8  # under the root of the self distance, which else has no gradient where nothing has moved


class Remembered(NamedTuple):
    """The last model and its graph, and what follows from them for the present increment."""

    taught: Taught
    history: Sides  # of `Neighbours`: the graph of all increments that are finished
    until: Array  # [] int32: the last of them
    places: Sides  # [W n] and [V n] int32: where its lists have neighbours
    old: Sides  # [W, D] and [V, D]: the last model's outputs
    said: Sides  # [W] and [V]: the products of the last model's outputs with the means of their neighbours'
    inertia: Sides  # [W] and [V]: η / ‖η‖
    members: Sides  # [W] and [V] int32: the clusters of the last model's outputs


@checked
def graphsail(
    problem: Problem,
    *,
    self_weight: NotNegative = 100.0,
    local_weight: NotNegative = 1.0,
    global_weight: NotNegative = 1.0,
    clusters: Count = 10,
    temperature: Positive = 1.0,
    divergence: Divergence = "new_old",
    neighbours: Count = 20,
) -> Strategy:
    """Loss: self_weight · Self + local_weight · Local + global_weight · Global, distances to the last increment's end.

    e_u and e_i are the present outputs of the users U and the items I that the last model was trained on, e'_u and e'_i
    the last model's; others are left out. The formulas have the users' part; the items' part is added to it.

    - Self = (1/|U|) Σ_u (η_u / ‖η‖₂) ‖e'_u - e_u‖₂ with η_u = |N'_u| / (|N_u| + 1): N'_u are the events of u in the
      increments before, N_u those in the present one. Who brings little new data stays. The norm is
      √(x² + 1e-8) - 1e-4, whose gradient at 0 is 0.
    - Local = (1/|U|) Σ_u (⟨e'_u, m'_u⟩ - ⟨e_u, m_u⟩)², m_u the mean of e_i over the last `neighbours` items of N'_u,
      m'_u that of e'_i. An item that came twice counts twice.
    - Global = ¼ Σ of four means over users or items of KL between old and new memberships: of users in clusters of
      users and of items, of items in clusters of items and of users. A membership is softmax_k(⟨e, a_k⟩ / τ), τ =
      `temperature`, over K = `clusters` anchors. k-means on e' makes the clusters at an increment's start. Old anchors
      are the means of the members' e', new ones those of their present e, through which no gradient goes: so old and
      new anchors are matched. `divergence` "old_new" is KL(old ‖ new), "new_old" KL(new ‖ old).

    Two implementations differ: K 10, τ 1, KL(new ‖ old) and Self times 100, as here, or K 5, τ .1, KL(old ‖ new) and no
    Self. Both cluster old and new outputs apart; the paper's own equations were not checked. Of a model on a graph both
    outputs are computed over the present increment's graph. It needs a model that reads the user alone, for a user of
    others has no output. Each step computes all outputs; compact rows are refused. State: P + (W + V) (D +
    2 `neighbours` + 5) numbers.
    """
    if divergence not in get_args(Divergence):
        raise UserError(f"strategies.graphsail.divergence={divergence!r}: expected {' or '.join(get_args(Divergence))}")

    def init(learner: Learner) -> Remembered:
        sides.refuse("graphsail", problem)
        state, history = untaught(learner), graph.nobody(learner, neighbours)
        old = sides.outputs(problem, learner.params, len(history.users.degree))
        zeros = Sides(*(jnp.zeros_like(side.degree) for side in history))
        members = jax.tree.map(lambda side: side.astype(jnp.int32), zeros)
        places = Sides(*(side.latest.reshape(-1) for side in history))
        nothing = jax.tree.map(jnp.zeros_like, old)
        return Remembered(state, history, jnp.int32(-1), places, nothing, zeros, zeros, members)

    def begin(state: Remembered, learner: Learner, data: Data, key: Array) -> tuple[Remembered, Learner]:
        known = of_both(state.taught)
        old = sides.outputs(problem, state.taught.teacher.params, len(known.users))
        new = graph.with_events(graph.nobody(learner, 1), data, state.until)
        members = [
            groups.nearest(side, groups.k_means(side, who, clusters, each))
            for side, who, each in zip(old, known, jax.random.split(key), strict=True)
        ]
        state = state._replace(
            places=Sides(*(graph.filled(side.latest) for side in state.history)),
            old=old,
            inertia=Sides(*map(inertia_of, state.history, new, known)),
            members=Sides(*members),
        )
        return state._replace(said=affinities(state, old)), learner

    def loss(state: Remembered, params: Params, batch: Batch, outputs: Outputs) -> Array:
        del batch, outputs
        known, old = of_both(state.taught), state.old
        # Without the barrier XLA puts these and the data loss's into one loop, and weight 0 changes the last bits.
        new = sides.outputs(problem, jax.lax.optimization_barrier(params), len(known.users))

        def anchors(vectors: Sides) -> list[tuple[Array, Array]]:
            """The users' and the items' [K, D], and which of them have members [K]."""
            return [groups.means(*each, clusters) for each in zip(vectors, state.members, known, strict=True)]

        own = local = total = jnp.float32(0.0)
        said = affinities(state, new)
        before, now = anchors(old), jax.lax.stop_gradient(anchors(new))
        for a in (0, 1):  # users, then items
            share = known[a] / jnp.maximum(known[a].sum(), 1)
            way = jnp.sqrt(((new[a] - old[a]) ** 2).sum(1) + EPS) - EPS**0.5
            own += (share * state.inertia[a] * way).sum()
            local += (share * (state.said[a] - said[a]) ** 2).sum()
            for (old_centres, full), (new_centres, _) in zip(before, now, strict=True):
                logs = [
                    jax.nn.log_softmax(jnp.where(full, vectors @ centres.T / temperature, NEVER))
                    for vectors, centres in ((old[a], old_centres), (new[a], new_centres))
                ]
                p, q = logs if divergence == "old_new" else reversed(logs)
                total += (share * (jnp.exp(p) * (p - q)).sum(1)).sum() / 4
        ready = state.taught.teacher.ready
        return ready * (self_weight * own + local_weight * local + global_weight * total)

    def end(state: Remembered, learner: Learner, data: Data, key: Array) -> tuple[Remembered, Learner]:
        history = graph.with_events(state.history, data, state.until)
        last, learner = taught(state.taught, learner, data, key)
        return state._replace(taught=last, history=history, until=data.increment), learner

    return Strategy(init=init, begin=begin, loss=loss, end=end)


def of_both(state: Taught) -> Sides:
    """[W] and [V] bool: whom the last model was trained on."""
    return Sides(state.known.others["user"], state.known.labels)


def inertia_of(old: graph.Neighbours, new: graph.Neighbours, known: Array) -> Array:
    """[capacity]: η / ‖η‖₂ of the ids that are known, 0 of others."""
    eta = jnp.where(known, old.degree / (new.degree + 1.0), 0.0)
    return eta / jnp.maximum(jnp.sqrt((eta**2).sum()), 1e-12)


def affinities(state: Remembered, vectors: Sides) -> Sides:
    """[W] and [V]: the product of each vector with the mean of its neighbours' in the last model's graph."""
    lists, places = state.history, state.places
    return Sides(
        graph.affinity(vectors.users, vectors.items, lists.users.latest, places.users),
        graph.affinity(vectors.items, vectors.users, lists.items.latest, places.items),
    )
