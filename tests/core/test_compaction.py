"""The compact step against the dense one, on a tiny stream: three increments of two epochs, in one compiled program."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core import compaction, optimizers
from incremental.core.gradient import make, training
from incremental.core.problem import Head, Model, problem
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Problem, State
from incremental.errors import UserError
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
from incremental.models.bert4rec import bert4rec
from incremental.models.gru4rec import gru4rec
from incremental.models.hstu import hstu
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.sasrec import sasrec
from incremental.run.capacity import grow
from incremental.strategies.ader import ader
from incremental.strategies.agem import agem
from incremental.strategies.asmg import asmg
from incremental.strategies.der import der
from incremental.strategies.ema import ema
from incremental.strategies.ewc import ewc
from incremental.strategies.exemplar_replay import exemplar_replay
from incremental.strategies.feature_distillation import feature_distillation
from incremental.strategies.gem import gem
from incremental.strategies.incctr import incctr
from incremental.strategies.l2_to_last import l2_to_last
from incremental.strategies.lwf import lwf
from incremental.strategies.ogd import ogd
from incremental.strategies.packnet import packnet
from incremental.strategies.peso import peso
from incremental.strategies.replay import replay
from incremental.strategies.shrink_perturb import shrink_perturb
from incremental.strategies.si import si
from incremental.strategies.sml import sml
from incremental.strategies.spectral_norm import spectral_norm
from incremental.strategies.spmf import spmf
from incremental.strategies.warm_rows import warm_rows
from tests import lab

SIZES = Sizes(item=251, user=263)  # of nothing else here; more than the ids of any batch
ROWS, BATCH, HISTORY, INCREMENTS, EPOCHS = 40, 16, 4, 3, 2  # the last batch is half padding

MODELS: dict[str, Callable[[], Model]] = {
    "mf": lambda: matrix_factorization(width=8),
    "gru4rec": lambda: gru4rec(width=8, dropout=0.2),
    "sasrec": lambda: sasrec(width=8, blocks=1, dropout=0.2),
    "bert4rec": lambda: bert4rec(width=8, blocks=1, dropout=0.2),
    "hstu": lambda: hstu(width=8, blocks=1, dropout=0.2),
}
STEADY = [name for name in MODELS if name != "hstu"]  # at steps of 0.5 HSTU makes rounding 15 times as large an epoch
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optimizers.sgd(learning_rate=0.5, clip=0.5),
    "adagrad": lambda: optimizers.adagrad(learning_rate=0.1),
    "adam": lambda: optimizers.adam(learning_rate=0.03, weight_decay=0.1),
    "accumulate": lambda: optimizers.sgd(accumulate=2),
    "small steps": lambda: optimizers.sgd(learning_rate=0.01, clip=0.5),
}


def counted(_: Any) -> Strategy:
    """Counts by item in `record`, where the batch has the catalogue's ids and a strategy's own state is whole."""
    return Strategy(
        init=lambda learner: jnp.zeros(len(learner.catalogue.seen), jnp.int32),
        record=lambda state, step, _key: state.at[step.batch.labels].add(step.batch.valid.astype(jnp.int32)),
    )


PARTS: dict[str, Callable[..., Strategy]] = {
    "replay": lambda problem: replay(problem, capacity=32, rows=8, weight=0.5),
    "exemplars": lambda problem: exemplar_replay(problem, capacity=16, rows=8),
    "agem": lambda problem: agem(problem, capacity=32, rows=8),
    "gem": lambda problem: gem(problem, increments=3, capacity=4),
    "der": lambda problem: der(problem, capacity=32, rows=8, beta=0.5),
    "teacher": lambda problem: feature_distillation(problem, weight=0.3),
    "si": lambda problem: si(problem, weight=0.0),
    "packnet": lambda problem: packnet(problem, tables=True),
    "warm_rows": warm_rows,
    "shrink": lambda problem: shrink_perturb(problem, perturb=0.05),
    "spectral": spectral_norm,
    "counted": counted,
    "labels": lambda problem: incctr(problem, weight=0.5),
    "ranked": lambda problem: spmf(problem, capacity=32, rows=8),
    "transfer": lambda problem: sml(problem, hidden=16),
    "generator": asmg,
}
PENALTIES: dict[str, Callable[..., Strategy]] = {
    "l2": lambda problem, weight: l2_to_last(problem, weight=weight),
    "ewc": lambda problem, weight: ewc(problem, weight=1e5 * weight, samples=8),
    "peso": lambda problem, weight: peso(problem, weight=weight, tables=True),
}


def part(t: int, names: Iterable[str]) -> Data:
    """Increment t: rows of few ids, many of them twice in a batch, half of them of the increment before."""
    rng = np.random.default_rng(t)
    labels, users = (rng.integers(1 + 20 * t, 41 + 20 * t, ROWS).astype(np.int32) for _ in range(2))
    past = rng.integers(1 + 20 * t, 41 + 20 * t, (ROWS, HISTORY)).astype(np.int32)
    history = np.where(np.arange(HISTORY) >= rng.integers(0, HISTORY, (ROWS, 1)), past, 0)
    weight = rng.uniform(0.5, 1.5, ROWS).astype(np.float32)
    following = np.where(np.arange(HISTORY) < rng.integers(0, HISTORY, (ROWS, 1)), past[::-1], 0)
    inputs = {name: {"user": users, "history": history, "following": following}[name] for name in names}
    fields: Any = (np.ones(ROWS, bool), np.full(ROWS, t, np.int32), users)
    batch: Any = Batch(inputs, labels, weight, *fields)  # type: ignore[arg-type]
    whole: Any = (np.int32(ROWS), np.int32(t), labels, {"user": users})
    return jax.tree.map(jnp.asarray, Data(batch, *whole))


def program_of(
    parts: tuple[str, ...] | dict[str, Callable[..., Strategy]] = (),
    *,
    compact: bool,
    model: str = "mf",
    optimizer: str = "adagrad",
    head: Head | None = None,
    sizes: Sizes = SIZES,
    weight: Any = 0.0,
) -> Program:
    own = problem(MODELS[model](), head or sampled_softmax(negatives=8), next_item(HISTORY), sizes)
    steps = training(batch_size=BATCH, patience=0, rows="compact" if compact else "dense")
    known = PARTS | {name: functools.partial(factory, weight=weight) for name, factory in PENALTIES.items()}
    named = parts if isinstance(parts, dict) else {name: known[name] for name in parts}
    strategies = {name: factory(own) for name, factory in named.items()}
    return make(own, OPTIMIZERS[optimizer](), strategies, sizes=sizes, training=steps)


class Runs:
    """A dense and a compact program that share all but their epochs; `weight` is that of penalties."""

    def __init__(self, *parts: str, **arguments: Any) -> None:
        dense = program_of(parts, compact=False, **arguments)
        self.inputs = dense.inputs
        self.init, self.begin, self.end = jax.jit(dense.init), jax.jit(dense.begin), jax.jit(dense.end)
        self.epochs: dict[bool, Any] = {
            compact: jax.jit(functools.partial(self.epoch, parts, {**arguments, "compact": compact}))
            for compact in (True, False)
        }

    @staticmethod
    def epoch(parts: Any, arguments: Any, weight: Any, state: State, data: Data) -> State:
        return program_of(parts, **arguments, weight=weight).run_epoch(state, data)[0]

    def update(self, state: State, data: Data, *, compact: bool, weight: float = 0.0) -> State:
        state = self.begin(state, data)
        for _ in range(EPOCHS):
            state = self.epochs[compact](weight, state, data)
        return self.end(state, data)

    def assert_equal(self, atol: float = 1e-6) -> None:
        """Both states after all increments within `atol`, memories and counts exactly; one trace for all increments."""
        states = {}
        for compact in (True, False):
            state = self.init(jax.random.key(0))
            for t in range(INCREMENTS):
                state = self.update(state, part(t, self.inputs), compact=compact)
            states[compact] = state
            assert self.epochs[compact]._cache_size() == 1
        lab.assert_close(states[True], states[False], rtol=1e-5, atol=atol)


@pytest.fixture(scope="module")
def memories() -> Runs:
    """The memories that draw rows in each way, a state by catalogue ids, and a penalty, which its weight switches."""
    return Runs("agem", "der", "counted", "l2")


# -- equal to the dense step -------------------------------------------------------------------------------------------


def test_memories_train_as_with_whole_tables(memories: Runs) -> None:
    """Their states too: they hold the catalogue's ids."""
    memories.assert_equal()


@pytest.mark.slow
@pytest.mark.parametrize("model", STEADY)
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_models_train_as_with_whole_tables(model: str, optimizer: str) -> None:
    Runs(model=model, optimizer=optimizer).assert_equal()


@pytest.mark.slow
def test_hstu_trains_as_with_whole_tables_in_small_steps() -> None:
    Runs(model="hstu", optimizer="small steps").assert_equal()


@pytest.mark.slow
@pytest.mark.parametrize("model", STEADY)
@pytest.mark.parametrize(
    "names",
    [
        ("replay", "warm_rows", "shrink"),
        ("exemplars", "gem", "ewc"),
        ("teacher", "si"),
        ("packnet",),
        ("agem", "der"),
        ("labels", "ranked", "peso"),
        ("transfer",),
        ("generator",),
    ],
    ids="+".join,
)
def test_strategies_train_as_with_whole_tables(model: str, names: tuple[str, ...]) -> None:
    Runs(*names, model=model).assert_equal(1e-5 if "der" in names else 1e-6)  # DER keeps vectors of size 2


@pytest.mark.slow
def test_a_strategy_of_kernels_trains_as_with_whole_tables() -> None:
    Runs("spectral", model="sasrec").assert_equal()


@pytest.mark.slow
@pytest.mark.parametrize(
    "head", [in_batch_softmax, log_uniform_softmax, gbce, bce, functools.partial(bpr, shared=False)]
)
def test_heads_that_draw_negatives_train_as_with_whole_tables(head: Callable[[], Head]) -> None:
    """Streaming frequencies are counted by the catalogue's ids."""
    Runs(head=head() if head is in_batch_softmax else head(negatives=8)).assert_equal()  # type: ignore[call-arg]


@pytest.mark.slow
def test_a_table_with_fewer_rows_than_the_batch_has_ids_stays_whole() -> None:
    Runs(sizes=Sizes(item=82, user=83), head=bpr(negatives=100)).assert_equal()


@pytest.mark.slow
def test_grown_equals_allocated_beforehand() -> None:
    small, large = Runs("replay"), Runs("replay", sizes=Sizes(item=300, user=301))
    data = [part(t, small.inputs) for t in range(2)]
    start = [each.update(each.init(jax.random.key(0)), data[0], compact=True) for each in (small, large)]
    grown = grow(start[0], program_of(("replay",), compact=True, sizes=Sizes(item=300, user=301)))
    ends = [large.update(state, data[1], compact=True) for state in (grown, start[1])]
    lab.assert_close(*ends)


# -- lazy --------------------------------------------------------------------------------------------------------------


def assert_lazy(runs: Runs) -> None:
    """One step of one batch with padding, on weights that have drifted from the anchor: the rows it touches move as in
    the dense step, the others keep their bits, which the dense step changes."""
    first, second = (part(t, ("user",)) for t in range(2))
    state = runs.update(runs.init(jax.random.key(0)), first, compact=False, weight=1.0)
    drifted = jax.tree.map(lambda leaf: 1.5 * leaf, state.learner.params)
    size = 10
    rest = jnp.arange(ROWS) >= size
    second = jax.tree.map(lambda leaf: jnp.where(rest, 0, leaf) if leaf.ndim else leaf, second)
    second = second._replace(size=jnp.int32(size), rows=second.rows._replace(valid=~rest))
    state = runs.begin(state._replace(learner=state.learner._replace(params=drifted)), second)
    lazy, whole = (runs.epochs[compact](1.0, state, second) for compact in (True, False))
    memory = [state.strategy[name].memory.rows for name in ("agem", "der") if name in state.strategy]
    known = [rows.inputs["user"] for rows in (second.rows, *memory)]
    users = np.unique(np.concatenate(known))

    def check(path: Any, old: Any, lazy: Any, whole: Any) -> None:
        if old.ndim == 0:
            return
        old, lazy, whole = (np.asarray(leaf).reshape(len(leaf), -1) for leaf in (old, lazy, whole))
        moved = np.flatnonzero((lazy != old).any(1))
        assert 0 < len(moved) < len(old) / 3
        if "user" in jax.tree_util.keystr(path):
            assert set(moved) <= set(users)
            assert set(np.asarray(second.rows.inputs["user"])[:size]) <= set(moved)
        np.testing.assert_allclose(lazy[moved], whole[moved], rtol=1e-5, atol=1e-7)
        still = np.setdiff1d(np.arange(1, len(old)), moved)
        assert (whole[still] != old[still]).any() or "sum_of_squares" in jax.tree_util.keystr(path)

    parts = [(each.learner.params, each.learner.opt_state) for each in (state, lazy, whole)]
    jax.tree_util.tree_map_with_path(check, *parts)


def test_touched_rows_move_as_in_the_dense_step_and_the_others_keep_their_bits(memories: Runs) -> None:
    assert_lazy(memories)


@pytest.mark.slow
def test_so_they_do_under_adam_with_weight_decay() -> None:
    assert_lazy(Runs("ewc", optimizer="adam"))


# -- what a step costs -------------------------------------------------------------------------------------------------


def made_by(jaxpr: Any, size: int) -> Iterator[str]:
    """The primitives that make an array with an axis of `size`, inner programs included."""
    for eqn in jaxpr.eqns:
        inner = [
            sub
            for value in eqn.params.values()
            for sub in (value if isinstance(value, tuple | list) else [value])
            if hasattr(sub, "eqns") or hasattr(sub, "jaxpr")
        ]
        if inner:
            for sub in inner:
                yield from made_by(getattr(sub, "jaxpr", sub), size)
        elif any(size in var.aval.shape for var in eqn.outvars):
            yield eqn.primitive.name


@pytest.mark.parametrize(("model", "compact"), [("mf", True), ("mf", False), ("sasrec", True)])
def test_a_step_makes_nothing_of_the_catalogues_size(model: str, compact: bool) -> None:
    """Rows are scattered into the tables; nothing else has as many. The dense step has, which the test must see."""
    program = program_of(("replay",), model=model, compact=compact)
    state = jax.eval_shape(program.init, jax.random.key(0))
    jaxpr = jax.make_jaxpr(program.run_epoch)(state, part(0, program.inputs)).jaxpr
    made = {name for size in SIZES.values() for name in made_by(jaxpr, size)}
    assert made == {"scatter"} if compact else {"mul", "add"} <= made


# -- ids ---------------------------------------------------------------------------------------------------------------


NONE: Any = None
PROBLEM = Problem(NONE, NONE, NONE, NONE, {}, None, NONE, inputs=next_item(2).inputs)


def batch_of(labels: Any, **fields: Any) -> Batch:
    n, own = len(labels), np.array(labels, np.int32)
    inputs = {"user": own[::-1], "history": np.stack([np.zeros(n, np.int32), own + 1], 1)}
    fixed: Any = inputs, own, np.ones(n, np.float32), np.ones(n, bool), np.zeros(n, np.int32)
    return Batch(*fixed, **fields)


@jax.jit
def found_in(batch: Batch) -> Any:
    """Ids, the batch with their places, and what the places hold: an id only where it is first."""
    ids = compaction.touched(batch, {"item": 100, "user": 90}, PROBLEM)
    return ids, compaction.renamed(batch, ids, PROBLEM), {kind: compaction.places(ids[kind], 100) for kind in ids}


def test_ids_are_found_wherever_a_batch_has_them_and_renamed_to_their_places() -> None:
    inner = batch_of([70, 9])
    memory = {"agem": inner, "der": (np.array([3, 4]),), "none": None}
    owner: Any = np.array([50, 90, 50])
    batch = batch_of([5, 9, 5], negatives=np.array([8, 8, 30]), memory=memory, owner=owner)
    ids, named, found = jax.tree.map(np.asarray, found_in(batch))
    assert set(ids) == {"item", "user"}
    assert np.asarray(ids["item"]).tolist() == [0, 0, 0, 0, 0, 0, 5, 5, 6, 6, 8, 8, 9, 9, 10, 10, 30, 70, 71]
    assert np.asarray(ids["user"]).tolist() == [0, 5, 5, 9, 9, 70]
    for new, old in ((named, batch), (named.memory["agem"], inner)):
        np.testing.assert_array_equal(found["item"][new.labels], old.labels)
        np.testing.assert_array_equal(found["item"][new.inputs["history"]], old.inputs["history"])
        np.testing.assert_array_equal(found["user"][new.inputs["user"]], old.inputs["user"])
    np.testing.assert_array_equal(found["item"][named.negatives], batch.negatives)
    each: Any = np.array([[8], [8], [30]])
    own = batch._replace(negatives=each)  # of each row: the same ids
    again, named, _ = jax.tree.map(np.asarray, found_in(own))
    lab.assert_same(again, ids)
    np.testing.assert_array_equal(found["item"][named.negatives], own.negatives)
    few, _ = jax.eval_shape(lambda batch: compaction.different(batch, {"item": 100, "user": 90}, PROBLEM), own)
    assert len(few["item"]) == 1 + (3 + 1 + 3) + (2 + 1)  # a list's ids count by the eighth, negatives each
    lab.assert_same(named.memory["der"], memory["der"])  # places in the batch, not ids
    lab.assert_same(named.owner, owner)  # no table is read with it


def test_rows_are_taken_once_and_put_back() -> None:
    leaf, ids = np.arange(1, 9, dtype=np.float32), {"item": np.array([0, 0, 3, 5, 5, 5])}

    @jax.jit
    def taken_and_put(leaf: Any, ids: Any) -> Any:
        few = compaction.take(leaf, "item", ids)
        return few, compaction.put(leaf, "item", few + 10, ids), compaction.take(leaf, "user", ids)

    few, whole, same = map(np.asarray, taken_and_put(leaf, ids))
    assert few.tolist() == [1, 0, 4, 6, 0, 0]
    np.testing.assert_array_equal(whole, [11, 2, 3, 14, 5, 16, 7, 8])
    np.testing.assert_array_equal(same, leaf)


def test_a_kind_with_no_more_rows_than_ids_keeps_its_ids() -> None:
    batch = batch_of([5, 9, 5])

    @jax.jit
    def kept(batch: Batch) -> Any:
        ids = compaction.touched(batch, {"item": 11, "user": 4}, PROBLEM)
        return ids, compaction.renamed(batch, ids, PROBLEM).inputs["user"]

    ids, users = kept(batch)
    assert set(ids) == {"item"}
    lab.assert_same(users, batch.inputs["user"])


# -- refused -----------------------------------------------------------------------------------------------------------


def reads_own_ids(_: Any) -> Strategy:
    """A plugin with a number an item of its own."""
    return Strategy(
        init=lambda learner: {"counts": jnp.zeros(len(learner.catalogue.seen))},
        loss=lambda state, _params, batch, _outputs: state["counts"][batch.labels].sum(),
    )


def keeps_scores(_: Any) -> Strategy:
    return Strategy(init=lambda _: jnp.float32(0.0), record=lambda state, step, _key: state + step.outputs.scores.max())


def carries_weights(_: Any) -> Strategy:
    return Strategy(
        init=lambda learner: learner.params,
        batch=lambda state, batch, _key: batch._replace(memory=state),
        loss=lambda _state, _params, batch, _outputs: batch.memory["item"]["embedding"].sum(),
    )


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("the head reads the scores", {"head": Head(lambda _items, outputs, _batch: outputs.scores.sum(1))}),
        ("the head reads", {"head": full_softmax()}),
        ("the head reads who is a candidate", {"head": chunked_softmax(chunk=64)}),
        ("model: head/bias", {"head": hierarchical_softmax()}),
        ("model: head/bias", {"head": adaptive_softmax(cutoffs=(10, 100))}),
        ("strategies.lwf reads the scores", {"parts": {"lwf": lwf}}),
        ("strategies.ader reads its state known", {"parts": {"ader": lambda p: ader(p, capacity=8, rows=4)}}),
        ("strategies.ogd reads its state basis/", {"parts": {"ogd": lambda p: ogd(p, directions=4, samples=2)}}),
        ("strategies.ema reads the tables' weights in `record`", {"parts": {"ema": ema}}),
        ("strategies.mine reads its state counts .251.", {"parts": {"mine": reads_own_ids}}),
        ("strategies.mine reads the scores", {"parts": {"mine": keeps_scores}}),
        (r"strategies.mine leaves a whole table in the batch's memory \(item/", {"parts": {"mine": carries_weights}}),
        ("optimizer.accumulate=1", {"optimizer": "accumulate"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_the_whole_catalogue_is_refused_by_name(message: str, arguments: dict[str, Any]) -> None:
    program = program_of(**arguments, compact=True)
    state = jax.eval_shape(program.init, jax.random.key(0))
    with pytest.raises(UserError, match=f"training.rows=compact.*{message}.*training.rows=dense"):
        jax.eval_shape(program.run_epoch, state, part(0, program.inputs))


def test_an_optimizer_whose_state_is_not_a_row_an_id_is_refused() -> None:
    own = problem(MODELS["mf"](), bpr(negatives=8), next_item(HISTORY), SIZES)
    tx = optax.adafactor(0.1, min_dim_size_to_factor=4)
    program = make(own, tx, sizes=SIZES, training=training(batch_size=BATCH, rows="compact"))
    state = jax.eval_shape(program.init, jax.random.key(0))
    with pytest.raises(UserError, match=r"optimizer: .*/item/embedding .251"):
        jax.eval_shape(program.run_epoch, state, part(0, program.inputs))
