"""Training whose examples share runs: in the same order it is that on separate histories, under every kind of strategy,
on table rows, in lanes and over devices."""

from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core import compaction, prefixes, steps
from incremental.core.gradient import make, training
from incremental.core.optimizers import sgd
from incremental.core.packing import Tokens, padded
from incremental.core.problem import Model, problem
from incremental.core.program import Program
from incremental.core.sharding import Layout, devices, mesh_of, rules_of, sharded
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Problem, State
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.heads.sampled_softmax import sampled_softmax
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.sasrec import sasrec
from incremental.strategies.agem import agem
from incremental.strategies.der import der
from incremental.strategies.ewc import ewc
from incremental.strategies.lwf import lwf
from incremental.strategies.replay import replay
from tests import lab

L, BATCH, CAPACITY = 6, 8, 32
SIZES = Sizes(item=150, user=9)


class Mean(nn.Module):
    """A causal model of a user's own: the mean of what was, each event weighed with its number from the left."""

    sizes: Sizes

    def setup(self) -> None:
        self.item = nn.Embed(self.sizes["item"], 4)

    def encode(self, tokens: Tokens, key: Any) -> Any:
        del key
        number = (1.0 + tokens.nth)[..., None]
        weights = tokens.allowed().astype(jnp.float32)
        sums = jnp.einsum("nqk,nkd->nqd", weights, tokens.past(self.item(tokens.item) * number))
        return tokens.ends(jnp.tanh(sums / number)) * tokens.known[:, None]

    def __call__(self, inputs: Any, key: Any) -> Any:
        return self.encode(padded(inputs["history"]), key)

    def items(self) -> Any:
        return self.item.embedding, jnp.zeros(self.sizes["item"])


CAUSAL = Model(
    lambda sizes, _inputs: Mean(sizes), ("history",), {"item/embedding": "item"}, labels="item", sequence="history"
)


def update(t: int) -> Data:
    """Increment t: users of 1 to 6 events with an earlier one, in the order of time; 21 examples, the last batch is not
    full."""
    rng = np.random.default_rng(t)
    rows: list[Any] = []
    for user, number in enumerate((6, 1, 4, 2, 5, 3), 1):
        items = rng.integers(1 + 20 * t, 80 + 20 * t, number + 1)
        rows += [(k, user, np.pad(items[:k], (L - k, 0)), items[k]) for k in range(1, number + 1)]
    rows.sort(key=lambda row: row[:2])
    n = len(rows)
    columns = [np.array(column, np.int32) for column in zip(*rows, strict=True)][1:]
    padding = [(0, CAPACITY - n), (0, 0)]
    users, history, label = (np.pad(column, padding[: column.ndim]) for column in columns)
    fields: Any = np.ones(CAPACITY, np.float32), np.arange(CAPACITY) < n, np.full(CAPACITY, t, np.int32), users
    batch: Any = Batch({"history": history}, label, *fields)  # type: ignore[arg-type]
    return jax.tree.map(jnp.asarray, Data(batch, np.int32(n), np.int32(t), label, {"user": users}))  # type: ignore[arg-type,dict-item]


def by_examples(problem: Problem) -> Strategy:
    """Adds the gradient once more, as the sum of single examples'."""
    del problem

    def grads(state: Any, grads: Any, params: Any, grad_fn: Any, batch: Batch, key: Any) -> Any:
        del state, params, key
        each = grad_fn.examples(batch)
        return jax.tree.map(lambda g, e: g + 0.1 * e.mean(0), grads, each)

    return Strategy(grads=grads)


EVERY = {
    "lwf": lambda p: lwf(p, weight=0.3),
    "replay": lambda p: replay(p, capacity=16, rows=4),
    "der": lambda p: der(p, capacity=16, rows=4, beta=0.5),
    "agem": lambda p: agem(p, capacity=16, rows=4),
    "ewc": lambda p: ewc(p, weight=0.5, samples=4),
    "examples": by_examples,
}
ON_ROWS = {name: EVERY[name] for name in ("replay", "agem")}


def program_of(model: Model, sharing: Any, parts: Any = MappingProxyType({}), rows: Any = "dense") -> Program:
    head = full_softmax() if "lwf" in parts else sampled_softmax(negatives=4)
    own = problem(model, head, next_item(L), SIZES, sharing=sharing)
    named = {name: factory(own) for name, factory in parts.items()}
    chosen = training(batch_size=BATCH, patience=0, rows=rows, sharing=sharing)
    return make(own, sgd(learning_rate=0.3), named, sizes=SIZES, training=chosen)


def trained(*programs: Program) -> list[State]:
    """Two increments after the base part, of two epochs each, by each program's epochs; all else is the first one's."""
    init, begin, end = (jax.jit(function) for function in (programs[0].init, programs[0].begin, programs[0].end))
    states = []
    for program in programs:
        state, epoch = init(jax.random.key(0)), jax.jit(program.run_epoch)
        for t in range(3):
            state = begin(state, update(t))
            for _ in range(2):
                state = epoch(state, update(t))[0]
            state = end(state, update(t))
        states.append(state)
    return states


@pytest.fixture
def one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Separate histories are trained on in the order of runs, and a batch has one layout but the padded one."""
    monkeypatch.setattr(prefixes, "layouts", lambda rows, _length: (-(-rows // 2),) if rows > 1 else ())
    rows = update(0).rows

    def order(key: Any, size: Any) -> Any:
        return prefixes.by_runs(key, rows, rows.inputs["history"], size)

    monkeypatch.setattr(steps, "shuffled", lambda key, size, _capacity: order(key, size))
    monkeypatch.setattr(steps, "by_runs", lambda key, _rows, _history, size: order(key, size))


@pytest.mark.usefixtures("one_order")
def test_every_kind_of_strategy_trains_as_on_separate_histories() -> None:
    states = [state for sharing in ("none", "prefix") for state in trained(program_of(CAUSAL, sharing, EVERY))]
    lab.assert_close(*states, rtol=2e-4, atol=2e-5)


@pytest.mark.usefixtures("one_order")
def test_compact_rows_train_as_whole_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of few ids, and those of more than there is room for."""
    fits = []
    different = compaction.different

    def noted(*given: Any) -> Any:
        found, enough = different(*given)
        jax.debug.callback(lambda enough: fits.append(bool(enough)), enough)
        return found, enough

    monkeypatch.setattr(compaction, "SHARE", 100)
    monkeypatch.setattr(compaction, "different", noted)
    states = trained(*(program_of(CAUSAL, "prefix", ON_ROWS, rows) for rows in ("dense", "compact")))
    lab.assert_close(*states, rtol=1e-5, atol=1e-6)
    assert {*fits} == {True, False}


def test_lanes_and_devices_train_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane in an order of its own."""
    monkeypatch.setattr(prefixes, "layouts", lambda rows, _length: (-(-rows // 2),) if rows > 1 else ())
    program, data = program_of(CAUSAL, "prefix"), update(0)
    keys = jax.random.split(jax.random.key(0), 2)

    def run(program: Program) -> Any:
        return lambda key: program.run_epoch(program.begin(program.init(key), data), data)[0].learner.params

    by_itself = jax.jit(run(program))
    alone = [lab.on_host(by_itself(key)) for key in keys]
    together = lab.on_host(jax.jit(jax.vmap(run(program)))(keys))
    for lane, own in enumerate(alone):
        lab.assert_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), own, rtol=1e-5, atol=1e-6)
    spread = sharded(program, Layout(mesh_of(devices(batch=2)), rules_of(CAUSAL.tables)))
    lab.assert_close(jax.jit(run(spread))(keys[0]), alone[0], rtol=1e-5, atol=1e-6)


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "situation"),
    [
        (sasrec(width=4), "shared runs with positions from the right"),
        (matrix_factorization(width=4), "shared runs for a model without histories"),
    ],
    ids=["right", "no sequence"],
)
def test_a_model_that_cannot_share_is_refused_by_name(model: Model, situation: str, documented: Any) -> None:
    with pytest.raises(UserError, match=r"training\.sharing=prefix: .*model\.positions=left") as error:
        problem(model, full_softmax(), next_item(L), SIZES, sharing="prefix")
    documented(situation, error.value)


def test_a_problem_of_another_sharing_is_refused(documented: Any) -> None:
    own = problem(CAUSAL, full_softmax(), next_item(L), SIZES)
    with pytest.raises(UserError, match=r"training\.sharing=prefix, but the problem") as error:
        make(own, sgd(), sizes=SIZES, training=training(sharing="prefix"))
    documented("a problem made without the sharing of its training", error.value)


def test_unknown_positions_are_refused(documented: Any) -> None:
    with pytest.raises(UserError, match=r"model\.positions='rotary': expected one of right, left") as error:
        sasrec(positions="rotary")  # type: ignore[arg-type]
    documented("positions of an unknown kind", error.value)
