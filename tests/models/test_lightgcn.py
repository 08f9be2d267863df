"""LightGCN: a graph by hand, which edges travel, and the laws of a run whose problem reads them."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from incremental.app import cli
from incremental.app.experiment import execute, named
from incremental.core.gradient import make, training
from incremental.core.graph import EDGES, no_edges, on_edges
from incremental.core.optimizers import adam
from incremental.core.problem import problem
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.tower import reading
from incremental.core.types import Batch, Problem, State
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.heads.bpr import bpr
from incremental.models.lightgcn import lightgcn
from incremental.run import expected, loop
from incremental.run.alone import Build, Functions
from incremental.run.capacity import grow
from incremental.run.executor import Snapshot
from incremental.run.feed import Capacities, Feed
from incremental.run.lanes import Lanes, Programs
from incremental.run.policy import Plan
from incremental.run.progress import Paused, Result
from incremental.serve.model import load
from tests import lab
from tests.app.small import SMALL, only
from tests.loopless import assert_lane_is_alone

pytestmark = pytest.mark.usefixtures("shared_programs")
FEED = {"capacities": Capacities(table=128, examples=512)}  # the graph of all increments, so that all share a program
KNOWN: Any = {"user": np.ones(128, bool), "item": np.ones(128, bool)}


def of(edges: Any, sizes: Sizes, *, layers: int = 2) -> Problem:
    model = lightgcn(width=8, layers=layers)
    assert model.graph is not None
    return on_edges(problem(model, bpr(negatives=8), next_item(lab.HISTORY), sizes), model.graph, edges)


def program(window: Any, names: tuple[str, ...], sizes: Sizes, own: Mapping[str, Any]) -> Program:
    def at(side: Mapping[str, Any]) -> Program:
        tiny = of(side[EDGES], sizes)
        parts = {name: lab.configured(name)(tiny) for name in names}
        steps = training(batch_size=32, epochs=3, patience=1, least_epochs=0)
        rate = own.get("rate", 0.03)
        return make(tiny, adam(learning_rate=rate), parts, sizes=sizes, training=steps, cutoffs=(10,))

    return reading(at, {EDGES: no_edges()})._replace(window=window)


@functools.cache
def build(window: Any = "all", names: tuple[str, ...] = ("replay", "ewc")) -> Build:
    return functools.cache(lambda sizes: program(window, names, sizes, {}))


@functools.cache
def ran() -> tuple[Result, tuple[Snapshot, ...]]:
    """A run under replay and EWC, and where it paused."""
    kept: list[Snapshot] = []

    def keeping(events: Any) -> Any:
        for event in events:
            if isinstance(event, Paused):
                state, *rest = event.snapshot(0)
                kept.append(Snapshot(lab.on_host(state), *jax.tree.map(np.array, rest[:2]), *rest[2:]))
            yield event

    return loop.finished(keeping(lab.events(build(), lab.stream(), feed=FEED))), tuple(kept)


# -- by hand -----------------------------------------------------------------------------------------------------------

SIZES = Sizes(user=4, item=5)
GRAPH: Any = np.array([[1, 1], [0, 0], [1, 2], [2, 2], [0, 0], [0, 0]], np.int32)
"""user 3 and the items 3 and 4 have no edge; nor have user and item 0, which is padding"""


@functools.cache
def answers() -> Any:
    """All that one compiled program says of the graph, at random parameters."""
    rng = np.random.default_rng(0)
    shapes = {"user": (4, 8), "item": (5, 8)}
    params: Any = {kind: {"embedding": rng.normal(size=shape).astype(np.float32)} for kind, shape in shapes.items()}
    users: Any = np.array([1, 3])
    ones: Any = np.ones(2, np.int32)
    batch = Batch({"user": users}, users, ones, ones, ones)

    def asked(params: Any, edges: Any) -> Any:
        own = of(edges, SIZES)
        assert own.items is not None
        settled, outputs = own.settle(params), own.apply(params, {"user": jnp.arange(4)})
        return {
            "settled": settled,
            "users": (outputs.hidden, own.apply(settled, {"user": jnp.arange(4)}).hidden),
            "items": (own.items(params).table, own.items(settled).table),
            "scores": (outputs.scores, own.scores(params, outputs, jnp.arange(4))),
            "loss": [own.loss(given, own.apply(given, batch.inputs), batch) for given in (params, settled)],
        }

    return params, jax.jit(asked)(params, GRAPH)


def test_the_tables_are_the_mean_of_the_layers_by_hand_and_padding_is_no_edge() -> None:
    params, found = answers()
    u, v = params["user"]["embedding"], params["item"]["embedding"]
    # d_u = 2, 1; d_i = 1, 2. One step: u1 = v1/√2 + v2/2, u2 = v2/√2, v1 = u1/√2, v2 = u1/2 + u2/√2.
    r = np.sqrt(0.5)
    first_u, first_v = {1: r * v[1] + v[2] / 2, 2: r * v[2]}, {1: r * u[1], 2: u[1] / 2 + r * u[2]}
    second_u = {1: r * first_v[1] + first_v[2] / 2, 2: r * first_v[2]}
    second_v = {1: r * first_u[1], 2: first_u[1] / 2 + r * first_u[2]}
    for rows, one, two, made in (
        (u, first_u, second_u, found["settled"]["user"]["embedding"]),
        (v, first_v, second_v, found["settled"]["item"]["embedding"]),
    ):
        wanted = [(row + one.get(i, 0.0) + two.get(i, 0.0)) / 3 for i, row in enumerate(rows)]
        np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)


def test_users_items_scores_and_loss_are_those_of_the_computed_tables() -> None:
    _, found = answers()
    users, items = (found["settled"][kind]["embedding"] for kind in ("user", "item"))
    assert found["settled"]["graph"] == {}
    for made in found["users"]:
        np.testing.assert_allclose(made, users, rtol=1e-4, atol=1e-6)
    for made in found["items"]:
        np.testing.assert_allclose(made, items, rtol=1e-4, atol=1e-6)
    for made in found["scores"]:
        np.testing.assert_allclose(made, np.asarray(users) @ np.asarray(items).T, rtol=1e-5, atol=1e-6)
    before, after = found["loss"]
    np.testing.assert_allclose(before, after, rtol=1e-5)


# -- which edges -------------------------------------------------------------------------------------------------------


def pairs(events: Stream, increments: range) -> set[tuple[int, int]]:
    """The pairs of the increments' training examples."""
    at = events.trained_on(increments, validation=False)
    return {*zip(events.interactions.user[at].tolist(), events.label[at].tolist(), strict=True)}


def met(edges: Any) -> list[tuple[int, int]]:
    return [(user, item) for user, item in np.asarray(edges).tolist() if user]


@pytest.mark.parametrize(
    ("window", "until"), [(1, range(2, 3)), (2, range(1, 3)), ("all", range(3)), (0, range(1)), (9, range(3))]
)
def test_the_graph_of_an_update_and_of_the_test_after_it_is_that_of_the_window(window: Any, until: range) -> None:
    """The tested increment has no edge in the graph; nor have events of validation, or held out."""
    events, plan = lab.stream(), Plan(range(2, 3), range(2, 3), range(2, 3), False)
    made = program(window, (), lab.SIZES, {})
    feed = lab.feed_of(events, listed=True)
    given = feed.update(made, 2, plan, jax.device_put)
    _, tested, _ = feed.tests(made, KNOWN, 3, 2, jax.device_put, heldout=False)
    for data in (given.data, given.validation, tested):
        edges = met(data.side[EDGES])
        assert len(edges) == len({*edges}) > 0
        assert {*edges} == pairs(events, until)
    assert expected.update(feed, made, plan).data.side[EDGES].shape == given.data.side[EDGES].shape
    ahead, _ = expected.tests(feed, made, 3, 2, heldout=False)
    assert ahead.side[EDGES].shape == tested.side[EDGES].shape


def test_a_pair_without_table_rows_is_left_out() -> None:
    few, events = Sizes(item=40, user=20), lab.stream()
    edges = met(lab.feed_of(events).edges(3, "all", few, jax.device_put))
    assert {*edges} == {(user, item) for user, item in pairs(events, range(4)) if user < 20 and item < 40}
    assert edges


# -- the laws of a run -------------------------------------------------------------------------------------------------


def test_it_learns_under_replay_and_ewc_and_its_state_has_no_edges() -> None:
    result, _ = ran()
    first, *_, last = [record.value for record in result.records if record.metric == "ndcg@10"]
    assert min(first, last) > 0.05
    assert {*result.state.learner.params} == {"user", "item"}
    assert {*result.state.strategy} == {"head", "replay", "ewc"}


def test_the_graph_is_read_in_training_and_in_tests() -> None:
    events, f = lab.stream(), lab.functions(build()(lab.SIZES))
    (base, check), (later, _) = (lab.update_data(events, f.program, t, **FEED) for t in (0, 1))
    _, tested, _ = lab.feed_of(events, **FEED).tests(f.program, KNOWN, 1, 0, jax.device_put, heldout=False)

    def begun() -> Any:
        return f.begin(f.init(jax.random.key(0)), base)

    def found(there: int) -> dict[str, Any]:
        """What all that reads data says of the whole graph, or with no edge of it."""
        given = (each._replace(side={EDGES: there * each.side[EDGES]}) for each in (base, later, check, tested))
        first, second, validation, test = given
        return {
            "base_epoch": f.base_epoch(begun(), first)[0].learner.params,
            "run_epoch": f.run_epoch(begun(), second)[0].learner.params,
            "validate": f.validate(begun(), validation, None).fit.last,
            "end": f.end(begun(), first).strategy["ewc"],
            "rank": f.rank(begun(), test, None).rank,
        }

    whole, none = found(1), found(0)
    assert [name for name in whole if not lab.differs(whole[name], none[name])] == []


def test_saved_restored_continued_is_uninterrupted() -> None:
    whole, kept = ran()
    chosen = next(each for each in kept if each.progress.begun and each.progress.increment == 2)
    like = jax.eval_shape(build()(chosen.sizes).init, jax.random.key(0))
    best, before = jax.tree.map(jnp.array, (chosen.best, chosen.before))
    start = Snapshot(lab.put_back(chosen.state, like), best, before, chosen.sizes, chosen.progress)
    continued = lab.run(build(), lab.stream(), feed=FEED, start={0: start})
    lab.assert_same(continued.state, whole.state)
    assert list(map(str, continued.records)) == list(map(str, whole.records))


def test_grown_equals_allocated_beforehand() -> None:
    events = lab.written([[(f"{n % ids}", f"{n * 7 % ids}") for n in range(100)] for ids in (20, 50)])
    own = Capacities(table=8, examples=256)
    feed = Feed(events, capacities=own)
    assert feed.sizes(0)["user"] < feed.sizes(1)["user"]
    small, f = (lab.functions(build("all", ())(feed.sizes(t))) for t in (0, 1))

    def updated(f: Functions, state: State, t: int) -> State:
        data, _ = lab.update_data(events, f.program, t, capacities=own)
        state = f.begin(state, data)
        for _ in range(3):
            state, _ = f.run_epoch(state, data)
        return f.end(state, data)

    grown = grow(updated(small, small.init(jax.random.key(0)), 0), f.program)
    whole = updated(f, f.init(jax.random.key(0)), 0)
    _, tested, _ = feed.tests(f.program, KNOWN, 1, 0, jax.device_put, heldout=False)
    np.testing.assert_array_equal(*(f.rank(state, tested, None).rank for state in (grown, whole)))
    lab.assert_close(*(updated(f, state, 1) for state in (grown, whole)), rtol=1e-3, atol=1e-4)


def test_a_lane_under_replay_and_ewc_is_the_run_alone() -> None:
    numbers = [{"rate": 0.01}, {"rate": 0.03}]
    programs = Programs(functools.partial(program, "all", ("replay", "ewc")), {"rate": 1.0}, 2)
    lanes, f = Lanes(programs, numbers, [1, 0]), lab.functions(build()(lab.SIZES))
    assert_lane_is_alone(lanes, f, lab.stream(), KNOWN, **FEED)


# -- from a config -----------------------------------------------------------------------------------------------------


def configured(runs: Path, *overrides: str) -> dict[str, Any]:
    kept = [override for override in SMALL if not override.startswith("model")]
    with hydra.initialize_config_dir(str(cli.config_folder()), version_base="1.3"):
        config = hydra.compose("config", [*kept, *overrides, f"runs={runs}"])
    values: Any = OmegaConf.to_container(config, resolve=True)
    return named(values, {"model": "lightgcn", "update": "finetune"})


def test_a_run_from_its_config_is_loaded_and_recommends(tmp_path: Path) -> None:
    execute(configured(tmp_path, "model=lightgcn", "head=bpr", "model.window=1", "data.source.events=1200"))
    model = load(only(tmp_path))
    assert len(model.recommend(next(iter(model.users)), 5)) == 5


@pytest.mark.parametrize(
    ("situation", "overrides", "message"),
    [
        ("compact rows of a graph", ["model=lightgcn", "head=bpr", "training.rows=compact"], "touches all"),
        ("a head of its own over a graph", ["model=lightgcn", "head=adaptive_softmax"], "has parameters of its own"),
        (
            "a graph and texts",
            ["model=text_items", "model@model.model=lightgcn", "+text@data.text=hashed_words"],
            "not both",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, documented: Callable[[str, object], None], situation: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        execute(configured(tmp_path, *overrides))
    documented(situation, error.value)
