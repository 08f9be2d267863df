"""A strategy under test: a tiny stream, and its programs on it."""

import functools
import gc
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.gradient import Training, make
from incremental.core.optimizers import adam
from incremental.core.problem import Model, problem, read
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Params, Problem, PyTree, State
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.matrix_factorization import matrix_factorization
from incremental.testing.looks import difference, types_of

Factory = Callable[..., Strategy]

INCREMENTS, EPOCHS, BATCH, HISTORY = 3, 3, 16, 6
ROWS = (60, 44, 52)  # unequal, and no multiples of a batch
CAPACITY = 64
SMALL, LARGE = (
    Sizes(item=14, user=16),
    Sizes(item=20, user=22),
)  # the ids of increments 0 and 1; those of increment 2 as well
SPEC = next_item(HISTORY)
NAME = "checked"
MODEL = matrix_factorization(width=8)


def _rows(model: Model, t: int, first: int) -> Batch:
    """The rows of increment t, numbered from `first` in their weights so that each can be recognised."""
    rng = np.random.default_rng(t)
    users, items = (10, 8) if t < 2 else (16, 14)
    n = ROWS[t]
    chances = 1.0 / np.arange(1, items + 1)  # unequal, so that quotas differ
    labels = np.zeros(CAPACITY, np.int32)
    labels[:n] = rng.choice(items, n, p=chances / chances.sum()) + 1
    user, history = np.zeros(CAPACITY, np.int32), np.zeros((CAPACITY, HISTORY), np.int32)
    # Tastes depend on the user and turn with the increments, so that there is something to learn and to forget.
    user[:n] = (labels[:n] * (t + 1) + rng.integers(0, 3, n)) % users + 1
    lengths = rng.integers(1, HISTORY + 1, CAPACITY)
    past = rng.integers(1, items + 1, history.shape)
    history[:n] = np.where(np.arange(HISTORY) >= HISTORY - lengths[:, None], past, 0)[:n]
    real = np.arange(CAPACITY) < n
    weight = np.where(real, 1.0 + (first + np.arange(CAPACITY)) / 4096, 0.0).astype(np.float32)
    inputs = {name: {"user": user, "history": history, "following": history[:, ::-1]}[name] for name in model.inputs}
    fields: list[Any] = [inputs, labels, weight, real, np.where(real, t, 0).astype(np.int32), user]
    return Batch(*fields)


def _data(model: Model) -> tuple[Data, ...]:
    """Three increments."""
    parts = []
    for t in range(INCREMENTS):
        rows: Any = _rows(model, t, sum(ROWS[:t]))
        parts.append(Data(rows, np.int32(ROWS[t]), np.int32(t), rows.labels, {"user": rows.owner}))  # type: ignore[arg-type]
    return tuple(jax.tree.map(jnp.asarray, parts))


class Path(NamedTuple):
    """What one increment's training went through."""

    begun: State
    strategy: PyTree  # after each epoch, [epochs, ...]
    params: Params  # after each epoch
    term: Array  # [epochs] float32: the strategy's own loss term, mean over the steps
    data: Array  # [epochs] float32: the data loss, mean over the steps
    ended: State
    scores: Array  # [B, V] float32, of the first rows, as evaluated


class Subject:
    """A strategy under test: its programs on the tiny stream, floats traced, compiled once each."""

    def __init__(self, factory: Factory, arguments: dict[str, Any], model: Model) -> None:
        self.factory, self.model = factory, model
        floats, fixed = {}, {}
        parameters = inspect.signature(factory, eval_str=True).parameters
        for name, parameter in parameters.items():
            value = arguments.get(name, parameter.default)
            kind = parameter.annotation  # `Annotated[float, ...]` where the number has bounds
            kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
            if kind is float and isinstance(value, int | float):
                floats[name] = jnp.float32(value)
            elif name in arguments:
                fixed[name] = value
        left = set(arguments) - set(parameters)
        if left and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise UserError(f"check_strategy: arguments {sorted(left)} are no parameters of the factory")
        self.floats, self.fixed = floats, fixed
        read(model, SPEC)
        self.data = _data(model)
        self.programs: dict[Sizes, tuple[Any, Any]] = {}

    def problem(self, sizes: Sizes) -> Problem:
        return problem(self.model, full_softmax(), SPEC, sizes)

    def strategy(self, floats: Mapping[str, Any], sizes: Sizes = LARGE) -> Strategy:
        return self.factory(self.problem(sizes), **self.fixed, **floats)

    def program(self, floats: Mapping[str, Any], sizes: Sizes) -> Program:
        steps = Training(batch_size=BATCH, epochs=EPOCHS, patience=0)
        parts = {NAME: self.strategy(floats, sizes)}
        return make(self.problem(sizes), adam(learning_rate=0.05), parts, sizes=sizes, training=steps)

    def init(self, floats: Mapping[str, Any], seed: Array, sizes: Sizes) -> State:
        return self.program(floats, sizes).init(jax.random.key(seed))

    def increment(self, floats: Mapping[str, Any], state: State, data: Data, sizes: Sizes) -> Path:
        program = self.program(floats, sizes)
        begun = program.begin(state, data)

        def one(run: Any, state: State) -> tuple[State, Array, Array]:
            state, info = run(state, data)
            return (
                state,
                sum(jax.tree.leaves(info.terms.get(NAME, 0.0)), jnp.float32(0.0)),
                info.terms["data"],
            )

        def epoch(state: State, _: None) -> tuple[State, Any]:
            acting = functools.partial(one, program.run_epoch)
            if program.base_epoch is None:
                state, term, loss = acting(state)
            else:
                base = functools.partial(one, program.base_epoch)
                state, term, loss = jax.lax.cond(data.increment == 0, base, acting, state)
            return state, (state.strategy, state.learner.params, term, loss)

        trained, (own, params, term, loss) = jax.lax.scan(epoch, begun, None, length=EPOCHS)
        ended = program.end(trained, data)
        inputs = jax.tree.map(lambda leaf: leaf[:8], data.rows.inputs)
        return Path(begun, own, params, term, loss, ended, program.scores(ended, inputs))

    def compiled(self, sizes: Sizes) -> tuple[Any, Any]:
        """(init, increment) under jit."""
        if sizes not in self.programs:
            init, increment = (jax.jit(functools.partial(each, sizes=sizes)) for each in (self.init, self.increment))
            self.programs[sizes] = init, increment
        return self.programs[sizes]

    def run(
        self, floats: Mapping[str, Any] | None = None, *, data: Sequence[Data] | None = None, sizes: Sizes = LARGE
    ) -> list[Path]:
        """The path of every increment of `data`."""
        init, increment = self.compiled(sizes)
        floats = self.floats if floats is None else floats
        state, paths = init(floats, jnp.uint32(0)), []
        for part in self.data if data is None else data:
            paths.append(increment(floats, state, part))
            state = paths[-1].ended
        return paths

    # -- what must hold before anything can run ----------------------------------------------------------------------

    def shapes(self) -> Iterator[str]:
        """Broken laws that tracing alone shows."""
        data, (init, increment) = self.data[1], self.compiled(LARGE)
        try:
            state = jax.eval_shape(init, self.floats, jnp.uint32(0))
        except Exception as error:
            yield _told("init", error)
            return
        program = self.program(self.floats, LARGE)  # lives on between the traces, as in a run
        given: dict[str, tuple[Any, ...]] = {"init": (jax.random.key(0),), "begin": (state, data), "end": (state, data)}
        for name, arguments in given.items():
            if (broken := _traced(getattr(program, name), arguments)) is not None:
                yield _told(name, broken)
                return
        types = types_of((state.strategy, state.learner))
        try:  # the trace that the run itself needs; only where it shows a fault are the hooks looked at apart
            path = jax.eval_shape(increment, self.floats, state, data)
            if all(types_of((each.strategy, each.learner)) == types for each in (path.begun, path.ended)):
                return
        except Exception:
            pass
        hooks: dict[str, Callable[[Program], Callable[..., Any]]] = {
            "begin": lambda program: program.begin,
            "run_epoch": lambda program: lambda state, data: program.run_epoch(state, data)[0],
            "end": lambda program: program.end,
        }
        for name, hook in hooks.items():
            try:
                changed = jax.eval_shape(lambda f, s: hook(self.program(f, LARGE))(s, data), self.floats, state)  # noqa: B023
            except Exception as error:
                yield _told(name, error)
                continue
            if types_of(changed.strategy) != types_of(state.strategy):
                what = difference(state.strategy, changed.strategy)
                yield (
                    f"its state's shapes or dtypes change in `{name}` ({what}): "
                    "every increment would compile anew, and a checkpoint of one could not be restored in the next"
                )
            if types_of(changed.learner) != types_of(state.learner):
                yield f"it changes the shapes or dtypes of the learner in `{name}`: nothing after it could run"


def _traced(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Exception | None:
    """What tracing a function raises; an UnexpectedTracerError where only something that it keeps is wrong."""
    gc.freeze()  # JAX searches the other objects for who keeps a tracer, in a long test run for minutes
    try:
        with jax.checking_leaks():
            jax.eval_shape(function, *arguments)
    except Exception as error:
        try:
            jax.eval_shape(function, *arguments)
        except Exception:
            return error
        return jax.errors.UnexpectedTracerError("a value outlives the call that made it")
    finally:
        gc.unfreeze()
    return None


def _told(hook: str, error: Exception) -> str:
    """An exception of a hook as a broken law."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    outside = (jax.errors.UnexpectedTracerError, UnboundLocalError)
    if isinstance(error, outside):
        return (
            f"`{hook}` keeps or needs something that is not in its arguments ({type(error).__name__}: {first}): state "
            "kept outside the state is a constant under jit, so that the first increment's anchor would hold for ever"
        )
    if isinstance(error, jax.errors.ConcretizationTypeError | jax.errors.TracerBoolConversionError):
        return (
            f"`{hook}` or the factory uses a number's value in Python, as in `if weight:` ({first}): a float may be "
            "traced, or a sweep over it could not be one program; use jnp.where, or annotate a static choice bool "
            "or int"
        )
    if isinstance(error, TypeError) and ("carry" in str(error) or "body_fun" in str(error)):
        return (
            f"its state's shapes or dtypes change in `record`, or the learner's in a step ({first}): an epoch is one "
            "compiled loop, which needs a state of constant type"
        )
    return f"`{hook}` fails: {type(error).__name__}: {first}"
