"""Jitted functions that compile apart from their first run, so that an update is timed without compilation."""

import time
from collections.abc import Callable
from typing import Any

import jax


class Compiled:
    """`jax.jit(function)`, compiled ahead of time for each new set of argument shapes.

    `placement`: `in_shardings` and `out_shardings`, as `jax.jit` takes them.
    """

    def __init__(self, function: Callable[..., Any], donate: tuple[int, ...] = (), **placement: Any) -> None:
        self.jitted = jax.jit(function, donate_argnums=donate, **placement)
        self.programs: dict[Any, jax.stages.Compiled] = {}
        self.seconds = 0.0
        """spent on tracing and compilation"""

    def program(self, *args: Any) -> jax.stages.Compiled:
        """The compiled program for these arguments (arrays or shapes)."""
        leaves, structure = jax.tree.flatten(args)
        signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in self.programs:
            start = time.perf_counter()
            self.programs[signature] = self.jitted.lower(*args).compile()
            self.seconds += time.perf_counter() - start
        return self.programs[signature]

    def traced(self, *args: Any) -> Any:
        """The shapes of what it returns; the trace is kept for the program."""
        start = time.perf_counter()
        shapes = jax.eval_shape(self.jitted, *args)
        self.seconds += time.perf_counter() - start
        return shapes

    def __call__(self, *args: Any) -> Any:
        return self.program(*args)(*args)

    @property
    def traces(self) -> int:
        """How many programs there are: one for each capacity."""
        return len(self.programs)
