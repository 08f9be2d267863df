"""When an increment ends; and that the log, not a process, says so. Nothing is compiled here."""

import functools
import re
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incremental.app.assemble import completed
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.place import open_log
from incremental.log.records import Cut, Event
from incremental.serve.live import configuring
from incremental.serve.live.cuts import Cuts, cuts
from incremental.serve.live.drift import page_hinkley
from incremental.serve.live.feed import Cutter, LogFeed, Watch
from incremental.serve.live.making import Made, Making
from incremental.serve.live.settings import live
from incremental.serve.live.tail import Tail

DATA = completed(configuring.composed_of(["experiment=live"])[0])["data"]


CLEANING = "incremental.data.cleaning.cleaning"


def cleaned(**changed: Any) -> dict[str, Any]:
    """The node `data` with another cleaning."""
    return {**DATA, "cleaning": {"_target_": CLEANING, "missing": "keep", **changed}}


BUYS = cleaned(behaviours=["buy"])


def events(number: int, first: int = 0) -> list[Event]:
    return [Event(f"e{n}", f"u{n % 7}", f"i{n % 11}", time=1.7e9 + n) for n in range(first, first + number)]


class Loop:
    """A cutter on a log of its own, which stops instead of waiting."""

    def __init__(
        self,
        folder: Path,
        rule: Cuts,
        *,
        writes: bool = True,
        enough: Callable[[Stream], bool] = lambda _stream: True,
        data: Any = DATA,
    ) -> None:
        self.log = open_log(str(folder / "log.sqlite"), create=True)
        self.looks = 0
        tail = Tail(self.log, "log.sqlite")
        self.cutter = Cutter(tail, rule, Making(data, "x"), enough, writes=writes, stopped=self.stopped)

    def stopped(self) -> bool:
        self.looks += 1
        return self.looks > 3

    def until(self, t: int) -> bool:
        self.looks = 0
        return self.cutter.until(t)

    @property
    def cuts(self) -> list[tuple[int, int, str]]:
        return [(one.number, one.until, one.reason) for _, one in self.log.read(0, 9999) if isinstance(one, Cut)]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("incremental.serve.live.feed.WAIT", 0.0)


def test_an_increment_ends_by_its_count_and_is_longer_for_who_is_behind(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Cuts(base=20, count=10, most=15))
    loop.log.append(events(19))
    assert not loop.until(0)
    loop.log.append(events(10, 19))
    assert loop.until(0)
    assert not loop.until(1)
    loop.log.append(events(1, 29))  # offset 31: the first cut is 30
    assert loop.until(1)
    loop.log.append(events(40, 30))
    assert loop.until(2)
    assert loop.until(3)
    assert loop.until(4)
    assert loop.cuts == [(0, 20, "count"), (1, 31, "count"), (2, 47, "count"), (3, 62, "count"), (4, 72, "count")]
    assert loop.cutter.stream is not None
    assert np.bincount(loop.cutter.stream.increment).tolist() == [20, 10, 15, 15, 10]


def test_an_increment_ends_by_the_clock_if_it_has_events(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Cuts(base=20, count=None, seconds=0.05))
    loop.log.append(events(20))
    assert loop.until(0)
    time.sleep(0.06)
    assert not loop.until(1)
    loop.log.append(events(3, 20))
    assert loop.until(1)
    assert loop.cuts[1] == (1, 24, "seconds")


def test_an_increment_ends_though_the_clock_was_set_back(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Cuts(base=20, count=None, seconds=0.05))
    loop.log.append([*events(20), Cut(0, 20, "count", time.time() + 3600)])
    assert loop.until(0)
    loop.log.append(events(3, 20))
    time.sleep(0.06)
    assert loop.until(1)
    assert loop.cuts[1] == (1, 24, "seconds")


def test_the_demo_has_an_increment_after_its_base_part() -> None:
    """Without one its log is no stream, and cannot be run again."""
    demo = runpy.run_path("scripts/live_demo")
    rule = configuring.composed_of(demo["LOOP"])[1].cut
    assert rule.count is not None
    assert demo["LEAST"] >= rule.base + rule.count + 1000


def test_an_increment_that_cannot_be_trained_on_becomes_longer(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Cuts(base=5, count=5), enough=lambda stream: stream.bounds(len(stream) - 1)[1] % 8 == 0)
    loop.log.append(events(5))
    assert not loop.until(0)
    loop.log.append(events(3, 5))
    assert loop.until(0)
    assert loop.cuts == [(0, 8, "count")]


def test_a_base_part_of_one_item_waits_for_another(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Cuts(base=4))
    loop.log.append([Event(f"e{n}", f"u{n}", "same", time=1.7e9) for n in range(6)])
    assert not loop.until(0)
    loop.log.append(events(3, 6))
    assert loop.until(0)


def test_a_base_part_waits_for_each_type_that_is_wanted(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Cuts(base=4), data=BUYS)
    loop.log.append(events(9))
    assert not loop.until(0)
    loop.log.append([Event("b0", "u", "i1", "buy", 1.8e9)])
    assert not loop.until(0)  # nor is there a stream of one item
    loop.log.append([Event("b1", "u", "i2", "buy", 1.8e9)])
    assert loop.until(0)
    assert loop.cuts == [(0, 11, "count")]


@pytest.mark.parametrize("writes", [True, False])
def test_a_base_part_without_a_wanted_type_is_none(tmp_path: Path, writes: bool) -> None:
    """As where the log begins with a run: the stream's base part is the first increment that has one."""
    loop = Loop(tmp_path, Cuts(base=4, count=5), data=BUYS, writes=writes)
    loop.log.append([*events(6), Cut(0, 6, "end", 1.0)])
    assert not loop.until(0)
    loop.log.append([Event(f"b{n}", "u", f"i{n}", "buy", 1.8e9) for n in range(5)])
    if not writes:
        loop.log.append([Cut(1, 12, "count", 1.0)])
    assert loop.until(0)
    assert loop.cuts == [(0, 6, "end"), (1, 12, "count")]
    assert loop.cutter.stream is not None
    assert len(loop.cutter.stream.increment) == 5
    told: list[tuple[int, Cut]] = []
    feed = LogFeed(loop.cutter, lambda t, cut: told.append((t, cut)))
    assert feed.wait(0)
    assert [(t, cut.number) for t, cut in told] == [(0, 1)]


def test_a_follower_waits_for_the_champions_cuts(tmp_path: Path) -> None:
    loop = Loop(tmp_path, Cuts(base=4), writes=False)
    loop.log.append(events(9))
    assert not loop.until(0)
    loop.log.append([Cut(0, 7, "count", 1.0)])
    assert loop.until(0)
    assert loop.cutter.stream is not None
    assert len(loop.cutter.stream.increment) == 7


def test_where_another_process_was_first_its_cut_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(tmp_path, Cuts(base=4))
    loop.log.append(events(9))
    append = loop.log.append
    monkeypatch.setattr(loop.log, "append", lambda own: (append([Cut(0, 8, "seconds", 1.0)]), append(own))[1])
    assert loop.until(0)
    assert loop.cuts == [(0, 8, "seconds")]
    assert loop.cutter.stream is not None
    assert len(loop.cutter.stream.increment) == 8


def test_drift_is_watched_in_chunks_that_follow_from_the_log(tmp_path: Path) -> None:
    """However the events come, the scores and so the alarms are the same; each event is scored once, by its past."""
    rule = Cuts(base=10, count=None, drift=page_hinkley(delta=0.0, threshold=4.0, least=2), chunk=4)
    fell = 30  # the score is 1 up to this event, then 0
    scored: list[list[int]] = []

    def score(stream: Stream, t: int, trained_until: int) -> Any:
        assert trained_until == len(tail.cuts) - 1
        first, last = stream.bounds(t)
        scored[-1] += range(first, last)
        return (np.arange(first, last) < fell).astype(float)

    found = []
    for size in (1, 7, 50):
        scored.append([])
        (tmp_path / str(size)).mkdir()
        loop = Loop(tmp_path / str(size), rule, writes=False)
        tail, watch, at = loop.cutter.tail, Watch(rule, loop.cutter.making, score), None
        tail.log.append([*events(10), Cut(0, 10, "count", 1.0)])
        assert loop.until(0)
        for first in range(10, 60, size):
            tail.log.append(events(min(size, 60 - first), first))
            tail.read()
            if at is None and watch.look(tail, loop.cutter.made):
                at = watch.done
        found.append(at)
        tail.log.close()
    assert found == [28, 28, 28]  # chunks of 4 from event 10 on: ends at the 38th event, offset aside
    assert scored == [[*range(10, 38)]] * 3


def test_a_chunk_without_a_wanted_type_is_not_scored(tmp_path: Path) -> None:
    """Chunks of 4 after the base part: only the second and the fourth have a buy; each buy is scored once."""
    rule = Cuts(base=4, count=None, drift=page_hinkley(), chunk=4)
    loop = Loop(tmp_path, rule, writes=False, data=BUYS)
    tail = loop.cutter.tail
    scored: list[tuple[int, str, int]] = []

    def score(stream: Stream, t: int, trained_until: int) -> Any:
        first, last = stream.bounds(t)
        scored.append((trained_until, stream.interactions.items[stream.interactions.item[first]], last - first))
        return np.ones(last - first)

    base = [Event(f"b{n}", "u", f"i{n}", "buy", 1.7e9) for n in range(4)]
    tail.log.append([*base, Cut(0, 4, "count", 1.0), *events(3), Cut(1, 8, "count", 1.0)])
    assert not loop.until(1)
    watch = Watch(rule, loop.cutter.making, score)
    later = events(16, 3)
    for place in (5, 14):
        later[place] = Event(f"later{place}", "u", f"buy{place}", "buy", 1.8e9)
    for first in range(0, 16, 8):
        tail.log.append(later[first : first + 8])
        tail.read()
        assert not watch.look(tail, loop.cutter.made)
    tail.log.close()
    assert scored == [(0, "buy5", 1), (0, "buy14", 1)]  # cut 1 has no buy, and is no increment


def test_what_cannot_be_a_live_loop_is_refused(tmp_path: Path, documented: Callable[[str, object], None]) -> None:
    def refused(situation: str, call: Callable[[], object]) -> None:
        with pytest.raises(UserError) as error:
            call()
        documented(situation, error.value)

    rule, place = cuts(), f"{tmp_path}/log"
    refused("increments of a live loop longer than the longest", lambda: cuts(count=100, most=50))
    refused(
        "a live loop on data that is no log",
        lambda: Making({**DATA, "source": {"_target_": "incremental.data.simulator.simulate"}}, place),
    )
    refused("a live loop with a cut of its own", lambda: Making({**DATA, "cut": {"_target_": "x"}}, place))
    refused("a live loop with a last increment", lambda: Making({**DATA, "until": 3}, place))
    refused("a learner's name that is no folder's", lambda: live(folder=tmp_path, log=place, cut=rule, champion="../x"))
    with pytest.raises(UserError, match=r"burst=0\.5: expected"):  # no request would ever be answered
        live(folder=tmp_path, log=place, cut=rule, burst=0.5)
    refused("a live port that there is not", lambda: live(folder=tmp_path, log=place, cut=rule, port=99_999))
    refused(
        "a challenger with the champion's name",
        lambda: live(folder=tmp_path, log=place, cut=rule, challengers={"champion": []}),
    )
    refused("incremental-serve without a node `live`", lambda: configuring.composed_of(["data=builtin"]))
    refused(
        "a learner that the configuration has not got",
        lambda: configuring.learner([], live(folder=tmp_path, log=place, cut=rule), "other"),
    )
    refused("a live log with a cut that is not the next", lambda: Tail(None, place).take(7, Cut(3, 6, "count", 0.0)))  # type: ignore[arg-type]
    for situation, changed in (
        ("a live loop that leaves early events out", {"after": "2024-01-31"}),
        ("a live loop that leaves late events out", {"before": "2024-01-31"}),
        ("a live loop that leaves ids out", {"missing": "drop"}),
        ("a live loop that leaves repeated events out", {"duplicates": "first"}),
    ):
        refused(situation, functools.partial(Making, cleaned(**changed), place))
    refused("a live loop that tests one event of each user", lambda: Making({**DATA, "targets": "last"}, place))
    with pytest.raises(UserError, match=r"data\.roles"):
        Making({**DATA, "roles": {"_target_": "incremental.data.roles.last_item"}}, place)
    task = {"_target_": "incremental.data.task.behaviour"}
    refused("a live loop that asks which behaviour follows", lambda: Making({**DATA, "task": task}, place))
    refused("a live loop with a cleaning of another package", lambda: Making(cleaned(_target_="mine.clean"), place))
    with pytest.raises(UserError, match="missing=refuse"):
        Making({**DATA, "cleaning": {"_target_": CLEANING}}, place)
    future = cleaned(k_core=2)
    refused(
        "a live loop with a cleaning that reads later events",
        lambda: Making(future, place).after(Made(), Events(enumerate(events(30), 1)), [Cut(0, 30, "count", 1.0)]),
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "live.cut.cont=3",
            "live.cut.cont=3: there is no such key; live.cut has .*; did you mean live.cut.count?",
        ),
        ("live.prt=3", "live.prt=3: there is no such key; live has folder, .*; did you mean live.port?"),
        ("data.histry=3", "data.histry=3: there is no such key; data has .*; did you mean data.history?"),
        ("method=replya", "method=replya: there is .*; did you mean replay?"),
        ("model=sasrek", "model=sasrek: there is .*; did you mean sasrec?"),
    ],
)
def test_what_there_is_not_is_answered_with_what_there_is(given: str, said: str) -> None:
    """A method that there is not was passed over without a word."""
    with pytest.raises(UserError) as error:
        configuring.composed_of(["experiment=live", given])
    assert re.fullmatch(said.replace("?", r"\?"), str(error.value)), error.value


def test_a_challenger_has_its_own_overrides_in_place_of_the_champions() -> None:
    own = "model=sasrec seed=7 +strategy@strategies.it=ewc"
    given = ["experiment=live", "model=gru4rec", "training.epochs=3", "+strategy@strategies.it=replay"]
    given.append(f"+live.challengers.other='{own}'")
    _, settings = configuring.composed_of(given)
    champion, other = (configuring.learner(given, settings, name) for name in ("champion", "other"))
    assert settings.challengers == {"other": own.split()}
    assert champion["model"]["_target_"].endswith("gru4rec")
    assert other["model"]["_target_"].endswith("sasrec")
    assert (champion["seed"], other["seed"], other["training"]["epochs"]) == (0, 7, 3)
    assert [*other["strategies"]["it"]] != [*champion["strategies"]["it"]]
    assert "live" not in other


def test_the_experiment_names_every_setting_with_its_default() -> None:
    """So that each can be given without a +."""
    config, settings = configuring.composed_of(["experiment=live"])
    assert {*config["live"]} == {"_target_", *settings._fields}
    assert settings == live(folder=settings.folder, log=settings.log, cut=cuts())
