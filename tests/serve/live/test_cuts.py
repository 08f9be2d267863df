"""When an increment ends; and that the log, not a process, says so. Nothing is compiled here."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incremental.app.assemble import completed
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.log.place import open_log
from incremental.log.records import Cut, Event
from incremental.serve.live import configuring
from incremental.serve.live.cuts import Cuts, cuts
from incremental.serve.live.drift import page_hinkley
from incremental.serve.live.feed import Cutter, Making, Watch
from incremental.serve.live.settings import live
from incremental.serve.live.tail import Tail

DATA = completed(configuring.composed_of(["experiment=live"])[0])["data"]


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
    ) -> None:
        self.log = open_log(str(folder / "log.sqlite"), create=True)
        self.looks = 0
        tail = Tail(self.log, "log.sqlite")
        self.cutter = Cutter(tail, rule, Making(DATA, "x"), enough, writes=writes, stopped=self.stopped)

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
        tail = Tail(open_log(str(tmp_path / f"{size}.sqlite"), create=True), "")
        watch, at = Watch(rule, Making(DATA, "x"), score), None
        tail.log.append([*events(10), Cut(0, 10, "count", 1.0)])
        for first in range(10, 60, size):
            tail.log.append(events(min(size, 60 - first), first))
            tail.read()
            if at is None and watch.look(tail):
                at = watch.done
        found.append(at)
        tail.log.close()
    assert found == [28, 28, 28]  # chunks of 4 from event 10 on: ends at the 38th event, offset aside
    assert scored == [[*range(10, 38)]] * 3


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
    future = {**DATA, "cleaning": {"_target_": "incremental.data.cleaning.cleaning", "k_core": 2, "missing": "keep"}}
    refused(
        "a live loop with a cleaning that reads later events",
        lambda: Making(future, place).stream([*enumerate(events(30), 1)], [Cut(0, 30, "count", 1.0)]),
    )


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
