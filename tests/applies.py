"""Which models, heads and rows a strategy can be put beside."""

from collections.abc import Callable
from typing import Any

import jax

from incremental.core.gradient import make, training
from incremental.core.optimizers import adam
from incremental.core.problem import Head, problem
from incremental.core.spec import next_item
from incremental.core.strategy import Strategy
from incremental.testing.subject import HISTORY, LARGE, Subject
from tests import lab


def trace(made: Callable[[Any], Strategy], model: str, head: Callable[[], Head], *, rows: Any = "dense") -> None:
    """An increment of a model of `lab.MODELS`, traced and not compiled; raises what a run would."""
    own = problem(lab.MODELS[model](), head(), next_item(HISTORY), LARGE)
    program = make(own, adam(), {"it": made(own)}, sizes=LARGE, training=training(batch_size=4, rows=rows))
    data = Subject(lambda _problem: Strategy(), {}, lab.MODELS[model]()).data[1]
    state = jax.eval_shape(program.init, jax.random.key(0))
    for name in ("begin", "run_epoch", "end"):
        changed: Any = jax.eval_shape(getattr(program, name), state, data)
        changed = changed[0] if name == "run_epoch" else changed
        assert lab.types(changed) == lab.types(state), name
