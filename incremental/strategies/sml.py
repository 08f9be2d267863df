"""SML: a trained net makes each table row from the old one and the newly fitted one (Zhang et al., SIGIR 2020)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import unflatten_dict
from jax import Array

from incremental.core.ids import Ids, nobody, rows_of, trained
from incremental.core.leaves import by_path, replaced
from incremental.core.strategy import Strategy, named_key
from incremental.core.types import Anchor, Data, Learner, Net, Params, Problem
from incremental.domains import Count, NotNegative, checked
from incremental.errors import UserError

Weights = dict[str, Array]

FILTERS, CHANNELS = 10, 5


class Transfer(NamedTuple):
    """The old rows, and the nets that make new ones of them.

    Attributes:
        past: the tables as they were when the increment began, w
        nets: their weights by the table's path
        known: whose rows are transferred
        begun: [] int32: updates so far, the base part and the running one among them
    """

    past: Anchor
    nets: Net
    known: Ids
    begun: Array


@checked
def sml(
    problem: Problem,
    *,
    rate: NotNegative = 1e-3,
    decay: NotNegative = 1e-4,
    epochs: Count = 1,
    hidden: Count = 512,
) -> Strategy:
    """The model's table rows are net(w, ŵ): w those of the last increment's end, ŵ the parameters, which are trained.

    In increment t: (a) ŵ is fitted on D_t *through* the frozen net: training sees net(w, ŵ), whose gradient moves ŵ.
    D_{t+1} is tested with net(w, ŵ). (b) Then, before D_{t+1} is trained on, the net is: `epochs` epochs on D_{t+1}, by
    the data loss of net(w, ŵ), with Adam at `rate` from fresh moments and l2 `decay`; and ŵ, w ← net(w, ŵ). So no
    example changes a weight before its metrics are written. Each table with a row an id and D > 1 columns has a net of
    its own: users and items in a matrix factorisation, items in SASRec; biases and all other weights are trained as
    ever. Transferred are the rows of all ids that have arrived, the running increment's among them.

    net: the rows [w; ŵ; w ⊙ sg(ŵ) / ‖w‖] [3, D], 10 filters over the three, gelu, 5 mixtures of the 10, gelu, the 5 D
    numbers to `hidden`, gelu, to D; gelu(x) = x σ(1.702 x), sg: no gradient (Zhang et al. 2020, "How to Retrain
    Recommender System? A Sequential Meta-Learning Method", with their code's sizes).

    It starts as net(w, ŵ) = ŵ, so that `rate` = 0 is plain training but for rounding, where theirs starts at random and
    is trained for some periods before the first test. For x = gelu(x) - gelu(-x) four of its units a component pass ŵ
    on; the others start at random, with 0 behind them. Hence `hidden` is 2 D at least. They repeat (a) and (b) up to 10
    times with D_t and D_{t+1} in turn; here, as in ASMG's comparison, it is one round, for D_t is gone when D_{t+1} has
    come. Their l2 (1e-6) and rate (0.01) for ŵ are the optimizer's. Batches have `training.batch_size` examples.

    A step works on 6 D `hidden` products a table row, of the batch's rows with training.rows=compact, of all rows
    without. Strategies that take the parameters by themselves (EWC and its kin, teachers, IncCTR's scores of drawn
    items) see ŵ. Put it after strategies that rewrite rows. A fresh start is refused beside it. State: 1 float a table
    entry, 1 bool an id, and 6 D `hidden` floats a net.
    """

    def tables(params: Params) -> dict[str, Array]:
        """The tables that are transferred, by path."""
        found = {path: leaf for path, leaf in by_path(params).items() if path in problem.tables}
        return {path: leaf for path, leaf in found.items() if leaf.ndim == 2 and leaf.shape[1] > 1}

    def kept(params: Params) -> Anchor:
        return Anchor(unflatten_dict(tables(params), sep="/"))

    def started(params: Params, key: Array) -> Net:
        return Net({path: start(leaf.shape[1], hidden, named_key(key, path)) for path, leaf in tables(params).items()})

    def transferred(nets: Net, state: Transfer, params: Params) -> Params:
        """The parameters with net(w, ŵ) in the known ids' rows."""
        past, mine = by_path(state.past.params), by_path(rows_of(problem, params, state.known, others=False))
        return replaced(
            params,
            {
                path: jnp.where(mine[path], transfer(nets.weights[path], past[path], fresh), fresh)
                for path, fresh in tables(params).items()
            },
        )

    def init(learner: Learner) -> Transfer:
        wide = {path: leaf.shape[1] for path, leaf in tables(learner.params).items()}
        if not wide:
            raise UserError(
                "strategies.sml: the model has no table with a row of several numbers for each id, so that there is "
                "nothing to transfer; choose a model with such tables (matrix_factorization, sasrec, …), or leave sml "
                "out"
            )
        if hidden < 2 * max(wide.values()):
            raise UserError(
                f"strategies.sml.hidden={hidden}: expected at least {2 * max(wide.values())}, twice the width of "
                f"{max(wide, key=lambda path: wide[path])}, so that the net can start as plain training"
            )
        untrained = started(learner.params, jax.random.key(0))
        return Transfer(kept(learner.params), untrained, nobody(learner), jnp.int32(0))

    def begin(state: Transfer, learner: Learner, data: Data, key: Array, fit: Any) -> tuple[Transfer, Learner]:
        later = state.begun > 1  # else there are no rows yet that were fitted through a net
        nets = jax.tree.map(
            lambda old, fresh: jnp.where(later, old, fresh),
            state.nets,
            started(learner.params, named_key(key, "start")),
        )
        nets = fit(
            nets,
            data,
            named_key(key, "fit"),
            jnp.where(later, epochs, 0),
            of=lambda nets: transferred(nets, state, learner.params),
            tx=optax.chain(optax.add_decayed_weights(decay), optax.adam(rate)),
        )
        params = transferred(nets, state, learner.params)
        known = jax.tree.map(lambda known: known & (learner.increment > 0), trained(learner))
        return Transfer(kept(params), nets, known, state.begun + 1), learner._replace(params=params)

    def view(state: Transfer, params: Params, increment: Array, training: bool) -> Params:
        del increment, training
        return transferred(state.nets, state, params)

    return Strategy(init=init, begin=begin, view=view)


def gelu(x: Array) -> Array:
    """The sigmoid's approximation."""
    return x * jax.nn.sigmoid(1.702 * x)


def transfer(net: Weights, past: Array, fresh: Array) -> Array:
    """The rows [n, D] that the net makes of the old and the newly fitted ones [n, D]."""
    norm = jnp.maximum(jnp.linalg.norm(past, axis=1, keepdims=True), 1e-12)  # a row may be 0 before its first event
    rows = jnp.stack([past, fresh, past * jax.lax.stop_gradient(fresh) / norm])
    filtered = gelu(jnp.einsum("fr,rnd->fnd", net["filters"], rows) + net["filters_bias"][:, None, None])
    mixed = gelu(jnp.einsum("cf,fnd->cnd", net["mixtures"], filtered) + net["mixtures_bias"][:, None, None])
    flat = mixed.transpose(1, 0, 2).reshape(len(past), -1)
    return gelu(flat @ net["inner"] + net["inner_bias"]) @ net["outer"] + net["outer_bias"]


def start(width: int, hidden: int, key: Array) -> Weights:
    """A net that returns the newly fitted row; what does not serve this is uniform in ±1/sqrt(inputs), before 0s."""

    def drawn(name: str, shape: tuple[int, int], inputs: int) -> Array:
        return jax.random.uniform(named_key(key, name), shape, minval=-(inputs**-0.5), maxval=inputs**-0.5)

    d, sign, size = jnp.arange(width), jnp.array([1.0, -1.0]), CHANNELS * width
    one = jnp.array([[1.0, -1.0], [-1.0, 1.0]])  # gelu(x), gelu(-x) -> x, -x
    inner = drawn("inner", (size, hidden), size).at[:, : 2 * width].set(0.0)
    outer = jnp.zeros((hidden, width))
    for i in (0, 1):
        outer = outer.at[i * width + d, d].set(sign[i])
        for j in (0, 1):
            inner = inner.at[j * width + d, i * width + d].set(one[i, j])
    return {
        "filters": drawn("filters", (FILTERS, 3), 3).at[:2].set(jnp.outer(sign, jnp.array([0.0, 1.0, 0.0]))),
        "filters_bias": jnp.zeros(FILTERS),
        "mixtures": drawn("mixtures", (CHANNELS, FILTERS), FILTERS).at[:2].set(0.0).at[:2, :2].set(one),
        "mixtures_bias": jnp.zeros(CHANNELS),
        "inner": inner,
        "inner_bias": jnp.zeros(hidden),
        "outer": outer,
        "outer_bias": jnp.zeros(width),
    }
