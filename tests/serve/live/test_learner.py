"""The law: what a learner has learnt live, a run on its log learns again, bit for bit."""

import json
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from incremental.app.bases import config_of
from incremental.app.experiment import execute
from incremental.log.place import open_log
from incremental.log.records import Cut, Event
from incremental.run.alone import Alone
from incremental.run.checkpoint import Checkpoints
from incremental.serve import model as serve
from incremental.serve.live import configuring, versions
from incremental.serve.live.learner import learn
from incremental.serve.live.making import Made
from incremental.serve.live.model import Loader
from incremental.serve.live.people import People
from incremental.serve.live.status import Status
from incremental.serve.live.tail import Tail
from tests import lab, programs

TINY = [
    "experiment=live",
    "+strategy@strategies.memory=replay",
    "+strategy@strategies.anchor=ewc",
    "strategies.memory.capacity=40",
    "strategies.anchor.samples=16",
    "model=matrix_factorization",
    "model.width=8",
    "training.batch_size=32",
    "training.epochs=2",
    "training.least_epochs=0",
    "data.history=8",
    "evaluation.metrics=[ndcg@10]",
]


def overrides(folder: Path, *more: str) -> list[str]:
    own = [
        f"live.folder={folder}",
        f"runs={folder}/runs",
        "live.cut.base=150",
        "live.cut.count=100",
        "live.cut.most=100",
    ]
    return [*TINY, *own, *more]


def crowd() -> list[Event]:
    """600 events of the tiny simulator."""
    frame = lab.simulated().frame
    rows = zip(frame["user"], frame["item"], frame["time"], strict=True)
    return [Event(f"e{n}", str(user), str(item), time=1.7e9 + time) for n, (user, item, time) in enumerate(rows)]


def live_run(
    given: list[str], events: list[Event], parts: int = 6, name: str = "champion", *, slowly: int = 150
) -> None:
    """A learner in a thread, while the events arrive in so many parts; it ends once all of them are learnt.

    After those up to `slowly` the others wait until increment 1 has ended.
    """
    _, live = configuring.composed_of(given)
    live.folder.mkdir(exist_ok=True)
    log, over = open_log(live.log, create=True), threading.Event()
    failed: list[BaseException] = []

    def learning() -> None:
        try:
            learn(configuring.learner(given, live, name), live, name, over.is_set)
        except BaseException as error:  # the test's to raise
            failed.append(error)

    def begun() -> threading.Thread:
        over.clear()
        thread = threading.Thread(target=learning)
        thread.start()
        return thread

    def ended(thread: threading.Thread) -> None:
        until = time.monotonic() + 120
        while thread.is_alive() and time.monotonic() < until and not settled(live.at(name), log):
            time.sleep(0.05)
        over.set()
        thread.join()

    thread = begun()
    log.append(events[:150])
    until = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < until and versions.newest(live.at(name)) is None:
        time.sleep(0.05)  # until the base part is learnt
    if slowly > 150:
        log.append(events[150:slowly])
        while thread.is_alive() and time.monotonic() < until and len(cuts(log)) < 2:
            time.sleep(0.05)
    size = -(-len(events[slowly:]) // parts)
    for first in range(slowly, len(events), size):
        log.append(events[first : first + size])
        time.sleep(0.2)
    ended(thread)
    while not failed and versions.newest(live.at(name)) != len(cuts(log)) - 1:
        ended(begun())  # drift ended one more just as it was told to end: it goes on where it was
    log.close()
    if failed:
        raise failed[0]


def cuts(log: Any) -> list[Cut]:
    return [record for _, record in log.read(0, 10**6) if isinstance(record, Cut)]


def settled(folder: Path, log: Any, count: int = 100) -> bool:
    """Whether every cut is learnt, and no more will come: fewer events wait than end an increment."""
    ended = cuts(log)
    waiting = log.last() - len(ended) - (ended[-1].until - len(ended) + 1 if ended else 0)
    return bool(ended) and waiting < count and versions.newest(folder) == len(ended) - 1


def saved(folder: Path, config: dict[str, Any]) -> Any:
    """The last save in a run's folder: the state on the host, and the evaluations."""
    from incremental.app.assemble import assemble
    from incremental.app.rundir import settings

    way = Alone(assemble(config).build)
    found = Checkpoints(folder / "checkpoint", settings(config), writes=False).restore(lambda s: way.at(s).like())
    assert found is not None
    return found


def assert_law(given: list[str], name: str = "champion") -> int:
    """The ordinary run on the log against what the learner has; returns the number of increments."""
    _, live = configuring.composed_of(given)
    config = {**configuring.learner(given, live, name), "runs": f"{live.folder}/runs/{name}"}
    summary = execute(config)
    assert summary is not None
    (run,) = Path(config["runs"]).iterdir()
    one, other = saved(live.at(name), config), saved(run, config)
    assert not one.progress.begun
    assert one.progress.increment == other.progress.increment == summary["increments"] + 1
    lab.assert_same(one.state, other.state)
    for file in ("evaluations.csv", "epochs.csv"):
        assert (live.at(name) / file).read_text() == (run / file).read_text()
    return int(summary["increments"])


def assert_served(folder: Path, log: Any, number: int) -> None:
    """The server recommends by version `number` what the run on the log recommends, to users who did nothing since."""
    (run,) = (folder / "runs/champion").iterdir()
    offline, people = serve.load(run), People(log, 8)
    people.follow()
    data = config_of(folder / "learners/champion")["data"]
    served = Loader(folder / "learners", log, 10, data).load("champion", number, people)
    since = {record.user for _, record in log.read(cuts(log)[-1].until, 10**6) if isinstance(record, Event)}
    users = sorted({*offline.users} - since)[:5]
    assert users
    for user, best in zip(users, served.best(people, [people.ask(each) for each in users], [True] * 5), strict=True):
        wanted = offline.recommend(user, 10)
        assert [people.names[item] for item in best.items] == [each.item for each in wanted]
        np.testing.assert_allclose(best.scores, [each.score for each in wanted], rtol=1e-5)


def test_a_run_on_the_log_is_the_live_run_again(tmp_path: Path) -> None:
    """Increment 1 is ended by drift (the detector is a nervous one), others by their count."""
    detector = "{_target_: incremental.serve.live.drift.page_hinkley, threshold: 1.0, least: 10}"
    given = overrides(tmp_path / "live", "live.cut.chunk=16", f"live.cut.drift={detector}", "live.keep_versions=2")
    live_run(given, crowd(), slowly=230)
    number = assert_law(given)
    log = open_log(str(tmp_path / "live/log.sqlite"))
    assert [cut.reason for cut in cuts(log)[:2]] == ["count", "drift"]
    assert_served(tmp_path / "live", log, number)
    log.close()
    folder = tmp_path / "live/learners/champion"
    assert versions.numbers(folder) == [number - 1, number]
    noted = json.loads((folder / "log.json").read_text())["cuts"]
    assert [*noted] == [str(number - 1), str(number)]
    status = json.loads((folder / "status.json").read_text())
    assert status["doing"] == "ended"
    assert status["increment"] == number
    assert status["lag"]["events"] < 100
    assert 0 <= status["tested"]["ndcg@10"] < 1


def killed(given: list[str], after: int) -> None:
    """A learner in a process of its own, which is killed while it learns what comes after this version."""
    _, live = configuring.composed_of(given)
    command = [*programs.command("incremental.serve.live"), "--part", "learner:champion", *given]
    with subprocess.Popen(command) as process:
        until = time.monotonic() + 120
        while (versions.newest(live.at("champion")) or 0) < after and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("kills", [pytest.param(1), pytest.param(3, marks=pytest.mark.slow)])
def test_a_learner_that_was_killed_goes_on_as_if_nothing_had_been(
    tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """`test_brokers.py` has the same with the log on a broker."""
    given = overrides(tmp_path / "live")
    (tmp_path / "live").mkdir()
    log = open_log(str(tmp_path / "live/log.sqlite"), create=True)
    log.append(crowd()[:450])
    log.close()
    for after in range(1, kills + 1):
        killed(given, after)
    live_run(given, crowd())
    assert "continuing from the checkpoint" in capsys.readouterr().out
    assert assert_law(given) == 4


def test_its_status_is_written_though_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("incremental.serve.live.status.BETWEEN", 0.01)
    log = open_log(str(tmp_path / "log.sqlite"), create=True)
    cutter: Any = SimpleNamespace(tail=Tail(log, "x"), watch=None, made=Made())
    status = Status(tmp_path, "champion", cutter)
    status.waits()
    now = time.time() - 3600
    monkeypatch.setattr("time.time", lambda: now)
    time.sleep(0.02)
    status.waits()
    assert json.loads((tmp_path / "status.json").read_text())["time"] == now
    log.close()
