"""The programs of the next increment are compiled beside the training of this one: only those, once, and nothing else
changes."""

import functools
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.data.stream import Stream
from incremental.models.popularity import popularity
from incremental.run import expected, loop
from incremental.run.ahead import Ahead
from incremental.run.alone import Alone
from incremental.run.compiled import Compiled, signature_of
from incremental.run.executor import Executor, Snapshot
from incremental.run.feed import Capacities, Feed
from incremental.run.lanes import Lanes, Programs
from incremental.run.policy import Update, update
from incremental.run.progress import Event, Finished, Paused, Result, Trained
from tests import lab

SMALL = Capacities(table=16, examples=16)
RETRAIN = update(window="all", start="afresh")


def program(sizes: Sizes, _numbers: Any = None) -> Program:
    """The cheapest one to compile."""
    return popularity().program(next_item(lab.HISTORY), sizes, (10,))


@functools.cache
def growing(**protocol: Any) -> Stream:
    """Each part brings ids for which the tables have no room, and more events than the part before."""
    parts = [[(f"u{i % (3 + 9 * t)}", f"i{i * 7 % (12 + 12 * t)}") for i in range(24 << t)] for t in range(3)]
    return lab.written(parts, **protocol)


class Watched:
    """Which programs the loop called by t, which it had to wait for, and which there are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: set[Any] = set()
        self.made: list[Any] = []
        self.waited: list[Any] = []
        program, made = Compiled.program, Compiled._made

        def noted_program(own: Compiled, *args: Any) -> Any:
            self.called.add((own, signature_of(args)))
            return program(own, *args)

        def noted_made(own: Compiled, signature: Any, args: Any) -> Any:
            self.made.append((own, signature))
            if threading.current_thread() is threading.main_thread():
                self.waited.append((own, signature))
            return made(own, signature, args)

        monkeypatch.setattr(Compiled, "program", noted_program)
        monkeypatch.setattr(Compiled, "_made", noted_made)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled ahead is there before the training goes on."""
    start = Ahead.start

    def started(self: Ahead, *args: Any, **named: Any) -> None:
        start(self, *args, **named)
        if self.thread is not None:
            self.thread.join()

    monkeypatch.setattr(Ahead, "start", started)


def events(
    stream: Stream, policy: Update = lab.FINETUNE, *, lanes: int = 0, listed: bool = False, **arguments: Any
) -> Iterator[Event]:
    """A run of popularity, alone or in lanes."""
    way = Lanes(Programs(program, {}, lanes), [{"number": 1.0}] * lanes, range(lanes)) if lanes else Alone(program)
    feed = Feed(stream, listed=listed, capacities=SMALL)
    return loop.run_stream(feed, Executor(way), policy, metrics=("ndcg@10",), **arguments)


def waited_for(told: Iterator[Event], watched: Watched) -> dict[int, int]:
    """How many programs the loop waited for, by increment."""
    found: dict[int, int] = {}
    for event in told:
        if isinstance(event, Trained) and event.lane == 0:
            found[event.cost.increment] = len(watched.waited)
            watched.waited.clear()
    return found


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("stream", "policy", "arguments"),
    [
        ({"exclude_seen": True}, RETRAIN, {"matrix": True}),
        ({"heldout": 0.2}, update(every=2), {"matrix": True}),
        ({"unseen_items": "listed"}, lab.FINETUNE, {"listed": True}),
        ({"unseen_items": "known"}, lab.FINETUNE, {}),
        ({"minimum_history": 1, "unseen_items": "drop"}, update(every=2), {}),
        ({}, lab.FINETUNE, {"lanes": 2}),
    ],
)
def test_the_loop_finds_what_it_needs_and_nothing_else_was_compiled(
    stream: dict[str, Any], policy: Update, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    told = waited_for(events(growing(**stream), policy, **arguments), watched)
    assert told.pop(0) > 0  # nothing was there before
    assert told == {1: 0, 2: 0}
    assert len(watched.made) == len({*watched.made})
    assert {*watched.made} == watched.called


@pytest.mark.usefixtures("at_once")
def test_where_results_decide_about_an_update_its_test_alone_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    told = waited_for(events(growing(), update(drop=0.05)), watched)
    assert {*watched.made} == watched.called
    assert told[0] > 0


@pytest.mark.usefixtures("at_once")
def test_a_model_with_gradients_finds_its_best_epochs_programs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    told = lab.events(lab.build(lab.Spec()), growing().prefix(1), feed={"capacities": SMALL})
    assert waited_for(told, watched)[1] == 0
    assert {*watched.made} == watched.called


@functools.cache
def as_it_goes() -> tuple[Snapshot, Result]:
    """What a run keeps after increment 0, and its result, with nothing compiled ahead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ahead, "start", lambda *_, **__: None)
        told = events(growing())
        kept = next(event for event in told if isinstance(event, Paused) and event.over).snapshot(0)
        return kept, loop.finished(told)


def assert_same(one: Result, other: Result) -> None:
    assert one.records == other.records
    lab.assert_same(one.state, other.state)


def test_results_are_those_of_a_run_that_compiles_as_it_goes() -> None:
    assert_same(loop.finished(events(growing())), as_it_goes()[1])


@pytest.mark.usefixtures("at_once")
def test_after_a_resume_the_next_one_is_compiled_ahead_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, whole = as_it_goes()
    watched, waited = Watched(monkeypatch), []
    for event in events(growing(), start={0: kept}):
        if isinstance(event, Trained):
            waited.append(len(watched.waited))
            watched.waited.clear()
        if isinstance(event, Finished):
            assert_same(event.result, whole)
    assert waited[0] > 0 == waited[1]


def test_what_fails_beside_the_run_is_done_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("beside the run")

    kept, whole = as_it_goes()
    monkeypatch.setattr(expected, "update", broken)
    watched = Watched(monkeypatch)
    assert_same(loop.finished(events(growing(), start={0: kept})), whole)
    sums = [made for made in watched.made if made[0].jitted.__name__ == "checksums"]
    assert len(sums) == 2
    assert {*sums} <= {*watched.waited}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("compiling ahead")]


def test_a_run_that_is_left_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, left, compiled = threading.Event(), threading.Event(), []

    def slow(self: Compiled, *args: Any) -> Any:
        compiled.append(self)
        reached.set()
        left.wait(60)
        return jax.eval_shape(self.jitted, *args)

    monkeypatch.setattr(Compiled, "ahead", slow)
    told = events(growing())
    next(event for event in told if isinstance(event, Paused))
    assert reached.wait(60)
    assert len(threads()) == 1
    threading.Timer(0.1, left.set).start()
    told.close()  # type: ignore[attr-defined]
    assert threads() == []
    assert len(compiled) == 1  # the one that it was at


# -- shapes by counting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "protocol"),
    [
        ("mf", {}),
        ("sasrec", {"minimum_history": 2}),
        ("gru4rec", {"exclude_seen": True, "unseen_items": "drop"}),
        ("sasrec", {"ties": "file", "validation": 0.0}),
    ],
)
def test_counted_shapes_are_those_of_the_data(model: str, protocol: dict[str, Any]) -> None:
    stream = growing(**protocol)
    feed = Feed(stream, listed=protocol.get("unseen_items") != "drop", capacities=SMALL)
    made = lab.build(lab.Spec(model=model))(feed.sizes(2))
    for policy in (lab.FINETUNE, RETRAIN, update(window=2)):
        plan = policy.ahead(2, [0, 1])
        given = feed.update(made, 2, plan, jax.device_put)
        assert lab.types(expected.shapes(expected.update(feed, made, plan))) == lab.types(given)
    known = {kind: np.ones(size, bool) for kind, size in made.sizes.items()}
    for heldout in (True, False):
        _, *there = feed.tests(made, known, 2, 1, jax.device_put, heldout=heldout)
        counted = expected.tests(feed, made, 2, 1, heldout=heldout)
        assert lab.types(expected.shapes(counted)) == lab.types(tuple(there))


def test_an_increment_that_is_to_come_has_the_ids_of_the_last_growth() -> None:
    feed = Feed(growing(), capacities=SMALL)
    one, two = (feed.number("user", t) for t in (1, 2))
    assert feed.number("user", 4) == two + 2 * (two - one) > two
    assert (feed.ahead(2), feed.ahead(3)) == (2, None)
