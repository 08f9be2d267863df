"""A learner has in memory what it can still read of its log, and learns what a run on all of the log learns."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from incremental.data.cleaning import cleaning
from incremental.data.cutting import given_periods
from incremental.data.growing import behind
from incremental.data.sources.log import log as read_log
from incremental.data.stream import Stream, make_stream
from incremental.errors import UserError
from incremental.log.place import open_log
from incremental.log.records import Cut, Event, Record
from incremental.run import loop
from incremental.run.alone import Alone
from incremental.run.executor import Executor
from incremental.run.feed import Capacities
from incremental.run.policy import Update, update
from incremental.serve.live import configuring, model
from incremental.serve.live.cuts import Cuts
from incremental.serve.live.feed import Cutter, LogFeed
from incremental.serve.live.learner import Learner
from incremental.serve.live.making import Made, Making
from incremental.serve.live.model import Loader
from incremental.serve.live.status import Status
from incremental.serve.live.tail import Tail
from tests import lab
from tests.serve.live.test_cuts import BUYS, DATA, cleaned

RULES: dict[str, Any] = {"history": lab.HISTORY, "ties": "strict", "heldout": 0.1}
EACH = 50
SHOPS: list[dict[str, str]] = [{}, {"shop": "north"}, {"shop": "south"}, {"shop": "north"}]
WITH_SHOPS = {**BUYS, "history": 4, "source": {**BUYS["source"], "kinds": {"shop": "shop"}}}


def crowd(types: Sequence[str] = ("interaction",)) -> list[Event]:
    """600 events of the tiny simulator. Every third is late, so that it counts from when the one before came."""
    frame = lab.simulated().frame
    rows = enumerate(zip(frame["user"], frame["item"], strict=True))
    return [
        Event(f"e{n}", str(user), str(item), types[n % len(types)], 1.7e9 + n - 2 * (n % 3 == 2), SHOPS[n % 4])
        for n, (user, item) in rows
    ]


def written(folder: Path, events: Sequence[Event], each: int = EACH) -> str:
    """A log of these events, cut."""
    place = str(folder / "log.sqlite")
    made = open_log(place, create=True)
    for first in range(0, len(events), each):
        until = made.append(events[first : first + each])[-1].offset
        made.append([Cut(first // each, until, "count", 0.0)])
    made.close()
    return place


class Follower:
    """A cutter on a log that is complete."""

    def __init__(self, place: str, data: Any, needed: Callable[[int], int] = lambda t: t - 1) -> None:
        self.looks = 0
        tail = Tail(open_log(place), place)
        making = Making(data, place)
        self.cutter = Cutter(tail, Cuts(), making, lambda _: True, writes=False, stopped=self.stopped, needed=needed)

    def stopped(self) -> bool:
        self.looks += 1
        return self.looks > 9

    def until(self, t: int) -> Stream:
        self.looks = 0
        assert self.cutter.until(t)
        assert self.cutter.stream is not None
        return self.cutter.stream


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("incremental.serve.live.feed.WAIT", 0.0)
    monkeypatch.setattr("incremental.serve.live.tail.BLOCK", 37)  # no multiple of an increment


@pytest.mark.usefixtures("shared_programs")
def test_a_run_on_all_of_the_log_learns_the_same(tmp_path: Path) -> None:
    place, build, policy = written(tmp_path, crowd()), lab.build(lab.Spec(model="sasrec")), update(window=2, every=3)
    source = read_log(path=place)
    whole = lab.run(build, make_stream(source=source, cut=given_periods(), **RULES), policy)
    updated = [0]
    one = Follower(place, {**DATA, **RULES}, lambda t: min(policy.oldest(t, updated[-1]), t - 1))
    one.until(0)
    feed = LogFeed(one.cutter, lambda _t, _cut: setattr(one, "looks", 0))
    feed.capacities = Capacities(table=128, examples=128)
    found: Any = None
    for event in loop.run_stream(feed, Executor(Alone(build, 0)), policy, metrics=("ndcg@10",)):
        one.looks = 0
        if isinstance(event, loop.Trained) and event.cost.epochs:
            updated.append(event.cost.increment)
        if isinstance(event, loop.Paused):
            found = event
    assert one.cutter.number == 600 // EACH
    assert len(feed.stream.increment) < 500
    snapshot = found.snapshot(0)
    lab.assert_same(snapshot.state, whole.state)
    assert list(map(str, snapshot.progress.records)) == list(map(str, whole.records))


def test_what_is_in_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Ten users of five items: at most their last L events, those of ties, and two increments."""
    events = [Event(f"e{n}", f"u{n * 7 % 10}", f"i{n % 5}", time=1.7e9 + n) for n in range(3000)]
    one = Follower(written(tmp_path, events), {**DATA, **RULES})
    last = 3000 // EACH - 1
    for t in range(last + 1):
        stream = one.until(t)
        assert len(stream.increment) <= 10 * lab.HISTORY * 1.5 + 2 * EACH
        assert len(one.cutter.tail.events) <= 37
    assert one.cutter.tail.number == 3000
    assert one.until(last).trained(last + 1).sum() == (1 - 0.1) * 3000


def test_a_learner_that_starts_again_has_the_same_stream(tmp_path: Path) -> None:
    """And it is a part of the stream of all of the log."""
    place = written(tmp_path, crowd(("buy", "view", "buy")))
    whole = make_stream(
        source=read_log(path=place, kinds={"shop": "shop"}),
        cut=given_periods(),
        cleaning=cleaning(missing="keep", behaviours=["buy"]),
        ties="file",
        history=4,
    )
    last = 600 // EACH - 1
    one, other = Follower(place, WITH_SHOPS), Follower(place, WITH_SHOPS, lambda t: max(t, last) - 1)
    stepwise = [one.until(t) for t in range(last + 1)][-1]
    other.cutter.stopped = lambda: False
    other.cutter.catch_up(last + 1)
    at_once = other.cutter.stream
    assert at_once is not None
    assert other.cutter.made.ends == one.cutter.made.ends
    for made in (stepwise, at_once):
        log, all_of_it = made.interactions, whole.interactions
        assert len(log) < 350
        assert log.line is not None
        assert all_of_it.line is not None
        there = np.searchsorted(all_of_it.line, log.line)
        for name in ("increment", "validation"):
            np.testing.assert_array_equal(getattr(made, name), getattr(whole, name)[there])
        for name in ("time", "fraction", "line"):
            np.testing.assert_array_equal(getattr(log, name), getattr(all_of_it, name)[there])
        for kind in ("user", "item", "shop"):
            np.testing.assert_array_equal(log.ids(kind), all_of_it.ids(kind)[there])
            assert log.vocabulary(kind) == all_of_it.vocabulary(kind)
    np.testing.assert_array_equal(at_once.summary.gone, stepwise.summary.gone)
    other.cutter.catch_up(99)  # a log that has no more ends it


def test_an_increment_needs_neither_two_items_nor_each_type(tmp_path: Path) -> None:
    log = open_log(str(tmp_path / "log.sqlite"), create=True)
    log.append([*with_types("buy", "view"), Event("last", "u", "i0", "buy", 130.0), Cut(2, 11, "count", 0.0)])
    log.close()
    one = Follower(str(tmp_path / "log.sqlite"), cleaned(behaviours=["buy", "view"]))
    assert one.until(2).increment.tolist() == [0] * 4 + [1] * 4 + [2]


def test_what_a_learner_lets_go_of(tmp_path: Path) -> None:
    _, live = configuring.composed_of(["experiment=live", f"live.folder={tmp_path}"])
    directory: Any = SimpleNamespace(path=tmp_path)
    learner: Any = Learner(directory, {"data": DATA}, live, "champion", Tail(None, ""), lambda: True)  # type: ignore[arg-type]

    def needed(t: int, policy: Update, last: int, *, graph: int | None = None, seen: bool = False) -> int:
        learner.parts, learner.updated = SimpleNamespace(update=policy), last
        learner.program = SimpleNamespace(window=graph)
        learner.cutter.made = Made(stream=SimpleNamespace(exclude_seen=seen))  # type: ignore[arg-type]
        found: int = learner.needed(t)
        return found

    assert [needed(t, update(), max(t - 1, 0)) for t in range(4)] == [0, 0, 1, 2]
    assert needed(7, update(window=4), 6) == 4
    assert needed(7, update(every=5), 5) == 6
    assert needed(7, update(every=5), 2) == 3
    assert needed(7, update(window=0), 0) == 1
    for keeps in (update(window="all"), update(start="afresh"), update(full_every=3)):
        assert needed(7, keeps, 6) == 0
    assert needed(7, update(), 6, graph=1) == 0
    assert needed(7, update(), 6, seen=True) == 0
    learner.at = 9  # a learner that starts again at increment 9 reads no earlier ones
    assert needed(2, update(), 8) == 8


def with_types(*types: str) -> list[Record]:
    """Four events of each type, and a cut behind them."""
    records: list[Record] = []
    for number, kind in enumerate(types):
        first = 5 * number
        records += [Event(f"{first + n}", "u", f"i{n}", kind, 100.0 + first + n) for n in range(4)]
        records.append(Cut(number, first + 4, "count", 0.0))
    return records


def test_lag_counts_increments_where_cuts_have_none(tmp_path: Path) -> None:
    """Of the cuts 0 to 3 the second and the third have no wanted event, and end no increment."""
    log = open_log(str(tmp_path / "log.sqlite"), create=True)
    log.append([*with_types("buy", "view", "view", "buy"), Event("last", "u", "i0", "buy", 130.0)])
    one = Follower(str(tmp_path / "log.sqlite"), BUYS)
    status = Status(tmp_path, "champion", one.cutter)
    one.until(1)
    one.cutter.tail.read()
    lags = []
    for learnt in (-1, 0, 1):
        status.known["increment"] = learnt
        lags.append(status.lag())
    assert lags[0] == {"events": 17, "seconds": 30.0}
    assert lags[1] == {"events": 5, "seconds": 17.0}  # those of the cuts in between are nothing to learn
    assert lags[2] == {"events": 1, "seconds": 12.0}
    log.close()


def test_a_server_finds_the_first_increment_that_has_a_wanted_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(str(tmp_path / "log.sqlite"), create=True)
    log.append(with_types("view", "buy"))
    monkeypatch.setattr(model, "config_of", lambda _: {"data": BUYS})
    monkeypatch.setattr(model, "assemble", lambda _config, _stream: SimpleNamespace(build=None))
    recipe = Loader(tmp_path, log, 8, BUYS).recipe(tmp_path)
    assert recipe.stream.interactions.line is not None
    assert recipe.stream.interactions.line.tolist() == [6, 7, 8, 9]
    log.close()


def test_more_types_than_there_can_be(documented: Callable[[str, object], None]) -> None:
    def with_behaviours(first: int) -> Any:
        pairs = [[("ann", "a"), ("ann", "b")]]
        log = lab.written(pairs, heldout=0.0).interactions
        names = tuple(f"type{n}" for n in range(first, first + 100))
        return dataclasses.replace(log, behaviour=np.zeros(2, np.int8), behaviours=names)

    with pytest.raises(UserError) as error:
        behind(with_behaviours(0), with_behaviours(100), {})
    documented("a live log with too many types", error.value)
