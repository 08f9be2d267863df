"""A guest: a builder of a Program that averages clients' steps (McMahan et al. 2017, FedAvg with one local step each).

In a round each client takes one SGD step on its own examples from the common weights, and the server takes the mean of
the clients' weights, each counted by its examples. The clients are the owners of the examples, modulo their number.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import incremental as inc
from incremental.core import steps
from incremental.core.ranking import rankable, ranker
from incremental.core.types import Info
from incremental.run.feed import Capacities
from tests import lab


def federated(problem: inc.Problem, *, sizes: inc.Sizes, clients: int, rounds: int, rate: float) -> inc.Program:
    """The program; what is not a client's step is made of the functions that `make` is made of."""
    setup = steps.Setup(problem, inc.chain(), optax.with_extra_args_support(optax.sgd(rate)))

    def init(key: jax.Array) -> inc.State:
        return inc.State(steps.new_learner(setup, sizes, key), {}, steps.fresh_fit(), key)

    def local(
        params: Any, learner: inc.Learner, rows: inc.Batch, client: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array]:
        """One client's weights after its step, how many examples it has, and their loss."""
        own = rows._replace(valid=rows.valid & (rows.owner % clients == client), candidates=learner.catalogue.seen)
        number = own.valid.sum().astype(jnp.float32)

        def loss(params: Any) -> jax.Array:
            return steps.data_loss(setup, params, {}, learner.increment, own, jnp.maximum(number, 1.0), None)[0]

        value, grads = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, grads), number, value

    def epoch(state: inc.State, data: inc.Data) -> tuple[inc.State, Info]:
        """One round."""
        learner = state.learner
        weights, numbers, losses = jax.vmap(partial(local, learner.params, learner, data.rows))(jnp.arange(clients))
        share = numbers / jnp.maximum(numbers.sum(), 1.0)
        mean = jax.tree.map(lambda leaves: jnp.tensordot(share, leaves, 1), weights)
        fit = state.fit._replace(epoch=state.fit.epoch + 1, active=state.fit.epoch + 1 < rounds)
        info = Info((share * losses).sum(), {}, data.rows.valid.sum(), jnp.int32(1), None, {})
        return state._replace(learner=learner._replace(params=mean), fit=fit), info

    def raw(state: inc.State, inputs: dict[str, jax.Array]) -> jax.Array:
        return steps.outputs(setup, state, inputs).scores

    scores = rankable(raw, problem.inputs)

    def nothing(*_: Any) -> None: ...

    return inc.Program(
        init=init,
        restart=lambda state, _data: init(state.key)._replace(fit=state.fit),
        begin=lambda state, data: steps.begin(setup, state, data, reset=False, fit=nothing),
        base_epoch=None,
        run_epoch=epoch,
        validate=lambda state, _data, _seen: state,
        end=lambda state, data: steps.end(setup, state, data, fit=nothing),
        rank=ranker(scores, batch_size=64, cutoffs=(10,)),
        scores=scores,
        represent=None,
        tables=lambda _state: {kind: {} for kind in sizes},
        inputs=problem.inputs,
        epochs=rounds,
        keeps=False,
        cutoffs=(10,),
        sizes=sizes,
    )


def build(clients: int, rounds: int, sizes: inc.Sizes) -> inc.Program:
    return federated(lab.problem_of(lab.Spec(), sizes), sizes=sizes, clients=clients, rounds=rounds, rate=2.0)


def ran(clients: int, rounds: int) -> Any:
    """Each client computes all of an update's rows: padding would be most of the work."""
    feed = {"capacities": Capacities(table=128, examples=128)}
    return lab.run(partial(build, clients, rounds), lab.stream(), feed=feed)


def test_it_runs_a_stream_as_any_program() -> None:
    result = ran(5, 20)
    assert [cost.epochs for cost in result.costs] == [20] * 4
    quality = [record.value for record in result.records if record.metric == "ndcg@10"]
    untrained = ran(5, 1)
    assert np.mean(quality) > np.mean([r.value for r in untrained.records if r.metric == "ndcg@10"])


def test_with_one_step_each_the_mean_is_the_step_on_all_examples() -> None:
    """Σ n_c/n (θ - η g_c) = θ - η g: however many clients the examples lie with."""
    one, many = (ran(clients, 3).state.learner.params for clients in (1, 7))
    lab.assert_close(many, one, rtol=1e-4, atol=1e-5)
