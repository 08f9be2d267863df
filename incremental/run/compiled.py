"""Jitted functions that compile apart from their first run, so that an update is timed without compilation."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Spent(NamedTuple):
    """What compilation took.

    Attributes:
        seconds: of tracing and compilation, in whatever thread
        waited: seconds for which a caller stood still for it
    """

    seconds: float = 0.0
    waited: float = 0.0

    def less(self, other: "Spent") -> "Spent":
        """What was spent beside `other`."""
        return Spent(self.seconds - other.seconds, self.waited - other.waited)


class Compiled:
    """`jax.jit(function)`, compiled ahead of time for each new set of argument shapes, once: a thread that needs a
    program which another one is compiling waits for it.

    `placement`: `in_shardings` and `out_shardings`, as `jax.jit` takes them.
    """

    def __init__(self, function: Callable[..., Any], donate: tuple[int, ...] = (), **placement: Any) -> None:
        self.jitted = jax.jit(function, donate_argnums=donate, **placement)
        self.programs: dict[Any, jax.stages.Compiled] = {}
        self.lock = threading.Lock()  # of what follows
        self.making: dict[Any, threading.Event] = {}
        self.spent = Spent()

    def program(self, *args: Any) -> jax.stages.Compiled:
        """The compiled program for these arguments (arrays or shapes)."""
        signature = signature_of(args)
        found = self.programs.get(signature)
        if found is None:
            start = time.perf_counter()
            found = self._made(signature, args)
            self._add(waited=time.perf_counter() - start)
        return found

    def traced(self, *args: Any) -> Any:
        """The shapes of what it returns; the trace is kept for the program."""
        start = time.perf_counter()
        shapes = jax.eval_shape(self.jitted, *args)
        passed = time.perf_counter() - start
        self._add(seconds=passed, waited=passed)
        return shapes

    def ahead(self, *args: Any) -> Any:
        """Compiles the program for these arguments before they are there, in a thread that nobody waits for: shapes
        stand for them. The shapes of what it returns."""
        signature = signature_of(args)
        if signature not in self.programs:
            self._made(signature, args)
        return jax.eval_shape(self.jitted, *args)

    def _made(self, signature: Any, args: tuple[Any, ...]) -> jax.stages.Compiled:
        """The program, from this thread or another one; where the other one fails this one tries, and says why."""
        own = threading.Event()
        while True:
            with self.lock:
                if signature in self.programs:
                    return self.programs[signature]
                other = self.making.setdefault(signature, own)
            if other is own:
                break
            other.wait()
        start = time.perf_counter()
        try:
            self.programs[signature] = self.jitted.lower(*args).compile()
        finally:
            self._add(seconds=time.perf_counter() - start)
            with self.lock:
                del self.making[signature]
            own.set()
        return self.programs[signature]

    def _add(self, seconds: float = 0.0, waited: float = 0.0) -> None:
        with self.lock:
            self.spent = Spent(self.spent.seconds + seconds, self.spent.waited + waited)

    def __call__(self, *args: Any) -> Any:
        return self.program(*args)(*args)

    @property
    def traces(self) -> int:
        """How many programs there are: one for each capacity."""
        return len(self.programs)


def signature_of(args: tuple[Any, ...]) -> Any:
    """What tells programs apart: structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(args)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def spent_by(owner: object) -> Spent:
    """What the functions that `owner` has as attributes have spent."""
    each = [one.spent for one in {one for one in vars(owner).values() if isinstance(one, Compiled)}]
    return Spent(sum(one.seconds for one in each), sum(one.waited for one in each))
