"""A lane is the run alone: its evaluations, costs, early stopping and state, on eight devices and under jax.vmap."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from incremental.app import cli
from incremental.core.gradient import make, training
from incremental.core.optimizers import adam
from incremental.core.problem import problem
from incremental.core.types import Program, Sizes
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.run import loop, packed
from incremental.run.loop import Driver
from incremental.run.packed import Lane, Packed, Programs
from incremental.run.policy import Update
from incremental.run.progress import Cost, Epoch, Progress, Result
from tests import lab

STRATEGIES = sorted(path.stem for path in (cli.config_folder() / "strategy").glob("*.yaml"))


def build(names: tuple[str, ...], sizes: Sizes, own: Mapping[str, Any]) -> Program:
    """Strategies on the least model with a dense kernel; `own` may hold `rate`, and `NAME.key`."""
    tiny = problem(lab.dense(), full_softmax(), sizes, lab.HISTORY)
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


class Place:
    """A lane that keeps what it is told."""

    def __init__(self, start: Any = None) -> None:
        self.start = start
        self.listener = self.saver = self
        self.epochs: list[Epoch] = []
        self.errors: list[str] = []
        self.saved: Any = None

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)

    def increment(self, cost: Cost, tested: Any) -> None: ...

    bases = None

    def due(self) -> bool:
        return False

    def save(self, *run: Any) -> None:
        self.saved = run

    def resume(self, functions: Any) -> Any:
        del functions
        return self.start

    def failed(self, error: UserError) -> None:
        self.errors.append(str(error))


@functools.cache
def fixed(names: tuple[str, ...], own: tuple[tuple[str, float], ...]) -> loop.Build:
    """Programs of one of the runs, alone."""
    return functools.cache(lambda sizes: build(names, sizes, dict(own)))


def driver(names: tuple[str, ...], own: Mapping[str, float], policy: Update = lab.FINETUNE) -> Driver:
    """One of the runs, alone."""
    return lab.driver(fixed(names, tuple(own.items())), lab.stream(), policy)


@functools.cache
def programs_of(names: tuple[str, ...], lanes: int, mapped: Any) -> Programs:
    """What lanes share, compiled once for all tests; `mapped` only tells one way to map lanes from the other."""
    del mapped
    return Programs(functools.partial(build, names), {}, lanes)


def run(
    names: tuple[str, ...],
    numbers: list[dict[str, float]],
    places: list[Any],
    policy: Update = lab.FINETUNE,
) -> list[Any]:
    """The runs as lanes, each with its place in the list as seed."""
    lanes: list[Lane] = places
    programs, solo = programs_of(names, len(lanes), packed.mapped_on), driver(names, numbers[0], policy)
    return Packed(programs, solo, numbers, range(len(numbers)), lanes, matrix=True).run()


def assert_same(lane: Any, alone: Result) -> None:
    """The same evaluations, epochs and weights; costs that can be equal are."""
    assert [record[:3] for record in lane.records] == [record[:3] for record in alone.records]
    values = [[record.value for record in result.records] for result in (lane, alone)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=1e-6)
    exact = [[cost._replace(seconds=0, compile_seconds=0) for cost in result.costs] for result in (lane, alone)]
    assert exact[0] == exact[1]
    lab.assert_close(lane.state, alone.state, rtol=1e-4, atol=1e-4)


NAMES = ("ewc",)
NUMBERS = [
    {"rate": 0.01, "ewc.weight": 1.0},
    {"rate": 0.1, "ewc.weight": 30.0},
    {"rate": float("inf"), "ewc.weight": 30.0},
    *[{"rate": 0.03, "ewc.weight": 30.0}] * 6,  # on eight devices: two lanes each, seven of them fillers
]
ALONE, HEARD = driver(NAMES, NUMBERS[1]), Place()


@functools.cache
def ran() -> tuple[list[Any], list[Place]]:
    """Lanes, the third of which diverges, and what they were told."""
    places = [Place() for _ in NUMBERS]
    return run(NAMES, NUMBERS, places), places


@functools.cache
def alone() -> Result:
    """The second one, alone; it is told to `HEARD`."""
    ALONE.listener = HEARD
    result = ALONE.run(jax.random.key(1), True, None)
    ALONE.listener = loop.SILENT
    return result


def test_a_lane_is_the_run_alone_and_stops_by_itself() -> None:
    results, places = ran()
    assert_same(results[1], alone())
    assert [cost.epochs for cost in alone().costs] != [cost.epochs for cost in results[0].costs]
    number = [(epoch.increment, epoch.epoch) for epoch in places[1].epochs]
    assert number == [(cost.increment, 1 + i) for cost in alone().costs for i in range(cost.epochs)]
    for epoch, own in zip(places[1].epochs, HEARD.epochs, strict=True):
        assert epoch.terms.keys() == own.terms.keys() == ({"data", "ewc"} if epoch.increment else {"data"})
        told, expected = ([each.loss, each.validation, *each.terms.values()] for each in (epoch, own))
        np.testing.assert_allclose(np.array(told, float), np.array(expected, float), rtol=1e-4, atol=1e-6)
    assert any(epoch.terms.get("ewc", 0.0) > 0 for epoch in places[1].epochs)
    assert places[1].saved[3].epochs == tuple(places[1].epochs)
    lab.assert_same(places[1].saved[0], results[1].state)


def test_a_lane_that_diverges_is_reported_and_stops_no_other() -> None:
    results, places = ran()
    assert isinstance(results[2], UserError)
    assert "increment 0, epoch 1, step 1" in str(results[2])
    assert [place.errors for place in places] == [[], [], [str(results[2])], *[[]] * 6]
    assert places[2].saved is None


def test_a_killed_lane_continues_packed_beside_others_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = [Place() for _ in NUMBERS]

    class Killed(Exception):
        """Stands for a kill."""

    def save(*run: Any) -> None:
        stopped[1].saved = run
        raise Killed

    stopped[1].save = save  # type: ignore[method-assign]
    amid = lambda self: self.progress[1].increment == 1 and self.progress[1].begun  # noqa: E731
    monkeypatch.setattr(Packed, "due", amid)
    with pytest.raises(Killed):
        run(NAMES, NUMBERS, stopped)
    monkeypatch.undo()
    progress: Progress = stopped[1].saved[3]
    assert progress.begun
    # It is ahead of the others, which start anew, and waits for them.
    places = [Place(), Place(stopped[1].saved), *[Place() for _ in NUMBERS[2:]]]
    results = run(NAMES, NUMBERS, places)
    for resumed, uninterrupted in zip(results[:2], ran()[0][:2], strict=True):
        assert_same(resumed, uninterrupted)
    assert places[1].epochs[0][:2] == (1, 2)
    assert places[1].saved[3].epochs == tuple(ran()[1][1].epochs)  # those before the kill once
    assert_same(ALONE.run(jax.random.key(1), True, lambda _: stopped[1].saved), alone())


def test_lanes_are_split_where_the_compiled_programs_need_more_than_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = programs_of(NAMES, len(NUMBERS), packed.mapped_on)
    for free, parts in ((2**40, 1), (2**10, len(NUMBERS))):
        monkeypatch.setattr(packed, "available", lambda _, free=free: free)
        assert packed.splits(programs, ALONE, NUMBERS) == parts


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_every_strategys_lane_is_its_run_alone(strategy: str, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = packed.mapped_on(platform)  # one after the other, or under jax.vmap
    monkeypatch.setattr(packed, "mapped_on", lambda _: mapped)
    numbers = [{"rate": 0.01}, {"rate": 0.1}, {"rate": 0.03}]
    results = run((strategy,), numbers, [Place() for _ in numbers])
    assert_same(results[1], driver((strategy,), numbers[1]).run(jax.random.key(1), True, None))


@pytest.mark.slow
@pytest.mark.parametrize("policy", lab.POLICIES)
def test_lanes_follow_every_policy(policy: str) -> None:
    numbers = [{"rate": 0.01}, {"rate": 0.1}, {"rate": 0.03}]
    results = run((), numbers, [Place() for _ in numbers], lab.POLICIES[policy])
    assert_same(results[1], driver((), numbers[1], lab.POLICIES[policy]).run(jax.random.key(1), True, None))


def test_free_memory_is_told() -> None:
    assert 2**20 < packed.available(jax.devices()[0]) < 2**50
