"""Laws of the core and the baselines on one tiny problem; those of every strategy are `incremental.testing`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.core.strategy import Strategy, chain
from incremental.core.types import STORED, Batch, Data, State
from incremental.memory import buffer, reservoir
from incremental.run import alone, loop
from incremental.run.capacity import capacity, into_corner
from incremental.run.compiled import Compiled
from incremental.run.executor import Snapshot
from incremental.run.feed import Capacities, Feed
from incremental.run.progress import Event, Paused
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
strategies = pytest.mark.parametrize("strategy", lab.STRATEGIES)
SIZES = lab.SIZES
BASELINES = ("popularity", "cooccurrence", "oracle")
SESSIONS = ("association_rules", "sequential_rules", "vsknn", "item_knn", "ease")


def program_of(name: str) -> Program:
    """A strategy's program, or a baseline's."""
    build = lab.build_for(name, lab.stream()) if name in BASELINES + SESSIONS else lab.build(lab.Spec(name))
    return build(SIZES)


def after(f: alone.Functions, increments: int, seed: int = 0) -> State:
    """The state after some updates."""
    state = f.init(jax.random.key(seed))
    for t in range(increments):
        state, _ = lab.train(f, state, *lab.data_at(t))
    return state


# -- types and traces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*lab.STRATEGIES, *BASELINES, *SESSIONS])
def test_the_type_of_the_state_never_changes(name: str) -> None:
    program = program_of(name)
    inputs = "history" if name in ("cooccurrence", *SESSIONS) else "event" if name == "oracle" else "user"
    data, validation = lab.update_data(lab.stream(), program, 1)
    assert inputs in data.rows.inputs
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(program.init, key)  # works on ShapeDtypeStructs
    for name, changed in {
        "restart": jax.eval_shape(program.restart, state, data),
        "begin": jax.eval_shape(program.begin, state, data),
        "run_epoch": jax.eval_shape(program.run_epoch, state, data)[0],
        "validate": jax.eval_shape(program.validate, state, validation, None),
        "end": jax.eval_shape(program.end, state, data),
    }.items():
        assert lab.types(changed) == lab.types(state), name


@strategies
def test_one_trace_for_all_increments(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    met: defaultdict[int, set[int]] = defaultdict(set)
    original = Compiled.program

    def noted(self: Compiled, *args: Any) -> Any:
        found = original(self, *args)
        met[id(self)].add(id(found))
        return found

    monkeypatch.setattr(Compiled, "program", noted)
    result = lab.run(lab.build(lab.Spec(strategy)), lab.stream())
    f = lab.functions(lab.build(lab.Spec(strategy))(result.sizes))
    assert result.sizes == SIZES
    for name in ("init", "begin", "run_epoch", "validate", "end", "rank"):
        assert len(met[id(getattr(f, name))]) == 1, name


# -- state is everything --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [*lab.STRATEGIES, "popularity", "cooccurrence", *(pytest.param(name, marks=pytest.mark.slow) for name in SESSIONS)],
)
def test_saved_restored_continued_is_uninterrupted(name: str) -> None:
    program, kept = program_of(name), []

    def build(_: Sizes) -> Program:
        return program

    def keeping(events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Paused):
                state, *rest = event.snapshot(0)
                kept.append((lab.on_host(state), jax.tree.map(np.array, rest[:2]), *rest[2:]))
            yield event

    whole = loop.finished(keeping(lab.events(build, lab.stream())))
    places = [progress for *_, progress in kept]
    assert {place.begun for place in places} == {True, False}
    middle = next(i for i, place in enumerate(places) if place.begun and place.increment == 2)
    boundary = next(i for i, place in enumerate(places) if not place.begun and place.increment == 2)
    for chosen in {middle, boundary, len(places) - 1}:
        state, beside, sizes, progress = kept[chosen]
        best, before = jax.tree.map(jnp.array, beside)
        like = jax.eval_shape(program.init, jax.random.key(0))
        restored = Snapshot(lab.put_back(state, like), best, before, sizes, progress)
        continued = lab.run(build, lab.stream(), start={0: restored})
        lab.assert_same(continued.state, whole.state)
        assert list(map(str, continued.records)) == list(map(str, whole.records))
        for one, other in zip(continued.costs, whole.costs, strict=True):
            assert one.examples == other.examples
            assert one[5:] == other[5:]  # all but times


@strategies
def test_padding_rows_change_nothing(strategy: str) -> None:
    f = lab.functions(program_of(strategy))
    data, validation = lab.data_at(1)

    def spoilt(data: Data) -> Data:
        rows = data.rows
        real = jnp.arange(len(rows.labels)) < data.size
        assert not bool(real.all())
        inputs = {name: jnp.where(real, ids, 77) for name, ids in rows.inputs.items()}
        weight = jnp.where(real, rows.weight, 5.0)
        labels, owner = jnp.where(real, rows.labels, 99), jnp.where(real, rows.owner, 98)
        increment = rows.increment + ~real
        return data._replace(
            rows=rows._replace(inputs=inputs, labels=labels, weight=weight, increment=increment, owner=owner)
        )

    clean, metrics = lab.train(f, after(f, 1), data, validation)
    other, spoilt_metrics = lab.train(f, after(f, 1), spoilt(data), spoilt(validation))
    lab.assert_same(other, clean)
    lab.assert_same(spoilt_metrics, metrics)


def test_a_larger_capacity_changes_nothing() -> None:
    """All strategies at once: data padded to twice the rows."""
    f = lab.functions(program_of("replay+ewc"))

    def longer(leaf: jax.Array) -> jax.Array:
        return jnp.pad(leaf, [(0, len(leaf))] + [(0, 0)] * (leaf.ndim - 1)) if leaf.ndim else leaf

    def doubled(data: Data) -> Data:
        return jax.tree.map(longer, data)

    (data, validation), state = lab.data_at(1), after(f, 1)
    one, metrics = lab.train(f, state, data, validation)
    two, doubled_metrics = lab.train(f, after(f, 1), doubled(data), doubled(validation))
    lab.assert_close(two, one)
    lab.assert_close(doubled_metrics, metrics)


# -- strategies side by side ----------------------------------------------------------------------------------------


def test_no_strategy_is_plain_training_exactly() -> None:
    plain = lab.functions(program_of("plain"))
    nothing = lab.make(lab.problem_of(lab.Spec(), SIZES), {"nothing": Strategy()}, SIZES, lab.Spec())
    data, _ = lab.data_at(0)
    state = plain.begin(plain.init(jax.random.key(0)), data)
    own = {"nothing": ()}
    other = state._replace(strategy=own)
    one, two = jax.jit(nothing.run_epoch)(other, data), plain.run_epoch(state, data)
    lab.assert_same(one[0].learner, two[0].learner)
    lab.assert_same(one[1].loss, two[1].loss)


def test_a_strategy_leaves_the_draws_of_another_alone() -> None:
    memories = {
        strategy: after(lab.functions(program_of(strategy)), 3).strategy["replay"]
        for strategy in ("replay", "replay+ewc", "ewc+replay", "replay+online_ewc")
    }
    alone = memories["replay"]
    assert int(alone.inserted) > len(alone.rows.labels)  # slots were overwritten by draws
    for strategy, memory in memories.items():
        assert not lab.differs(memory, alone), strategy

    # What is drawn for a batch, too.
    problem = lab.problem_of(lab.Spec(), SIZES)
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[:32], lab.data_at(1)[0].rows)
    labels = []
    for names in ("replay", "replay+ewc", "ewc+replay"):
        parts = lab.strategies(lab.Spec(names), problem)
        drawn = jax.jit(chain(**parts).batch)(dict.fromkeys(parts, alone), batch, jax.random.key(3))
        labels.append(np.asarray(drawn.labels).tolist())
    assert labels[0] == labels[1] == labels[2]
    assert len(labels[0]) == 48


def test_unlimited_replay_is_uniform_over_all_the_past() -> None:
    problem = lab.problem_of(lab.Spec(), SIZES)
    memory = jax.jit(lambda: buffer.empty(problem.example, 512))()
    rows = [lab.data_at(t)[0].rows for t in range(3)]
    insert = jax.jit(reservoir.insert)
    for t, part in enumerate(rows):
        memory = insert(memory, part, jax.random.key(t))
    total = sum(int(np.asarray(part.valid).sum()) for part in rows)
    assert int(memory.inserted) == total < 512
    past = np.concatenate([np.asarray(part.labels)[np.asarray(part.valid)] for part in rows])
    assert np.asarray(memory.rows.labels)[:total].tolist() == past.tolist()
    assert not np.asarray(memory.rows.valid)[total:].any()
    marked = memory._replace(rows=memory.rows._replace(labels=np.arange(512)))
    drawn = jax.jit(buffer.sample, static_argnums=1)(marked, 100 * total, jax.random.key(9))
    assert np.asarray(drawn.valid).all()
    counts = np.bincount(np.asarray(drawn.labels), minlength=total)
    assert len(counts) == total
    assert stats.chisquare(counts).pvalue > 1e-4


# -- tables that grow -----------------------------------------------------------------------------------------------


def growing() -> Any:
    """The base part has few ids; the tables grow once, before increment 1."""
    rng = np.random.default_rng(1)

    def part(ids: int) -> list[tuple[str, str]]:
        users, items = (rng.permutation(100) % ids for _ in range(2))
        return [(str(user), str(item)) for user, item in zip(users, items, strict=True)]

    return lab.written([part(20), part(50)], validation=0.15)


@pytest.mark.parametrize(
    "spec",
    [
        lab.Spec("replay+ewc"),
        *(
            pytest.param(lab.Spec(strategy, model, head, optimizer), marks=pytest.mark.slow)
            for model in ("mf", "sasrec", "gru4rec")
            for strategy, head in (("replay+ewc", "full"), ("online_ewc", "sampled"))
            for optimizer in ("sgd", "adam")
            if (model, optimizer) != ("sasrec", "sgd")  # which diverges at this rate
        ),
    ],
)
def test_grown_equals_allocated_beforehand(spec: lab.Spec) -> None:
    tight, roomy = (Capacities(table=least, examples=128) for least in (8, 52))
    grown, beforehand = (lab.run(lab.build(spec), growing(), feed={"capacities": own}) for own in (tight, roomy))
    inputs = lab.problem_of(spec, Sizes(item=52, user=52)).inputs
    first, last = (Feed(growing(), capacities=own).sizes(0, inputs) for own in (tight, roomy))
    assert first["item"] < 30 < last["item"] == 52
    assert first["user"] < 30 or "user" not in inputs
    assert last == grown.sizes == beforehand.sizes
    for one, other in zip(grown.records, beforehand.records, strict=True):
        assert one[:3] == other[:3]
        np.testing.assert_allclose(one.value, other.value, atol=1e-5, err_msg=one.metric)
    lab.assert_close(grown.state, beforehand.state, rtol=1e-3, atol=1e-4, free=lab.FREE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SESSIONS)
def test_a_grown_baseline_equals_one_allocated_beforehand(name: str) -> None:
    """Pairs and sessions lie in arrays whose length follows the tables'."""
    tight, roomy = (Capacities(table=least, examples=128) for least in (8, 52))
    build = lab.baseline_build(name)
    grown, beforehand = (lab.run(build, growing(), feed={"capacities": own}) for own in (tight, roomy))
    assert grown.sizes == beforehand.sizes
    for one, other in zip(grown.records, beforehand.records, strict=True):
        assert one[:3] == other[:3]
        np.testing.assert_allclose(one.value, other.value, atol=1e-6, err_msg=one.metric)


def test_tables_for_the_whole_stream_give_the_same_results_with_one_capacity() -> None:
    small = Capacities(table=8, examples=128)
    given: list[dict[str, Any]] = [{"capacities": small, "whole": room} for room in (False, True)]
    grown, whole = given
    user = lab.user_alone(growing())
    grows, stays = ([Feed(growing(), **own).sizes(t, user) for t in (0, 1)] for own in (grown, whole))
    assert grows[0] != grows[1]
    assert stays == [grows[1]] * 2
    results = [lab.run(lab.build(lab.Spec("replay+ewc")), growing(), feed=own) for own in (grown, whole)]
    for one, other in zip(*(result.records for result in results), strict=True):
        assert one[:3] == other[:3]
        np.testing.assert_allclose(one.value, other.value, atol=1e-5, err_msg=one.metric)


def test_tables_that_a_state_has_already_are_not_made_smaller() -> None:
    feed, user = Feed(growing()), lab.user_alone(growing())
    assert feed.sizes(0, user, Sizes(item=4096, user=8)) == feed.sizes(0, user).replace(item=4096)
    assert feed.sizes(0, user)["user"] > 8


@pytest.mark.parametrize("model", lab.MODELS)
def test_a_row_starts_the_same_in_every_capacity(model: str) -> None:
    small, large = (
        jax.jit(lab.problem_of(lab.Spec(model=model), Sizes(item=n, user=n)).init)(jax.random.key(0)) for n in (18, 40)
    )
    corner = jax.tree.map(lambda few, many: many[tuple(slice(n) for n in few.shape)], small, large)
    lab.assert_same(corner, small)
    assert lab.differs(small["item"]["embedding"][:8], small["item"]["embedding"][8:16])


@given(st.integers(1, 10**7), st.integers(1, 2000))
def test_capacities(n: int, least: int) -> None:
    size = capacity(n, least)
    assert max(n, least) <= size <= max(8, max(n, least) * 9 / 8)
    assert capacity(size, least) == size  # stable: a table at capacity does not grow
    assert capacity(n + 1, least) >= size


def test_growing_keeps_the_old_corner() -> None:
    old = jnp.arange(6.0).reshape(2, 3)
    new = into_corner(jnp.full((4, 3), 9.0), old)
    assert new.tolist() == [[0, 1, 2], [3, 4, 5], [9, 9, 9], [9, 9, 9]]
    assert into_corner(jnp.zeros((2, 3)), old) is old


def test_a_batch_of_rows_may_hold_more_than_memories_keep() -> None:
    """Memories and programs agree on the fields of a row."""
    assert STORED == Batch._fields[:6] == ("inputs", "labels", "weight", "valid", "increment", "owner")


@pytest.mark.parametrize("model", ["mf", "sasrec"])
def test_every_example_knows_its_user(model: str) -> None:
    """Whether the model reads it or not; histories are made from the user's own events."""
    events = lab.stream()
    data, checked = lab.update_data(events, lab.build(lab.Spec(model=model))(SIZES), 1)
    alone = range(1, 2)
    for read, validation in ((data, False), (checked, True)):
        rows = events.training_examples(alone, validation=validation, inputs=read.rows.inputs)
        assert len(rows) > 1
        np.testing.assert_array_equal(read.rows.owner[: len(rows)], rows.user)
        assert not np.asarray(read.rows.owner[len(rows) :]).any()
        assert ("user" in read.rows.inputs) == (model == "mf")
