"""A model of histories under replay and EWC: one program of packed lanes, on compact rows."""

from functools import partial
from typing import Any

import jax
import numpy as np

from incremental.core import optimizers
from incremental.core.gradient import make, training
from incremental.core.problem import Model, problem
from incremental.core.spec import Sizes, Spec
from incremental.core.types import Batch, Data
from incremental.heads.sampled_softmax import sampled_softmax
from incremental.strategies.ewc import ewc
from incremental.strategies.replay import replay

SIZES = Sizes(item=131, user=67)  # more than the ids of any batch
ROWS, BATCH, HISTORY = 12, 8, 4


def part(t: int, spec: Spec, names: tuple[str, ...]) -> Data:
    """Increment t; inputs beside histories are uniform in 0..999."""
    rng = np.random.default_rng(t)
    history = np.where(np.arange(HISTORY) >= rng.integers(0, HISTORY, (ROWS, 1)), rng.integers(1, 40, (ROWS, 4)), 0)
    labels, users = (rng.integers(1, 40, ROWS).astype(np.int32) for _ in range(2))
    inputs = {
        name: {"history": history, "following": history[:, ::-1]}[name].astype(np.int32)
        if name in ("history", "following")
        else rng.integers(0, 1000, (ROWS, *spec.inputs[name].shape)).astype(np.int32)
        for name in names
    }
    fields: Any = (np.ones(ROWS, np.float32), np.ones(ROWS, bool), np.full(ROWS, t, np.int32), users)
    whole: Any = (np.int32(ROWS), np.int32(t), labels, {"user": users})
    return Data(Batch(inputs, labels, *fields), *whole)  # type: ignore[arg-type]


def assert_trains_in_lanes_on_compact_rows(model: Model, spec: Spec) -> None:
    """Two increments under replay and EWC in one program of two lanes: every parameter is trained, and remembered."""
    own = problem(model, sampled_softmax(negatives=4), spec, SIZES)
    strategies = {"replay": replay(own, capacity=8, rows=4), "ewc": ewc(own, weight=10.0, samples=8)}
    steps = training(batch_size=BATCH, patience=0, rows="compact")
    made = make(own, optimizers.sgd(learning_rate=0.1), strategies, sizes=SIZES, training=steps)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def update(state: Any, data: Data) -> tuple[Any, Any]:
        state, info = made.run_epoch(made.begin(state, data), data)
        return made.end(state, data), info.terms

    state = jax.jit(jax.vmap(made.init))(jax.random.split(jax.random.key(0), 2))
    start, terms = jax.device_get(state.learner.params), dict[str, jax.Array]()
    for t in range(2):
        state, terms = update(state, part(t, spec, model.inputs))
        assert {name: leaf.shape for name, leaf in terms.items()} == {"data": (2,), "ewc": (2,)}
        assert (np.asarray(terms["data"]) > 0).all()
    assert (np.asarray(terms["ewc"]) > 0).all()  # in increment 1 the penalty acts
    assert np.asarray(state.strategy["replay"].rows.valid).all()
    params = jax.device_get(state.learner.params)
    trained = jax.tree.map(lambda old, new: (old != new).reshape(2, -1).any(1), start, params)
    assert all(leaf.all() for leaf in jax.tree.leaves(trained)), trained
    for leaf in jax.tree.leaves(params):
        assert (leaf[0] != leaf[1]).any()  # the lanes are seeds
