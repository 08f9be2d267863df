"""One tiny problem for all laws, and its compiled programs: what is compiled once serves every test of a process."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
from omegaconf import OmegaConf

from incremental.app import config
from incremental.app.cli import config_folder
from incremental.core import gradient, optimizers
from incremental.core.problem import Baseline, Head, Model, problem
from incremental.core.program import Program
from incremental.core.spec import Input, Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Data, Info, Problem, State
from incremental.data.interactions import Interactions, Table
from incremental.data.simulator import simulate
from incremental.data.stream import Stream, make_stream
from incremental.heads.adaptive_softmax import adaptive_softmax
from incremental.heads.bce import bce
from incremental.heads.bpr import bpr
from incremental.heads.chunked_softmax import chunked_softmax
from incremental.heads.full_softmax import full_softmax
from incremental.heads.gbce import gbce
from incremental.heads.hierarchical_softmax import hierarchical_softmax
from incremental.heads.in_batch_softmax import in_batch_softmax
from incremental.heads.log_uniform_softmax import log_uniform_softmax
from incremental.heads.sampled_softmax import sampled_softmax
from incremental.models.gru4rec import gru4rec
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.oracle import oracle
from incremental.models.sasrec import sasrec
from incremental.run import alone, loop
from incremental.run.alone import Build
from incremental.run.executor import Executor
from incremental.run.feed import Capacities, Feed
from incremental.run.policy import Plan, Update, update
from incremental.run.progress import Event, Result
from incremental.run.stopping import restored
from incremental.strategies.ewc import ewc
from incremental.strategies.online_ewc import online_ewc
from incremental.strategies.replay import replay

HISTORY = 8  # L
SIZES = Sizes(item=128, user=128)  # of the tiny stream; no part of it has more examples than that either
FINETUNE = update()
POLICIES = {
    "static": update(window=0),
    "finetune": FINETUNE,
    "window": update(window=2),
    "retrain": update(window="all", start="afresh"),
}


class Dense(nn.Module):
    """The least model with a dense kernel: a user's row, and a layer on it."""

    sizes: Sizes

    def setup(self) -> None:
        self.user = nn.Embed(self.sizes["user"], 8)
        self.item = nn.Embed(self.sizes.slots, 8)
        self.layer = nn.Dense(8)

    def __call__(self, inputs: dict[str, jax.Array], key: Any) -> jax.Array:
        del key
        return self.layer(nn.relu(self.user(inputs["user"])))

    def items(self) -> tuple[jax.Array, jax.Array]:
        return self.item.embedding, jnp.zeros(self.sizes.slots)


@functools.cache
def dense() -> Model:
    """`Dense`, for strategies that act on kernels."""
    tables = {"user/embedding": "user", "item/embedding": "item"}
    return Model(lambda sizes, _history: Dense(sizes), ("user",), tables)


MODELS: dict[str, Callable[[], Model]] = {
    "mf": lambda: matrix_factorization(width=8),
    "sasrec": lambda: sasrec(width=8, blocks=1),
    "gru4rec": lambda: gru4rec(width=8),
}
HEADS: dict[str, Callable[[], Head]] = {
    "full": full_softmax,
    "chunked": lambda: chunked_softmax(chunk=100),
    "sampled": lambda: sampled_softmax(negatives=16),
    "log_uniform": lambda: log_uniform_softmax(negatives=16),
    "in_batch": in_batch_softmax,
    "adaptive": lambda: adaptive_softmax(cutoffs=(12, 40), shrink=2),
    "hierarchical": lambda: hierarchical_softmax(depth=32),  # enough for 500 items; a program is shorter
    "bpr": lambda: bpr(negatives=16),
    "bpr_own": lambda: bpr(negatives=2, shared=False),
    "bce": lambda: bce(negatives=16),
    "gbce": lambda: gbce(negatives=16),
}
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optimizers.adam(learning_rate=0.03),
    "sgd": lambda: optimizers.sgd(learning_rate=1.0),
}
PARTS: dict[str, Callable[[Problem], Strategy]] = {
    "replay": lambda problem: replay(problem, capacity=96, rows=16),
    "ewc": lambda problem: ewc(problem, weight=30.0, samples=16),
    "online_ewc": lambda problem: online_ewc(problem, weight=30.0, samples=16),
}
STRATEGIES = ("plain", "replay+ewc")
EVERY = sorted({path.stem for path in (config_folder() / "strategy").glob("*.yaml")} - {"lora_boundary"})
"""all strategies but the one that needs an encoder's LoRA matrices, which no model here has"""
TINY = {
    "capacity": 96,
    "rows": 16,
    "samples": 8,
    "directions": 16,
    "rank": 4,
    "increments": 4,
    "sketch": 8,
    "users": 16,
}


# -- streams ---------------------------------------------------------------------------------------------------------


@functools.cache
def simulated() -> Table:
    """600 events of about 35 users and 100 items: parts of 150 events, each of 128 training rows at most."""
    return simulate(users=40, items=120, events=600, days=16, topics=4, groups=2)


def disjoint(per_part: int = 200, parts: int = 3) -> Stream:
    """Each part has users and items of its own."""
    rng = np.random.default_rng(0)

    def part(t: int) -> list[tuple[str, str]]:
        return [(f"{t}-{rng.integers(6)}", f"{t}-{rng.integers(12)}") for _ in range(per_part)]

    return written([part(t) for t in range(parts)], heldout=0.2)


def bounds_of(table: Table, parts: int = 4) -> list[int]:
    """Times that cut the table into parts of about equal counts: the first of each part but the first."""
    times = table.frame["time"].sort()
    return [int(times[i * len(times) // parts]) for i in range(1, parts)]


def by_time(bounds: list[int]) -> Callable[[Interactions], tuple[np.ndarray, tuple[str, ...]]]:
    """A cut at given times: it cannot look at anything else."""
    return lambda events: (np.searchsorted(bounds, events.time, side="right").astype(np.int32), ())


def stream(table: Table | None = None, *, until: int | None = None, parts: int = 4, **protocol: Any) -> Stream:
    """The stream of a table; with `until`, that of the table as it was when increment `until` was over."""
    table = simulated() if table is None else table
    bounds = bounds_of(table, parts)
    if until is not None and until < len(bounds):
        table = table._replace(frame=table.frame.filter(pl.col("time") < bounds[until]))
    return make_stream(source=table, cut=by_time(bounds), **{"history": HISTORY, "heldout": 0.1, **protocol})


def written(parts: list[list[tuple[str, str]]], **protocol: Any) -> Stream:
    """A hand-made stream: for each part its (user, item) pairs, one second apart."""
    rows = [(user, item, t) for t, part in enumerate(parts) for user, item in part]
    frame = pl.DataFrame(
        {"user": [r[0] for r in rows], "item": [r[1] for r in rows], "time": np.arange(len(rows))},
        schema={"user": pl.String, "item": pl.String, "time": pl.Int64},
    )
    increment = np.array([r[2] for r in rows], np.int32)
    return make_stream(
        source=Table(frame, "hand-made"),
        cut=lambda events: (increment[: len(events)], ()),
        **{"history": HISTORY, "heldout": 0.1, **protocol},
    )


# -- programs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """Names one program."""

    strategy: str = "plain"  # names of `PARTS` joined by +
    model: str = "mf"
    head: str = "full"
    optimizer: str = "adam"
    epochs: int = 5
    patience: int = 2
    cutoffs: tuple[int, ...] = (10,)


def strategies(spec: Spec, problem: Problem) -> dict[str, Strategy]:
    """The parts that the spec names."""
    names = [] if spec.strategy == "plain" else spec.strategy.split("+")
    return {name: (PARTS.get(name) or configured(name))(problem) for name in names}


def configured(name: str, group: str = "strategy") -> Callable[..., Any]:
    """The factory of a config, with tiny memories and samples."""
    node: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / group / f"{name}.yaml"))
    return config.partial({**node, **{key: TINY[key] for key in TINY if key in node}}, f"{group}.{name}")


def make(problem: Problem, parts: Mapping[str, Strategy], sizes: Sizes, spec: Spec) -> Program:
    """`gradient.make` with the tiny problem's settings."""
    return gradient.make(
        problem,
        OPTIMIZERS[spec.optimizer](),
        parts,
        sizes=sizes,
        training=gradient.training(batch_size=32, epochs=spec.epochs, patience=spec.patience, least_epochs=0),
        cutoffs=spec.cutoffs,
        rank_batch_size=64,
    )


def problem_of(spec: Spec, sizes: Sizes) -> Problem:
    """The spec's model and head at these capacities."""
    return problem(MODELS[spec.model](), HEADS[spec.head](), next_item(HISTORY), sizes)


@functools.cache
def build(spec: Spec) -> Build:
    """Programs by capacity, each made once."""

    @functools.cache
    def program(sizes: Sizes) -> Program:
        tiny = problem_of(spec, sizes)
        return make(tiny, strategies(spec, tiny), sizes, spec)

    return program


@functools.cache
def baseline_build(name: str) -> Build:
    """Programs of a baseline by the name of its config."""
    return of_baseline(configured(name, "model")())


def of_baseline(made: Baseline, events: Stream | None = None) -> Build:
    """Programs of a baseline; of one that belongs to a stream, for its examples."""
    spec = next_item(HISTORY) if events is None else events.spec
    return functools.cache(lambda sizes: made.program(spec, sizes, (10,)))


def build_for(name: str, events: Stream) -> Build:
    """A baseline's programs by name; the oracle reads the law of its stream."""
    return of_baseline(oracle(events), events) if name == "oracle" else baseline_build(name)


_Functions = alone.Functions
_made: dict[int, alone.Functions] = {}  # by the program's identity; each holds its program, so that no id comes again


def functions(program: Program) -> alone.Functions:
    """One set of compiled functions a program."""
    if id(program) not in _made:
        _made[id(program)] = _Functions(program)
    return _made[id(program)]


def feed_of(stream: Stream, **arguments: Any) -> Feed:
    """A feed that pads no more than the tiny stream needs."""
    return Feed(stream, **{"capacities": Capacities(table=128, examples=128), **arguments})


def events(
    build: Build,
    stream: Stream,
    policy: Update = FINETUNE,
    *,
    seed: int = 0,
    feed: dict[str, Any] | None = None,
    **arguments: Any,
) -> Iterator[Event]:
    """The events of `loop.run` of one lane and one metric; `feed` are arguments of the `Feed`."""
    executor = Executor(alone.Alone(build, seed))
    return loop.run_stream(feed_of(stream, **(feed or {})), executor, policy, **{"metrics": ("ndcg@10",), **arguments})


def run(build: Build, stream: Stream, policy: Update = FINETUNE, **arguments: Any) -> Result:
    """The result of `events`."""
    return loop.finished(events(build, stream, policy, **arguments))


def value(result: Result, trained_until: int, on: int, metric: str) -> float:
    """One number of a run; it is there once."""
    (found,) = [r for r in result.records if r[:3] == (trained_until, on, metric)]
    return found.value


@functools.cache
def ran(spec: Spec) -> Result:
    """The run that many laws look at; call it under the fixture `shared_programs`."""
    return run(build(spec), stream())


def trained(f: alone.Functions, state: State, data: Data, validation: Data) -> tuple[State, list[Info]]:
    """One update without a loop, before its end: the best epoch's state, and what each epoch says, on the host."""
    state = f.begin(state, data)
    epochs, best = [], f.started(state) if f.program.keeps else None
    run_epoch = f.base_epoch if int(data.increment) == 0 else f.run_epoch
    while bool(state.fit.active):
        state, info = run_epoch(state, data)
        state = f.validate(state, validation, None)
        best = None if best is None else f.better(best, state)
        epochs.append(jax.tree.map(np.array, info))
    return state if best is None else restored(state, best), epochs


def train(f: alone.Functions, state: State, data: Data, validation: Data) -> tuple[State, list[Info]]:
    """One update without a loop: the state after it, and what each epoch says, on the host."""
    state, epochs = trained(f, state, data, validation)
    return f.end(state, data), epochs


def update_data(stream: Stream, program: Program, t: int, **arguments: Any) -> tuple[Data, Data]:
    """Training and validation data of a fine-tuning update; `arguments` of the `Feed`."""
    plan = Plan(range(t, t + 1), range(t, t + 1), range(t, t + 1), afresh=False)
    data, validation, _ = feed_of(stream, **arguments).update(program, t, plan, jax.device_put)
    return data, validation


@functools.cache
def data_at(t: int) -> tuple[Data, Data]:
    """What plain training on increment t of `stream` gets; on the host, where a slice is no program."""
    data: tuple[Data, Data] = on_host(update_data(stream(), build(Spec())(SIZES), t))
    return data


def cut(data: Data, size: int) -> Data:
    """The first rows only."""
    valid: Any = np.arange(len(data.rows.valid)) < size
    return data._replace(size=jnp.int32(size), rows=data.rows._replace(valid=valid))


def user_alone(stream: Stream) -> dict[str, Input]:
    """The inputs of a model that reads the user."""
    return {"user": stream.spec.inputs["user"]}


def sizes_at(stream: Stream, t: int) -> Sizes:
    """The tables' capacities for the ids that occurred up to increment t."""
    return feed_of(stream).sizes(t, user_alone(stream))


# -- states ----------------------------------------------------------------------------------------------------------


def on_host(tree: Any) -> Any:
    """A copy in numpy; keys become their raw data."""

    def copied(leaf: Any) -> np.ndarray:
        key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if key else leaf)

    return jax.tree.map(copied, tree)


def put_back(host: Any, like: Any) -> Any:
    """The inverse of `on_host`; `like` says which leaves are keys."""

    def placed(leaf: np.ndarray, old: Any) -> Any:
        key = jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key)
        return jax.random.wrap_key_data(jnp.array(leaf)) if key else jnp.array(leaf)

    return jax.tree.map(placed, host, like)


def types(tree: Any) -> Any:
    """Structure, and shape, dtype and weak type of each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves]


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit, NaNs included."""
    jax.tree.map(np.testing.assert_array_equal, on_host(one), on_host(other))


FREE = ("['key']['bias']", ".generator['item/embedding']['bias']")
"""What is added to all keys or all items changes no softmax: its gradient is rounding, of which Adam makes steps."""


def assert_close(one: Any, other: Any, *, rtol: float = 1e-5, atol: float = 1e-6, free: tuple[str, ...] = ()) -> None:
    """Within a tolerance, but for leaves whose paths end with one of `free`."""

    def check(path: jax.tree_util.KeyPath, a: np.ndarray, b: np.ndarray) -> None:
        if not jax.tree_util.keystr(path).endswith(free):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)

    jax.tree_util.tree_map_with_path(check, on_host(one), on_host(other))


def differs(one: Any, other: Any) -> bool:
    """Whether any leaf differs in any bit of its value."""
    pairs = zip(jax.tree.leaves(on_host(one)), jax.tree.leaves(on_host(other)), strict=True)
    return any(not np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def rows_of(stream: Stream, *increments: int) -> int:
    """How many examples an update on these increments trains on."""
    return len(stream.training_examples(increments, validation=False))
