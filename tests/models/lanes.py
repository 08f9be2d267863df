"""A model of histories under replay and EWC: one program of packed lanes, on compact rows."""

from typing import Any

import jax
import jax.numpy as jnp
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
        name: history.astype(np.int32)
        if name == "history"
        else rng.integers(0, 1000, (ROWS, *spec.inputs[name].shape)).astype(np.int32)
        for name in names
    }
    fields: Any = (np.ones(ROWS, np.float32), np.ones(ROWS, bool), np.full(ROWS, t, np.int32), users)
    whole: Any = (np.int32(ROWS), np.int32(t), labels, {"user": users})
    rows: Any = Batch(inputs, labels, *fields)  # type: ignore[arg-type]
    return jax.tree.map(jnp.asarray, Data(rows, *whole))


def assert_trains_in_lanes_on_compact_rows(model: Model, spec: Spec) -> None:
    """Two increments under replay and EWC in one program of two lanes: every parameter is trained, and remembered."""
    parts = [part(t, spec, model.inputs) for t in range(2)]
    data: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    own = problem(model, sampled_softmax(negatives=4), spec, SIZES)
    strategies = {"replay": replay(own, capacity=8, rows=4), "ewc": ewc(own, weight=10.0, samples=8)}
    steps = training(batch_size=BATCH, patience=0, rows="compact")
    made = make(own, optimizers.sgd(learning_rate=0.1), strategies, sizes=SIZES, training=steps)

    def update(state: Any, data: Data) -> tuple[Any, Any]:
        state, info = made.run_epoch(made.begin(state, data), data)
        return made.end(state, data), info.terms

    def run(key: Any) -> Any:
        start = made.init(key)
        return start.learner.params, *jax.lax.scan(update, start, data)

    start, state, terms = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2))
    assert {name: leaf.shape for name, leaf in terms.items()} == {"data": (2, 2), "ewc": (2, 2)}
    assert (terms["data"] > 0).all()
    assert (terms["ewc"][:, 1] > 0).all()  # in increment 1 the penalty acts
    assert state.strategy["replay"].rows.valid.all()
    trained = jax.tree.map(lambda old, new: (old != new).reshape(2, -1).any(1), start, state.learner.params)
    assert all(np.asarray(leaf).all() for leaf in jax.tree.leaves(trained)), trained
    for leaf in jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0] != leaf[1], state.learner.params)):
        assert leaf.any()  # the lanes are seeds
