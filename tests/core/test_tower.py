"""Items that are computed from their texts: closed forms, and the laws of a run whose data its problem reads."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from incremental.app import cli
from incremental.app.experiment import execute, named
from incremental.core.gradient import make, training
from incremental.core.optimizers import adam, sgd
from incremental.core.problem import Model, problem
from incremental.core.program import Program
from incremental.core.sharding import sharded
from incremental.core.spec import Sizes, next_item
from incremental.core.tower import Tower, on_texts, reading
from incremental.core.types import Batch, Problem, State
from incremental.data.interactions import Table
from incremental.data.stream import Stream, make_stream
from incremental.data.text import hashed_words
from incremental.errors import UserError
from incremental.heads.bpr import bpr
from incremental.heads.full_softmax import full_softmax
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.sasrec import sasrec
from incremental.models.text_items import Linear, text_items
from incremental.run.alone import Build, Functions
from incremental.run.capacity import grow
from incremental.run.lanes import Lanes, Programs
from incremental.run.progress import Result
from incremental.serve.export import export
from incremental.serve.model import load
from tests import lab
from tests.app.small import SMALL, only
from tests.core.test_sharding import layout
from tests.loopless import assert_lane_is_alone
from tests.test_prefix import evaluation_differences

pytestmark = pytest.mark.usefixtures("shared_programs")
F = 16
SIZES = Sizes(item=12, user=9)
BOTH = text_items(model=lab.dense(), ids=True)  # with a dense kernel besides the tower's
TEXTS: Any = np.random.default_rng(0).normal(size=(SIZES.slots, F)).astype(np.float32)


def stream(**protocol: Any) -> Stream:
    return lab.stream(text=hashed_words(width=F), **protocol)


def of(model: Model, text: Any, sizes: Sizes = SIZES) -> tuple[Problem, Problem]:
    """Without the tower, and with it."""
    core = problem(model, full_softmax(), next_item(lab.HISTORY), sizes)
    assert model.tower is not None
    return core, on_texts(core, model.tower, text, "item")


def program(
    model: Model, names: tuple[str, ...], sizes: Sizes, own: Mapping[str, Any], cutoffs: tuple[int, ...] = (10,)
) -> Program:
    def at(text: jax.Array) -> Program:
        tiny = of(model, text, sizes)[1]
        return make(
            tiny,
            adam(learning_rate=own.get("rate", 0.03)),
            {name: lab.configured(name)(tiny) for name in names},
            sizes=sizes,
            training=training(batch_size=32, epochs=3, patience=1),
            cutoffs=cutoffs,
            rank_batch_size=64,
        )

    return reading(lambda side: at(side["text"]), {"text": jax.ShapeDtypeStruct((sizes.slots, F), jnp.float32)})


@functools.cache
def build(names: tuple[str, ...] = ()) -> Build:
    return functools.cache(lambda sizes: program(BOTH, names, sizes, {}))


@functools.cache
def ran() -> Result:
    return lab.run(build(("ewc",)), stream(), feed={"listed": True})


@pytest.mark.parametrize("ids", [True, False])
def test_every_item_table_is_the_texts_linear_map_and_the_ids_rows(ids: bool) -> None:
    core, own = of(text_items(model=matrix_factorization(width=4), ids=ids), TEXTS)
    params = jax.jit(own.init)(jax.random.key(0))
    assert ("item" in params, "item_bias" in params) == (ids, ids)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    said = TEXTS @ params["tower"]["text"]["kernel"]
    table, bias = said[:, :4], said[:, 4]
    if ids:
        table, bias = table + params["item"]["embedding"], bias + params["item_bias"]
    users: Any = np.array([1, 3])
    labels: Any = np.array([2, 5])
    ones: Any = np.ones(2, np.int32)
    batch = Batch({"user": users}, labels, ones, ones, ones)

    @jax.jit
    def asked(params: Any) -> Any:
        settled, told = own.settle(params), []
        assert own.settle(settled) is settled
        some = on_texts(core, Tower(Linear, ids, together=5), TEXTS, "item").settle(params)
        for given in (params, settled):
            outputs = own.apply(given, batch.inputs)
            rows = [own.scores(given, outputs, np.array([1]), *few) for few in ((), (np.array([4, 2]),))]
            told.append((outputs.scores, *rows, own.loss(given, outputs, batch), core.loss(settled, outputs, batch)))
        return settled, some, told

    settled, some, told = asked(params)
    for made in (settled, some):
        np.testing.assert_allclose(made["item"]["embedding"], table, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(made["item_bias"], bias, rtol=1e-5, atol=1e-5)
    scores = params["user"]["embedding"][users] @ table.T + bias
    for every, one, few, own_loss, core_loss in told:
        np.testing.assert_allclose(every, scores, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one, scores[1:], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(few, scores[1:, [4, 2]], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(own_loss, core_loss, rtol=1e-6)


def test_ids_start_as_they_do_without_texts() -> None:
    core, own = of(text_items(model=sasrec(width=8, blocks=1), ids=True), TEXTS)
    params = jax.jit(own.init)(jax.random.key(3))
    del params["tower"]
    lab.assert_same(params, jax.jit(core.init)(jax.random.key(3)))


def test_what_enters_the_towers_kernel_are_the_texts() -> None:
    core, own = of(BOTH, TEXTS)
    params = jax.jit(own.init)(jax.random.key(0))
    entered = own.features(params, {"user": jnp.array([1, 2])})
    np.testing.assert_array_equal(entered.pop("tower/text/kernel"), TEXTS)
    lab.assert_same(entered, core.features(own.settle(params), {"user": jnp.array([1, 2])}))


def test_texts_are_no_part_of_the_state() -> None:
    state = ran().state
    assert "text" in stream().interactions.side
    sizes = [np.shape(leaf) for leaf in jax.tree.leaves(lab.on_host(state))]
    assert (ran().sizes["item"], F) not in sizes
    assert {"tower", "item", "user", "layer"} == set(state.learner.params)


def test_a_run_depends_on_the_texts() -> None:
    def words(titles: Any) -> np.ndarray:
        return hashed_words(width=F)(titles)[::-1].copy()

    other = lab.run(build(("ewc",)), lab.stream(text=words), feed={"listed": True})
    assert lab.differs(other.state.learner.params, ran().state.learner.params)
    assert other.records != ran().records


def test_the_prefix_law() -> None:
    builds = lambda _: build(("ewc",))  # noqa: E731
    for listed in (False, True):
        run = {"matrix": not listed, "feed": {"listed": listed}}
        assert evaluation_differences(builds, stream(until=2), stream(), lab.FINETUNE, **run) == []


def updated(f: Functions, state: State, t: int) -> State:
    """The state after three epochs of increment t, without a validation."""
    data, _ = lab.update_data(stream(), f.program, t)
    state = f.begin(state, data)
    for _ in range(3):
        state, _ = f.run_epoch(state, data)
    return f.end(state, data)


def test_grown_equals_allocated_beforehand() -> None:
    small, f = (lab.functions(build()(sizes)) for sizes in (lab.SIZES, Sizes(item=144, user=144)))
    grown = updated(f, grow(updated(small, small.init(jax.random.key(0)), 0), f.program), 1)
    whole = updated(f, updated(f, f.init(jax.random.key(0)), 0), 1)
    lab.assert_close(grown, whole, rtol=1e-4, atol=1e-5)


def test_a_lane_is_the_run_alone() -> None:
    numbers = [{"rate": 0.01}, {"rate": 0.03}]
    programs = Programs(functools.partial(program, BOTH, ("ewc",)), {}, 2)
    f = lab.functions(build(("ewc",))(lab.SIZES))
    known = {"user": np.ones(128, bool), "item": np.ones(128, bool)}
    assert_lane_is_alone(Lanes(programs, numbers, [1, 0]), f, stream(), known, listed=True)


@pytest.mark.parametrize("ids", [True, False])
def test_a_compact_step_computes_the_batchs_items_only_and_does_what_the_dense_one_does(ids: bool) -> None:
    """Under SGD, with replayed rows and their old hidden vectors; a batch has fewer ids than the tables rows. The base
    part's own epochs are looked at once."""
    model, sizes = text_items(model=matrix_factorization(width=4), ids=ids), Sizes(item=256, user=128)
    met: set[int] = set()

    def parts(own: Problem) -> dict[str, Any]:
        tables = jax.eval_shape(lambda key: own.settle(own.init(key)), jax.random.key(0))
        met.add(len(tables["item"]["embedding"]))
        return {"der": lab.configured("der")(own)}

    def functions(rows: Any) -> Any:
        def at(text: jax.Array) -> Program:
            core = problem(model, bpr(negatives=8), next_item(lab.HISTORY), sizes)
            own = on_texts(core, model.tower, text, "item")  # type: ignore[arg-type]
            steps = training(batch_size=16, patience=0, rows=rows)
            return make(own, sgd(learning_rate=0.5), parts, sizes=sizes, training=steps)

        return lab.functions(
            reading(lambda side: at(side["text"]), {"text": jax.ShapeDtypeStruct((sizes.slots, F), jnp.float32)})
        )

    compact, dense = functions("compact"), functions("dense")

    def run(own: Any) -> Any:
        state = dense.init(jax.random.key(0))
        for t, epoch in enumerate((own.base_epoch if ids else own.run_epoch, own.run_epoch)):
            data, _ = lab.update_data(stream(), dense.program, t)
            state = dense.begin(state, data)
            for _ in range(2):
                state, _ = epoch(state, data)
            state = dense.end(state, data)  # rows are how a step looks at tables; all else is the same program
        return state.learner.params

    lab.assert_close(run(compact), run(dense), rtol=1e-3, atol=1e-4)
    few, *_, every = sorted(met)  # those of the base part's batches, which no strategy adds to, and of increments'
    assert few < 100
    assert every == 256


def test_over_devices_it_is_the_run_on_one() -> None:
    one, spread = lab.functions(build()(lab.SIZES)), lab.functions(sharded(build()(lab.SIZES), layout(2, 2)))
    ended = [updated(f, updated(f, f.init(jax.random.key(0)), 0), 1) for f in (one, spread)]
    assert len(ended[1].learner.params["item"]["embedding"].sharding.device_set) == 4
    lab.assert_close(*(state.learner.params for state in ended), rtol=1e-3, atol=1e-3)


def two_kinds(text: Any = hashed_words(width=F)) -> Stream:
    """Users who take items of one kind only; each part has new ones, and a title says the kind and nothing else."""
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, int]] = []
    for part in range(3):
        for _ in range(200):
            user = int(rng.integers(20))
            rows.append((f"{user}", f"{user % 2}-{part}-{rng.integers(6)}", len(rows)))
    frame = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.String, "time": pl.Int64}, orient="row")
    titles = {item: "red lip" if item.startswith("0") else "blue nail" for item in frame["item"]}
    cut = lab.by_time([200, 400])
    return make_stream(source=Table(frame, "kinds", titles), cut=cut, history=lab.HISTORY, text=text)


def test_a_new_item_scores_from_its_text_before_its_first_interaction() -> None:
    """Of the 24 and then 36 candidates half are of the user's kind, and all of these are one item to the model."""

    def cold(made: Program, listed: bool) -> list[float]:
        result = lab.run(lambda _: made, two_kinds(), metrics=("recall@12",), feed={"listed": listed})
        return [record.value for record in result.records if record.metric == "recall@12/cold_items"]

    model = matrix_factorization(width=8)
    by_text = program(text_items(model=model), (), lab.SIZES, {}, (12,))
    assert cold(by_text, listed=True) == [1.0, 1.0]
    assert cold(by_text, listed=False) == [0.0, 0.0]
    core = problem(model, full_softmax(), next_item(lab.HISTORY), lab.SIZES)
    steps = training(batch_size=32, epochs=3, patience=0)
    by_ids = make(core, adam(learning_rate=0.03), sizes=lab.SIZES, training=steps, cutoffs=(12,))
    assert max(cold(by_ids, listed=True)) < 0.8


def test_items_that_are_left_out_cannot_be_listed() -> None:
    events = stream(unseen_items="drop")
    with pytest.raises(UserError, match=r"make it with unseen_items=miss or listed"):
        lab.run(build(("ewc",)), events, feed={"listed": True})


RUN = ["model=text_items", "model@model.model=matrix_factorization", "model.model.width=8"]
TEXT = "+text@data.text=hashed_words"


def configured(runs: Path, *overrides: str) -> dict[str, Any]:
    """The resolved config of a small run of `text_items`."""
    kept = [override for override in SMALL if not override.startswith("model")]
    with hydra.initialize_config_dir(str(cli.config_folder()), version_base="1.3"):
        config = hydra.compose("config", [*kept, *RUN, *overrides, f"runs={runs}"])
    values: Any = OmegaConf.to_container(config, resolve=True)
    return named(values, {"model": "text_items", "update": "finetune"})


def test_a_run_from_its_config_is_loaded_recommends_and_is_exported(tmp_path: Path) -> None:
    execute(configured(tmp_path, TEXT))
    run = only(tmp_path)
    assert json.loads((run / "summary.json").read_text())["metrics"]["ndcg@10"]["prequential"] > 0
    model = load(run)
    user = next(iter(model.users))
    assert len(model.recommend(user, 5)) == 5
    items = pl.read_parquet(export(run, tmp_path / "out")[0])
    vectors = np.stack(list(items["item/embedding"]))
    kernel = np.asarray(model.state.learner.params["tower"]["text"]["kernel"])
    said = hashed_words(width=256)(items["title"].to_list()) @ kernel
    assert vectors.shape == (len(items), 8)
    np.testing.assert_allclose(vectors, said[:, :8], rtol=1e-4, atol=1e-5)  # the last column is the bias


def test_a_program_without_its_texts_says_so() -> None:
    alone = build()(lab.SIZES)
    for function in (alone.scores, alone.represent, alone.tables):
        with pytest.raises(UserError, match=r"program.at\(side\)"):
            function(None)  # type: ignore[misc, call-arg, arg-type]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "data.text=null"),
        ([TEXT, "head=adaptive_softmax"], "the head has parameters of its own; choose a head that"),
        ([TEXT, "training.rows=compact"], "the head reads"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        execute(configured(tmp_path, *overrides))
