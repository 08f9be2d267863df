"""Data that has grown, changed, moved or gone since a run was made of it: the run knows which it was."""

import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy as copied
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from incremental.app import cli, sweep
from incremental.app.continuing import Found, find
from incremental.app.experiment import execute, named
from incremental.app.rundir import RunDirectory
from incremental.data.kept import kept
from incremental.errors import UserError
from incremental.run import checkpoint
from incremental.serve import recommend
from incremental.serve.export import export
from incremental.serve.model import load
from tests.app.small import Stopped, only, stop_after_first_save

Documented = Callable[[str, object], None]
ROWS, FIRST = 240, 160
FIXED = ["data/cut=fixed", "data.cut.base=80", "data.cut.each=40"]
DATED = ["data/cut=daily", "data.cut.base=2024-01-04"]


def events(rows: int = ROWS) -> pl.DataFrame:
    """An event an hour of 20 users and 15 items, from the first of January 2024 on; later ones bring new ids."""
    draws, row = np.random.default_rng(3), np.arange(ROWS)
    frame = pl.DataFrame(
        {
            "user": draws.integers(0, 12 + row // 30),
            "item": draws.integers(0, 8 + row // 30),
            "time": 1_704_067_200 + row * 3600,
        }
    )
    titles = pl.format("thing {}", "item")
    return frame.with_columns(titles.alias("title")).head(rows)


HERE = ("data.source.path=", "runs=", "continue=")


@cache
def chosen(*choices: str) -> Any:
    """The config of these choices, and what was chosen: Hydra composes it once."""
    return cli.composed(choices)


def command(folder: Path, *overrides: str) -> dict[str, Any]:
    """The config of a run without gradients, of folder/events.csv."""
    given = [
        "data=columns",
        f"data.source.path={folder / 'events.csv'}",
        "data.cut.increments=2",
        "data.validation=0.0",
        "model=popularity",
        "evaluation.metrics=[ndcg@5]",
        "tracking=disabled",
        f"runs={folder / 'runs'}",
    ]
    if any(override.startswith("data/cut") for override in overrides):
        given.remove("data.cut.increments=2")
    overridden = [each.split("=")[0] for each in overrides]
    line = [*(each for each in given if each.split("=")[0] not in overridden), *overrides]
    here = [each for each in line if each.startswith(HERE)]
    config, choices = chosen(*(each for each in line if each not in here))
    config = copied(config)
    for key, _, value in (each.partition("=") for each in here):
        OmegaConf.update(config, key, {"true": True, "false": False}.get(value, value))
    return named(cli.resolved(config), choices)


def write(folder: Path, frame: pl.DataFrame) -> None:
    folder.mkdir(exist_ok=True)
    frame.write_csv(folder / "events.csv")


def plain(said: object) -> str:
    """A message without the hash of the run."""
    return re.sub(r"seed0-[0-9a-f]{8}", "seed0-HASH", str(said))


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        execute(config)
    return str(error.value)


def begin(config: dict[str, Any]) -> Found:
    """The run is begun, and killed before it trains."""
    found = find(config)
    found.open(config)
    assert found.directory.lock is not None
    found.directory.lock.close()
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and a finished run of its first part for each of three cuts."""
    folder = tmp_path_factory.mktemp("made")
    write(folder, events(FIRST))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "SHARE", 1e9)  # a save at each increment's end, however short it is
        for cut in ([], FIXED, DATED):
            execute(command(folder, *cut, f"runs={folder / ('runs' if not cut else cut[0][9:])}"))
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change; the runs say that their data lies there."""
    folder = shutil.copytree(made, tmp_path / "copy")
    for about in folder.rglob("data.json"):
        about.write_text(about.read_text().replace(str(made), str(folder)))
    return folder


def table(run: Path) -> pl.DataFrame:
    return pl.read_csv(run / "evaluations.csv")


def test_a_run_goes_on_with_the_new_increments_only(
    copy: Path, tmp_path: Path, documented: Documented, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ends as one that has had all events from its start."""
    runs = copy / "fixed"
    run, before = only(runs), table(only(runs))
    write(copy, events())
    said = refused(command(copy, *FIXED, f"runs={runs}"))
    assert "the run was made of 160 events; the data has 80 more since. continue=true trains on the new" in said
    documented("data that has grown since a run ended", plain(said))
    assert (run / "summary.json").exists()
    execute(command(copy, *FIXED, f"runs={runs}", "continue=true"))
    assert "80 events are new: the run goes on with increment" in capsys.readouterr().out
    assert only(runs) == run
    assert table(run).head(before.height).equals(before)
    write(tmp_path / "anew", events())
    execute(command(tmp_path / "anew", *FIXED))
    anew = only(tmp_path / "anew" / "runs")
    assert table(run).equals(table(anew))
    users = list(load(anew).users)
    np.testing.assert_array_equal(load(run).scores(users), load(anew).scores(users))
    execute(command(copy, *FIXED, f"runs={runs}"))
    assert "this run is finished" in capsys.readouterr().out


def test_the_rest_of_an_increment_that_was_not_over_is_one_of_its_own(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """160 events are six days and 16 events: eight more events of the seventh day come later."""
    write(copy, events())
    data = kept(only(copy / "daily") / "data")
    assert data is not None
    execute(command(copy, *DATED, f"runs={copy / 'daily'}", "continue=true"))
    last = len(data.parts) - 1
    said = (
        f"increment {last} was not over when the run trained on it; the other 8 events of it are increment {last + 1}"
    )
    assert said in capsys.readouterr().out
    grown = kept(only(copy / "daily") / "data")
    assert grown is not None
    assert grown.parts[: last + 1] == data.parts
    assert [part.events for part in grown.parts[last:]] == [16, 8, 24, 24, 24]
    found = find(command(copy, *DATED, f"runs={copy / 'daily'}", "data.source.text=null"))
    assert found.summary is not None
    assert sweep.finished(command(copy, *DATED, f"runs={copy / 'daily'}")) == found.summary


def test_a_cut_that_moves_says_so_and_which_does_not(copy: Path, documented: Documented) -> None:
    write(copy, events())
    said = ""
    for given in ([], ["continue=true"]):
        said = refused(command(copy, *given))
        assert "the data has 80 more since, and the cut moves with the length of the log" in said
        assert "event 81 of 240 was in increment 1 and would be in 0" in said
        assert "data/cut=fixed data.cut.base=80 data.cut.each=40 (and no other key of data.cut); it cuts what" in said
    documented("data that has grown, and a cut that moves with its length", plain(said))
    execute(command(copy, *FIXED, "continue=true"))  # what it says
    assert [part.events for part in kept(only(copy / "runs") / "data").parts] == [80, 40, 40, 40, 40]  # type: ignore[union-attr]


def test_a_calendar_after_a_share_moves_too(tmp_path: Path) -> None:
    write(tmp_path, events(FIRST))
    daily = "data/cut=daily"
    before = begin(command(tmp_path, daily)).stream
    write(tmp_path, events())
    said = refused(command(tmp_path, daily))
    other = next(word for word in said.split() if word.startswith("data.cut.base=")).rstrip(";")
    after = begin(command(tmp_path, daily, other, "continue=true")).stream
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.increment[:FIRST], before.increment)
    assert len(after.increment) == ROWS
    data = kept(only(tmp_path / "runs") / "data")
    assert data is not None
    np.testing.assert_array_equal(data.increment, after.increment)


def test_a_run_that_was_stopped_is_never_made_of_two_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Documented
) -> None:
    write(tmp_path, events(FIRST))
    stop_after_first_save(monkeypatch)
    with pytest.raises(Stopped):
        execute(command(tmp_path))
    monkeypatch.undo()
    write(tmp_path, events())
    said = refused(command(tmp_path))
    assert "made of 160 events, and was stopped before its end; the data has 80 more since, and the cut moves" in said
    documented("data that has grown since a run was stopped", plain(said))
    write(tmp_path, events(FIRST))
    assert execute(command(tmp_path)) is not None
    only(tmp_path / "runs")


def test_data_that_is_another_is_refused_with_the_first_difference(copy: Path, documented: Documented) -> None:
    first = events(FIRST)
    same = {"filtered": first[30:], "edited": first.with_columns(item=pl.when(pl.int_range(FIRST) == 90)
            .then(99).otherwise("item")), "shorter": first.head(150)}  # fmt: skip
    found = {}
    for name, frame in same.items():
        write(copy, frame)
        for more in ([], ["continue=true"]):
            found[name] = refused(command(copy, *more))
        assert "the data is not what the run was made of: event" in found[name]
        assert "make a run of its own with continue=false" in found[name]
    documented("data without its first events since a run was made of it", plain(found["filtered"]))
    documented("data with another item since a run was made of it", plain(found["edited"]))
    documented("data without its last events since a run was made of it", plain(found["shorter"]))
    assert "event 1 in time order, in increment 0, was user" in found["filtered"]
    assert "event 91 in time order, in increment 1" in found["edited"]
    assert "item '99', time 2024-01-04T18:00:00Z (row 92)" in found["edited"]
    assert "event 151 in time order, in increment 2" in found["shorter"]
    assert "now it is not there" in found["shorter"]
    begin(command(copy, "continue=false"))
    assert len([*(copy / "runs").iterdir()]) == 2


def test_a_packed_sweep_refuses_such_a_job(copy: Path) -> None:
    write(copy, events(FIRST)[30:])
    (outcome,) = sweep.run([sweep.Job("one", command(copy))])
    assert isinstance(outcome, UserError)
    assert "the data is not what the run was made of" in str(outcome)


def test_other_titles_or_other_bytes_are_the_same_run(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As long as no model reads the titles."""
    write(copy, events(FIRST).with_columns(title=pl.lit("x")).select("time", "title", "item", "user"))
    execute(command(copy))
    assert "this run is finished" in capsys.readouterr().out
    only(copy / "runs")


def test_what_reads_a_run_needs_no_data(copy: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not where it lies elsewhere, is another, or is gone; nor a folder that may be written to."""
    run = only(copy / "runs")
    before = load(only(made / "runs")).recommend("5", 4)
    assert len(before) == 4
    for change in (lambda: write(copy, events()[50:]), (copy / "events.csv").unlink):
        change()
        assert load(run).recommend("5", 4) == before
    moved = shutil.move(copy / "runs", copy / "elsewhere")
    run = only(Path(moved))
    paths = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert recommend.main([str(run), "--user", "5", "-k", "4", "--json"]) == 0
    assert [each["item"] for each in json.loads(capsys.readouterr().out)] == [each.item for each in before]
    assert paths == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    files = export(run, copy / "export", 3)
    assert set(pl.read_parquet(files[0])["item"]) <= {str(item) for item in events(FIRST)["item"]}


def test_histories_end_with_the_data_that_is_named(
    copy: Path, capsys: pytest.CaptureFixture[str], documented: Documented
) -> None:
    """Items that a user has had since are not recommended; the data must be the run's, and more."""
    run, more = only(copy / "runs"), events()
    (copy / "moved").mkdir()
    more.write_csv(copy / "moved" / "later.csv")
    user = str(more["user"][-1])
    had = {str(item) for item in more.filter(pl.col("user") == int(user))["item"]}
    for path, is_new in ((str(copy / "events.csv"), False), (str(copy / "moved" / "later.csv"), True)):
        found = load(run, data=path).recommend(user, 99)
        assert had.isdisjoint(each.item for each in found) == is_new
    more[20:].write_csv(copy / "moved" / "later.csv")
    assert recommend.main([str(run), "--user", user, "--data", str(copy / "moved" / "later.csv")]) == 2
    said = capsys.readouterr().err
    assert "later.csv: it is not what the run was made of, nor that and more: event 1 in time order" in said
    documented("other data for recommendations", said.removeprefix("error: "))
    with pytest.raises(UserError, match="set --data to the file"):
        load(run, data=str(copy / "nowhere.csv"))


def test_the_data_of_a_run_may_lie_elsewhere(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it has grown there, `continue=true` says that it is the same."""
    (tmp_path / "there").mkdir()
    moved = tmp_path / "there" / "events.csv"
    (copy / "events.csv").rename(moved)
    here = [*FIXED, f"runs={copy / 'fixed'}", f"data.source.path={moved}"]
    execute(command(copy, *here))
    assert "this run is finished" in capsys.readouterr().out
    events().write_csv(moved)
    execute(command(copy, *here, "continue=true"))
    assert "80 events are new" in capsys.readouterr().out
    only(copy / "fixed")


def test_an_edited_config_is_told_what_to_set_back(copy: Path, documented: Documented) -> None:
    run = only(copy / "runs")
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("minimum_history: 0", "minimum_history: 2"))
    with pytest.raises(UserError) as error:
        load(run)
    said = str(error.value)
    assert "made with data.minimum_history=0, the configuration says data.minimum_history=2; set it back" in said
    documented("an edited config.yaml of a run", plain(said))


def test_a_run_without_its_data_is_refused(copy: Path, documented: Documented) -> None:
    run = only(copy / "runs")
    shutil.rmtree(run / "data")
    with pytest.raises(UserError) as error:
        load(run)
    documented("a run that has not kept its data", plain(error.value))


def test_the_matrix_of_a_run_cannot_go_on(tmp_path: Path) -> None:
    write(tmp_path, events(FIRST))
    given = [*FIXED, "evaluation.matrix=true"]
    begin(command(tmp_path, *given))
    write(tmp_path, events())
    said = refused(command(tmp_path, *given, "continue=true"))
    assert "evaluation.matrix=true tests each model on later increments too" in said


@pytest.mark.parametrize(
    "protocol", ["data.unseen_items=known", "data.validate_on=next", "++data.targets=last", "++data.targets=first"]
)
def test_a_run_whose_protocol_reads_the_end_of_its_data_cannot_go_on(
    tmp_path: Path, protocol: str, documented: Documented
) -> None:
    """A user's first event after the base part stays the first."""
    write(tmp_path, events(FIRST))
    given = [*FIXED, protocol]
    begin(command(tmp_path, *given))
    write(tmp_path, events())
    if protocol == "++data.targets=first":
        assert find(command(tmp_path, *given, "continue=true")).grown
        return
    said = refused(command(tmp_path, *given, "continue=true"))
    assert f"the data has 80 more since. {protocol.removeprefix('++')}" in said
    if protocol == "data.unseen_items=known":
        documented("a run with a protocol that knows all items, and data that has grown", plain(said))


def test_runs_of_one_log_share_what_they_keep(copy: Path) -> None:
    begin(command(copy, "evaluation.metrics=[recall@5]"))
    one, other = ({path.name: path.stat() for path in run.glob("data/*.parquet")} for run in (copy / "runs").iterdir())
    assert one.keys() == other.keys()
    assert [each.st_ino for each in one.values()] == [other[name].st_ino for name in one]


@pytest.mark.parametrize("wrong", ["training.batch_size=500", "evaluation.metrics=[ndcg@900]", "base=nowhere"])
def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path, wrong: str) -> None:
    write(tmp_path, events(FIRST))
    given = ["model=matrix_factorization", "model.width=4", wrong]
    with pytest.raises(UserError):
        execute(command(tmp_path, *given))
    assert not [*tmp_path.glob("runs/*")]


def test_a_directory_with_a_save_stays(tmp_path: Path) -> None:
    config = command(tmp_path, "data.cut.increments=3")
    directory = RunDirectory(tmp_path / "runs", "a", config)
    for saved in (False, True):
        directory.open()
        if saved:
            (directory.path / "checkpoint" / "1").mkdir(parents=True)
        directory.close()
        assert directory.path.exists() == saved


def test_no_message_says_to_remove_a_checkpoint() -> None:
    for module in (checkpoint, cli, sweep):
        assert "remove {" not in Path(str(module.__file__)).read_text()


def test_new_events_that_cannot_be_trained_on_leave_the_finished_run_as_it_is(
    tmp_path: Path, documented: Documented
) -> None:
    """It can go on once there are others."""
    own = [*FIXED, "model=cooccurrence", f"runs={tmp_path / 'runs'}"]
    write(tmp_path, events(FIRST))
    execute(command(tmp_path, *own))
    run = only(tmp_path / "runs")
    alone = pl.DataFrame({"user": [99], "item": [1], "time": [1_704_067_200 + FIRST * 3600], "title": ["thing 1"]})
    write(tmp_path, pl.concat([events(FIRST), alone]))
    said = refused(command(tmp_path, *own, "continue=true"))
    assert "stays as it is: increment 3 has no training example with an earlier event of its user" in said
    documented("new events that no update can train on", plain(said))
    assert (run / "summary.json").exists()
    write(tmp_path, events())
    execute(command(tmp_path, *own, "continue=true"))
    assert table(run)["evaluated_on"].max() == 4
