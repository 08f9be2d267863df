"""Which models, heads and rows a strategy can be put beside."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from incremental.core.gradient import make, training
from incremental.core.graph import EDGES, no_edges, on_edges
from incremental.core.optimizers import adam
from incremental.core.problem import Head, problem
from incremental.core.program import Program
from incremental.core.spec import next_item
from incremental.core.strategy import Strategy
from incremental.core.tower import reading
from incremental.models.lightgcn import lightgcn
from incremental.testing.subject import HISTORY, LARGE, Subject
from tests import lab

MODELS = {**lab.MODELS, "lightgcn": lambda: lightgcn(width=8)}


def trace(
    made: Callable[[Any], Strategy], model: str, head: Callable[[], Head], *, rows: Any = "dense", name: str = "it"
) -> None:
    """An increment of a model of `MODELS`, traced and not compiled; raises what a run would."""
    trace_all({name: made}, model, head, rows=rows)


def trace_all(
    made: Mapping[str, Callable[[Any], Strategy]], model: str, head: Callable[[], Head], *, rows: Any = "dense"
) -> None:
    """The same of several strategies side by side."""
    own = MODELS[model]()

    def at(side: Mapping[str, Any]) -> Program:
        tiny = problem(own, head(), next_item(HISTORY), LARGE)
        if own.graph is not None:
            tiny = on_edges(tiny, own.graph, side[EDGES])
        parts = {name: factory(tiny) for name, factory in made.items()}
        return make(tiny, adam(), parts, sizes=LARGE, training=training(batch_size=4, rows=rows))

    data = Subject(lambda _problem: Strategy(), {}, own).data[1]
    if own.graph is None:
        program = at({})
    else:
        program = reading(at, {EDGES: no_edges()})
        data = data._replace(side={EDGES: jnp.array([[1, 1], [2, 3], [0, 0]])})
    state = jax.eval_shape(program.init, jax.random.key(0))
    for function in ("begin", "run_epoch", "end"):
        changed: Any = jax.eval_shape(getattr(program, function), state, data)
        changed = changed[0] if function == "run_epoch" else changed
        assert lab.types(changed) == lab.types(state), function
