"""A lane is the run alone: its evaluations, costs, early stopping and state, on eight devices and under jax.vmap."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.gradient import make, training
from incremental.core.optimizers import adam
from incremental.core.problem import problem
from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.core.types import State
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.run import lanes, loop, memory
from incremental.run.alone import Build
from incremental.run.executor import Base, Executor
from incremental.run.feed import Capacities
from incremental.run.lanes import Lanes, Programs
from incremental.run.policy import Update, update
from incremental.run.progress import Epoch, EpochDone, Event, Failed, Finished, Paused, Result, Resumed
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs")
ROOM = {"capacities": Capacities(table=128, examples=512)}  # updates of one increment and of all share a program


def build(names: tuple[str, ...], sizes: Sizes, own: Mapping[str, Any]) -> Program:
    """Strategies on the least model with a dense kernel; `own` may hold `rate`, and `NAME.key`."""
    tiny = problem(lab.dense(), full_softmax(), next_item(lab.HISTORY), sizes)
    parts = {}
    for name in names:
        numbers = {key.removeprefix(f"{name}."): value for key, value in own.items() if key.startswith(f"{name}.")}
        parts[name] = functools.partial(lab.configured(name), **numbers)(tiny)
    return make(
        tiny,
        adam(learning_rate=own.get("rate", 0.03)),
        parts,
        sizes=sizes,
        training=training(batch_size=32, epochs=4, patience=1),
        cutoffs=(10,),
        rank_batch_size=64,
    )


@functools.cache
def fixed(names: tuple[str, ...], own: tuple[tuple[str, float], ...]) -> Build:
    """Programs of one of the runs, alone."""
    return functools.cache(lambda sizes: build(names, sizes, dict(own)))


@functools.cache
def programs_of(names: tuple[str, ...], lanes: int, mapped: Any) -> Programs:
    """What lanes share, compiled once for all tests; `mapped` only tells one way to map lanes from the other."""
    del mapped
    return Programs(functools.partial(build, names), {}, lanes)


def events(
    names: tuple[str, ...], numbers: list[dict[str, float]], policy: Update = lab.FINETUNE, **arguments: Any
) -> Iterator[Event]:
    """The runs as lanes, each with its place in the list as seed."""
    way = Lanes(programs_of(names, len(numbers), lanes.mapped_on), numbers, range(len(numbers)))
    given: dict[str, Any] = {"metrics": ("ndcg@10",), "matrix": True, **arguments}
    return loop.run_stream(lab.feed_of(lab.stream(), **ROOM), Executor(way), policy, **given)


def solo(
    names: tuple[str, ...], own: Mapping[str, float], seed: int = 1, policy: Update = lab.FINETUNE, **arguments: Any
) -> Iterator[Event]:
    """One of the runs, alone."""
    built = fixed(names, tuple(own.items()))
    return lab.events(built, lab.stream(), policy, seed=seed, feed=ROOM, matrix=True, **arguments)


def results_of(told: Iterable[Event]) -> dict[int, Any]:
    """What became of each lane."""
    found: dict[int, Any] = {}
    for event in told:
        if isinstance(event, Finished):
            found[event.lane] = event.result
        elif isinstance(event, Failed):
            found[event.lane] = event.error
    return found


def epochs_of(told: Iterable[Event], lane: int) -> list[Epoch]:
    """What a lane's epochs came to."""
    return [event.epoch for event in told if isinstance(event, EpochDone) and event.lane == lane]


def assert_same(lane: Any, alone: Result) -> None:
    """The same evaluations, epochs and weights; costs that can be equal are."""
    assert [record[:3] for record in lane.records] == [record[:3] for record in alone.records]
    values = [[record.value for record in result.records] for result in (lane, alone)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=1e-6)
    exact = [
        [
            cost._replace(seconds=0, compile_seconds=0, waited_seconds=0, wall_seconds=0, lanes=1)
            for cost in result.costs
        ]
        for result in (lane, alone)
    ]
    assert exact[0] == exact[1]
    lab.assert_close(lane.state, alone.state, rtol=1e-4, atol=1e-4, free=lab.FREE)


NAMES = ("ewc",)
NUMBERS = [
    {"rate": 0.01, "ewc.weight": 1.0},
    {"rate": 0.1, "ewc.weight": 30.0},
    {"rate": float("inf"), "ewc.weight": 30.0},
    *[{"rate": 0.03, "ewc.weight": 30.0}] * 6,  # on eight devices: two lanes each, seven of them fillers
]


@functools.cache
def ran() -> tuple[Event, ...]:
    """Lanes, the third of which diverges."""
    return tuple(events(NAMES, NUMBERS))


@functools.cache
def alone() -> tuple[Event, ...]:
    """The second one, alone."""
    return tuple(solo(NAMES, NUMBERS[1]))


def test_a_lane_is_the_run_alone_and_stops_by_itself() -> None:
    results, (own,) = results_of(ran()), results_of(alone()).values()
    assert_same(results[1], own)
    assert [cost.epochs for cost in own.costs] != [cost.epochs for cost in results[0].costs]
    epochs = epochs_of(ran(), 1)
    number = [(epoch.increment, epoch.epoch) for epoch in epochs]
    assert number == [(cost.increment, 1 + i) for cost in own.costs for i in range(cost.epochs)]
    for epoch, other in zip(epochs, epochs_of(alone(), 0), strict=True):
        assert epoch.terms.keys() == other.terms.keys() == ({"data", "ewc"} if epoch.increment else {"data"})
        told, expected = ([each.loss, each.validation, *each.terms.values()] for each in (epoch, other))
        np.testing.assert_allclose(np.array(told, float), np.array(expected, float), rtol=1e-4, atol=1e-6)
    assert any(epoch.terms.get("ewc", 0.0) > 0 for epoch in epochs)
    *_, last = (event for event in ran() if isinstance(event, Paused))
    assert last.progress[1].epochs == tuple(epochs)


def test_a_lane_that_diverges_is_reported_and_stops_no_other() -> None:
    results = results_of(ran())
    assert isinstance(results[2], UserError)
    assert "increment 0, epoch 1, step 1" in str(results[2])
    assert [event.lane for event in ran() if isinstance(event, Failed)] == [2]
    first = next(i for i, event in enumerate(ran()) if isinstance(event, Failed))
    assert all(2 not in event.progress for event in ran()[first:] if isinstance(event, Paused))


def test_the_best_epoch_of_a_lane_that_is_off_stays() -> None:
    """And its checksums; a best epoch is put back in the lanes that are on."""
    way = Lanes(programs_of(NAMES, len(NUMBERS), lanes.mapped_on), NUMBERS, range(len(NUMBERS)))
    bound, on = way.at(results_of(ran())[1].sizes), way.on([0])
    old = bound.init()
    params = way.device(jax.tree.map(lambda leaf: leaf + 1, way.host(old.learner.params)))
    fit = old.fit._replace(better=way.device(np.ones(way.total, bool)))
    new = old._replace(learner=old.learner._replace(params=params), fit=fit)

    def start(state: State) -> Any:
        return bound.keep(way.on([]), None, state)

    kept: list[Any] = [bound.keep(on, start(old), new), bound.restored(on, old, start(new))]
    found = [*(each.learner.params for each in kept), bound.begun(on, bound.sums(old), bound.sums(new))]
    states = [(old.learner.params, new.learner.params)] * 2
    for tree, pair in zip(found, [*states, (bound.sums(old), bound.sums(new))], strict=True):
        for leaf, before, after in zip(*(jax.tree.leaves(way.host(each)) for each in (tree, *pair)), strict=True):
            assert (before[0] != after[0]).any()
            np.testing.assert_array_equal(leaf[0], after[0])
            np.testing.assert_array_equal(leaf[1:], before[1:])


def test_a_killed_lane_continues_packed_beside_others_and_alone() -> None:
    paused = (event for event in events(NAMES, NUMBERS) if isinstance(event, Paused))
    saved = next(each.snapshot(1) for each in paused if each.progress[1].increment == 1 and each.progress[1].begun)
    # It is ahead of the others, which start anew, and waits for them.
    told = list(events(NAMES, NUMBERS, start={1: saved}))
    for lane in (0, 1):
        assert_same(results_of(told)[lane], results_of(ran())[lane])
    assert [event.lane for event in told if isinstance(event, Resumed)] == [1]
    assert epochs_of(told, 1)[0][:2] == (1, 2)
    *_, last = (event for event in told if isinstance(event, Paused))
    assert last.progress[1].epochs == tuple(epochs_of(ran(), 1))  # those before the kill once
    (again,) = results_of(solo(NAMES, NUMBERS[1], start={0: saved})).values()
    assert_same(again, results_of(alone())[0])


class Lent:
    """A base part to begin with."""

    required = True

    def __init__(self, base: Base) -> None:
        self.base = base

    def take(self, sizes: Sizes) -> Base:
        assert sizes == self.base.sizes
        return self.base

    def keep(self, base: Base) -> None:
        raise AssertionError(base)


def test_lanes_begin_with_the_base_parts_of_others() -> None:
    """Each lane with its own, as the run alone does; a lane to which none is lent trains it."""
    lent = {}
    for lane in (0, 1):
        (result,) = results_of(solo(NAMES, NUMBERS[lane], lane, lab.POLICIES["static"])).values()
        lent[lane] = Lent(Base(jax.device_get(result.state.learner), result.costs[0], result.sizes))
    told = list(events(NAMES, NUMBERS, bases=lent))
    (expected,) = results_of(solo(NAMES, NUMBERS[1], bases={0: lent[1]})).values()
    results = results_of(told)
    whole = [lane for lane, result in sorted(results.items()) if isinstance(result, Result)]
    assert whole == [0, 1, *range(3, len(NUMBERS))]
    trained = [lane for lane in whole if any(epoch.increment == 0 for epoch in epochs_of(told, lane))]
    assert trained == whole[2:]
    lane = results[1]
    assert lane.costs[0].seconds >= lent[1].base.cost.seconds  # what the base part took there is counted
    assert_same(lane, expected)


@pytest.mark.parametrize("policy", [update(drop=0.0), update(budget=150)], ids=["drift", "budget"])
def test_lanes_of_which_each_has_its_own_plan(policy: Update) -> None:
    """When a lane is updated depends on its own results: some wait while others train."""
    results = results_of(events(NAMES, NUMBERS, policy))
    updated = [[cost.increment for cost in results[lane].costs if cost.epochs] for lane in (0, 1, 3)]
    assert len(set(map(tuple, updated))) > 1
    for lane in (0, 1):
        (alone,) = results_of(solo(NAMES, NUMBERS[lane], lane, policy)).values()
        assert_same(results[lane], alone)


def test_lanes_are_split_where_the_compiled_programs_need_more_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = programs_of(NAMES, len(NUMBERS), lanes.mapped_on)
    for free, parts in ((2**40, 1), (2**10, len(NUMBERS))):
        monkeypatch.setattr(memory, "available", lambda _, free=free: free)
        assert memory.splits(programs, lab.feed_of(lab.stream(), **ROOM), lab.FINETUNE, NUMBERS) == parts


@pytest.mark.slow
@pytest.mark.parametrize("strategy", lab.EVERY)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_every_strategys_lane_is_its_run_alone(strategy: str, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = lanes.mapped_on(platform)  # one after the other, or under jax.vmap
    monkeypatch.setattr(lanes, "mapped_on", lambda _: mapped)
    numbers = [{"rate": 0.01}, {"rate": 0.1}, {"rate": 0.03}]
    (own,) = results_of(solo((strategy,), numbers[1])).values()
    assert_same(results_of(events((strategy,), numbers))[1], own)


@pytest.mark.slow
@pytest.mark.parametrize("policy", lab.POLICIES)
def test_lanes_follow_every_policy(policy: str) -> None:
    numbers = [{"rate": 0.01}, {"rate": 0.1}, {"rate": 0.03}]
    (own,) = results_of(solo((), numbers[1], policy=lab.POLICIES[policy])).values()
    assert_same(results_of(events((), numbers, lab.POLICIES[policy]))[1], own)


def test_free_memory_is_told() -> None:
    assert 2**20 < memory.available(jax.devices()[0]) < 2**50


def test_what_only_caches_files_is_free_in_a_container_too(tmp_path: Path) -> None:
    (info := tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    assert memory.of_host(info, tmp_path) == 8_000_000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("990000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\nfile 690000\ninactive_file 600000\nactive_file 50000\n")
    assert memory.of_host(info, tmp_path) == 660_000
    (tmp_path / "memory.current").write_text("1700000\n")  # over its limit
    assert memory.of_host(info, tmp_path) == 1
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.of_host(info, tmp_path) == 8_000_000 * 1024
