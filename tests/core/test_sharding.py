"""A run over several devices is the run on one: its state, where it lies, and what the devices tell each other."""

import functools
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from incremental.app.assemble import assemble
from incremental.app.experiment import execute
from incremental.core.gradient import make
from incremental.core.lengths import by_length
from incremental.core.optimizers import adam
from incremental.core.problem import Model, problem
from incremental.core.program import Program
from incremental.core.sharding import BATCH, Layout, devices, mesh_of, over, rules_of, shapes, sharded, split
from incremental.core.spec import Sizes, next_item
from incremental.core.strategy import Strategy, chain
from incremental.core.types import State
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.gru4rec import gru4rec
from incremental.run import checkpoint
from incremental.run.capacity import grow
from incremental.run.feed import Capacities
from incremental.serve.model import Trained, load
from incremental.testing.subject import Subject
from tests import lab
from tests.app.small import Stopped, composed, only

ROOT = Path(__file__).parents[2]
FAMILIES = ("replay", "ewc", "lwf", "gpm", "spectral_norm", "packnet")  # one of each
TOLERANCE = 2e-4  # of weights of size 1 under Adam at a rate of 0.05, 36 steps: sums are in another order


@functools.cache
def layout(batch: int, rows: int, tables: tuple[str, ...] = ("user/embedding", "item/embedding")) -> Layout:
    return Layout(mesh_of(devices(batch=batch, rows=rows)), rules_of(tables))


class Spread(Subject):
    """A strategy's programs over a mesh."""

    def __init__(self, factory: Any, model: Model, batch: int, rows: int) -> None:
        super().__init__(factory, {}, model)
        self.layout = layout(batch, rows, tuple(model.tables))

    def program(self, floats: Any, sizes: Sizes) -> Program:
        return sharded(super().program(floats, sizes), self.layout)


def together(names: tuple[str, ...]) -> Any:
    """A factory of all these strategies in one."""
    return lambda problem: chain(**{name: lab.configured(name)(problem) for name in names})


def assert_same_run(factory: Any, model: Model, batch: int, rows: int) -> None:
    """Over batch x rows devices and on one: weights, strategies' states and log p after every epoch and increment."""
    spread = Spread(factory, model, batch, rows)
    for one, many in zip(Subject(factory, {}, model).run(), spread.run(), strict=True):
        places = spread.layout.shardings(many.ended)
        for leaf, place in zip(jax.tree.leaves(many.ended), jax.tree.leaves(places), strict=True):
            assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
        said = (each._replace(scores=jax.nn.log_softmax(each.scores)) for each in (many, one))
        lab.assert_close(*said, rtol=TOLERANCE, atol=TOLERANCE, free=lab.FREE)


@pytest.mark.parametrize("names", [FAMILIES[::2], pytest.param(FAMILIES, marks=pytest.mark.slow)])
def test_families_of_strategies_do_on_eight_devices_what_they_do_on_one(names: tuple[str, ...]) -> None:
    assert_same_run(together(names), lab.dense(), 4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", lab.EVERY)
def test_every_strategy_does_on_eight_devices_what_it_does_on_one(strategy: str) -> None:
    assert_same_run(together((strategy,)), lab.dense(), 8, 1)


@pytest.mark.slow
def test_a_recurrent_model_does_on_eight_devices_what_it_does_on_one() -> None:
    assert_same_run(lambda _: Strategy(), gru4rec(width=8), 2, 4)


# -- what lies where, and what moves -----------------------------------------------------------------------------------


def test_what_mirrors_a_table_lies_with_it_and_all_else_on_every_device() -> None:
    own = problem(lab.dense(), full_softmax(), next_item(8), Sizes(item=1024, user=1024))
    parts = {name: lab.configured(name)(own) for name in ("replay", "ewc", "gpm")}
    program = make(own, adam(), parts, sizes=Sizes(item=1024, user=1024))
    state = placed(sharded(program, layout(2, 4)))
    split_ones = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree.leaves_with_path(state)
        if leaf.sharding.spec == P("rows")
    }
    tables = {f"{kind}/embedding" for kind in ("user", "item")}
    assert split_ones >= {f"learner/params/{table}" for table in tables}
    for where in ("learner/opt_state/0/mu", "strategy/ewc/anchor/params"):
        assert split_ones >= {f"{where}/{table}" for table in tables}, split_ones
    assert all(any(name.endswith(table) for table in tables) for name in split_ones)
    # Under a table's path, but not its rows.
    odd = layout(2, 4).shardings({"user": {"embedding": jnp.zeros((6, 3))}, "item": {"embedding": jnp.zeros(())}})
    assert [place.spec for place in jax.tree.leaves(odd)] == [P(), P()]


def test_a_table_that_grows_stays_split() -> None:
    def program(items: int) -> Program:
        sizes = Sizes(item=items, user=1024)
        own = problem(lab.dense(), full_softmax(), next_item(8), sizes)
        return sharded(make(own, adam(), {"ewc": lab.configured("ewc")(own)}, sizes=sizes), layout(2, 4))

    state = jax.jit(program(1024).init)(jax.random.key(0))
    grown = grow(state, program(2048))
    for leaf, wanted in zip(jax.tree.leaves(grown), jax.tree.leaves(placed(program(2048))), strict=True):
        assert leaf.shape == wanted.shape
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    table, old = (each.learner.params["item"]["embedding"] for each in (grown, state))
    np.testing.assert_array_equal(table[:1024], old)


def placed(program: Program) -> State:
    """The state's shapes, and where each leaf lies."""
    state: State = shapes(program, jax.eval_shape(program.init, jax.random.key(0)))
    return state


def communication(program: str) -> dict[str, list[int]]:
    """The operations of a compiled program that move data between devices, and their results' elements."""
    found: dict[str, list[int]] = {}
    for line in program.splitlines():
        if moved := re.search(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)", line):
            sizes = [[int(n) for n in dims.split(",") if n] for dims in re.findall(r"\[([\d,]*)\]", moved[1])]
            found.setdefault(moved[2], []).extend(int(np.prod(dims)) for dims in sizes)
    return found


@pytest.mark.parametrize("rows", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_step_reduces_gradients_and_gathers_no_table(rows: int, tmp_path: Path) -> None:
    capacity, width, size, drawn = 1024, 8, 64 + 16, 24
    asked = [f"devices.batch={8 // rows}", f"devices.rows={rows}", "head=sampled_softmax", f"head.negatives={drawn}"]
    asked += ["+strategy@strategies.memory=replay", "strategies.memory.rows=16"]
    program = assemble(composed(tmp_path, *asked)).build(Sizes(item=capacity, user=capacity))
    data, _ = lab.update_data(lab.stream(), program, 1)
    compiled = jax.jit(program.run_epoch).lower(placed(program), data).compile().as_text() or ""
    moved = communication(compiled)
    assert set(moved) == {"all-reduce"}
    # A device's part of the gradients at most; where tables are split, also the rows that they are asked for.
    assert max(moved["all-reduce"]) == (capacity // rows) * width
    shares = {tuple(map(int, dims.split(","))) for dims in re.findall(r"= f32\[([\d,]+)\]\S* dot\(", compiled)}
    assert (drawn, size * rows // 8) in shares  # each device scores its part of the batch
    assert not any(size in shape for shape in shares)


def test_a_batch_that_is_sorted_by_length_is_split_again() -> None:
    """Every group of `by_length`, or each device would encode the whole batch."""
    met = []

    def encode(history: Any, _key: Any) -> Any:
        met.append(history.shape)
        return jnp.tanh(history.astype(jnp.float32)) @ jnp.ones((history.shape[1], 3))

    def hidden(history: Any) -> Any:
        with jax.sharding.use_abstract_mesh(layout(8, 1).mesh.abstract_mesh):
            return by_length(encode, split(history), None)

    history = np.ones((128, 33), np.int32)
    placed = jax.device_put(history, jax.NamedSharding(layout(8, 1).mesh, P()))
    compiled = jax.jit(hidden).lower(placed).compile()
    assert sorted({rows for rows, _ in met}) == [8, 24, 32, 64, 128]
    dots = re.findall(r"= f32\[(\d+),3\]\S* dot\(", compiled.as_text() or "")
    assert sorted(map(int, dots)) == [1, 3, 4, 8, 16]
    np.testing.assert_allclose(compiled(placed), encode(history, None), rtol=1e-6)


def test_on_one_device_nothing_is_split() -> None:
    rows = jnp.arange(3)
    assert split(rows) is rows

    def build(sizes: Sizes) -> Program:
        raise NotImplementedError

    assert over(build, devices(), ()) is build


# -- whole runs --------------------------------------------------------------------------------------------------------


def evaluations(run: Path) -> np.ndarray:
    """The values of a run directory's evaluations.csv, with their places."""
    lines = (run / "evaluations.csv").read_text().splitlines()[1:]
    return np.array([[float(cell or "nan") for i, cell in enumerate(line.split(",")) if i != 2] for line in lines])


def assert_same_model(one: Trained, other: Trained) -> None:
    users = list(one.users)[:5]
    np.testing.assert_allclose(one.scores(users), other.scores(users), atol=1e-3)


@pytest.mark.slow
def test_a_run_that_changes_its_devices_on_the_way_is_the_run_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(composed(tmp_path / "one"))
    original, saves = checkpoint.Checkpoints.save, 0

    def stopping(self: Any, *args: Any) -> None:
        nonlocal saves
        original(self, *args)
        saves += 1
        if saves == 2:
            raise Stopped

    monkeypatch.setattr(checkpoint.Checkpoints, "save", stopping)
    with pytest.raises(Stopped):
        execute(composed(tmp_path / "many", "devices.batch=4", "devices.rows=2"))
    monkeypatch.undo()
    execute(composed(tmp_path / "many", "devices.batch=2"))
    one, many = only(tmp_path / "one"), only(tmp_path / "many")
    assert one.name == many.name
    np.testing.assert_allclose(evaluations(many), evaluations(one), atol=2e-3)
    assert_same_model(load(many), load(one))


PROCESS = """
import sys
from pathlib import Path
from incremental.app.experiment import execute
from tests.app.small import composed
execute(composed(Path(sys.argv[1]), *sys.argv[2:]))
"""


@pytest.mark.slow
def test_two_processes_execute_one_run(tmp_path: Path) -> None:
    both = ["training.epochs=2", "data.cut.increments=1"]
    execute(composed(tmp_path / "one", *both))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2")
    spread = [
        "devices.batch=2",
        "devices.rows=2",
        "devices.distributed=true",
        "devices.processes=2",
        f"devices.coordinator=127.0.0.1:{port}",
    ]
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "two"), *both, *spread]
    started = [
        subprocess.Popen(
            [*command, f"devices.process={i}"],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "finished: prequential" in said[0][0]
    assert "prequential" not in said[1][0]
    one, two = only(tmp_path / "one"), only(tmp_path / "two")
    np.testing.assert_allclose(evaluations(two), evaluations(one), atol=2e-3)
    # What two processes saved together, one process reads, on one device.
    assert_same_model(load(two), load(one))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["devices.batch=3"], r"devices\.batch=3: expected a power of two"),
        (["devices.rows=0"], r"devices\.rows=0: expected a whole number >= 1"),
        (["devices.tables=small"], r"devices\.tables: expected grow or whole, got 'small'"),
        (["devices.batch=16"], r"asks for 16 devices, there are 8; lower one of the two"),
        (["devices.batch=8", "training.batch_size=60"], r"batch_size=60 cannot be split over devices\.batch=8"),
        (["devices.process=1"], r"belong to devices\.distributed=true"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        execute(composed(tmp_path, *overrides))
    assert not list(tmp_path.iterdir())


def test_a_model_without_gradients_is_refused(tmp_path: Path) -> None:
    model = {"_target_": "incremental.models.popularity.popularity"}
    with pytest.raises(UserError, match="popularity runs on one device; leave devices out"):
        assemble({**composed(tmp_path, "devices.batch=2"), "model": model})


def test_the_mesh_is_named_and_auto() -> None:
    """Explicit axes, JAX's default, would make models and strategies name them."""
    mesh = layout(4, 2).mesh
    assert mesh.axis_names == (BATCH, "rows")
    assert mesh.shape == {BATCH: 4, "rows": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert Capacities().table % 128 == 0
