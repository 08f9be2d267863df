"""Base parts that another run has trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.app import experiment
from incremental.app.assemble import assemble, stream_of
from incremental.app.bases import base_of
from incremental.app.continuing import find
from incremental.app.experiment import execute
from incremental.errors import UserError
from incremental.run.feed import Capacities, Feed
from tests.app.small import ANCHOR, composed, only

pytestmark = pytest.mark.usefixtures("one_program")


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base part alone: its stream ends with the first increment, which is not trained on."""
    runs = tmp_path_factory.mktemp("base")
    execute(composed(runs, "update.window=0"))
    return only(runs)


def test_a_base_part_trained_by_another_run_gives_the_same_results(lent: Path, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    execute(composed(alone, *ANCHOR))
    execute(composed(shared, *ANCHOR, f"base={lent}"))
    one, other = ((only(runs) / "evaluations.csv").read_text() for runs in (alone, shared))
    assert one == other
    costs = [json.loads((run / "summary.json").read_text())["cost"] for run in (lent, only(alone), only(shared))]
    assert len({cost["base_examples"] for cost in costs}) == 1
    assert costs[0]["base_seconds"] <= costs[2]["base_seconds"]
    assert costs[1]["examples"] == costs[2]["examples"]


def test_updates_may_have_another_number_of_epochs_than_the_base_part_had(lent: Path, tmp_path: Path) -> None:
    config = composed(tmp_path, "training.epochs=1")
    stream = assemble(config).stream
    base = base_of(lent, config, stream, Feed(stream).sizes(0))
    assert (base.cost.increment, base.cost.epochs) == (0, 3)


def test_a_base_part_is_refused_where_a_strategy_or_the_head_follows_its_steps(lent: Path, tmp_path: Path) -> None:
    """EMA's mean, a reservoir, SI's path and a head's frequencies would begin empty."""
    for name in ("ema", "replay", "si"):
        with pytest.raises(UserError, match=rf"base: the base part's steps are followed, or changed, by {name}"):
            execute(composed(tmp_path, f"+strategy@strategies.{name}={name}", f"base={lent}"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["seed=1"], "its seed is another; .*a sweep over seeds leaves base out"),
        (["training.batch_size=32"], "its training is another"),
        (["data.validation=0.2"], "its base part trained on, or stopped"),
        (
            ["data.exclude_seen=true"],
            "its base part trained on, or stopped",
        ),  # its validation would rank others
        (["evaluation.new_users=model"], "its evaluation.new_users is another"),
    ],
)
def test_a_base_part_that_does_not_fit_is_refused(lent: Path, tmp_path: Path, wrong: list[str], message: str) -> None:
    with pytest.raises(UserError, match=rf"base=.*: {message}"):
        execute(composed(tmp_path, f"base={lent}", *wrong))


@pytest.mark.parametrize(
    ("both", "theirs", "own", "message"),
    [
        (
            ["data.validate_on=next"],
            [],
            ["data.cut.increments=3"],
            "its base part trained on, or stopped",
        ),
        (
            ["data.unseen_items=known", "data.source.items=400"],
            ["data.until=1"],
            [],
            r"its data has \d+ items, and this run's \d+; with data\.unseen_items=known all are candidates",
        ),
    ],
)
def test_a_base_part_that_read_another_future_is_refused(
    tmp_path: Path, both: list[str], theirs: list[str], own: list[str], message: str
) -> None:
    config = composed(tmp_path, *both, *theirs)
    found = find(config)
    found.open(config)
    assert found.directory.lock is not None
    found.directory.lock.close()
    config = composed(tmp_path, *both, *own)
    stream = stream_of(config)
    with pytest.raises(UserError, match=rf"base=.*: {message}"):
        base_of(found.directory.path, config, stream, Feed(stream).sizes(0))


def test_a_base_part_of_other_texts_is_refused(tmp_path: Path) -> None:
    """Be it of an item to come, which is known from the start."""
    config = composed(tmp_path, "+text@data.text=hashed_words", "data.unseen_items=known")
    config["model"] = {"_target_": "incremental.models.text_items.text_items", "model": config["model"]}
    found = find(config)
    found.open(config)
    assert found.directory.lock is not None
    found.directory.lock.close()
    (file,) = (found.directory.path / "data").glob("text of item-*.npy")
    texts = np.load(file)
    texts[-1] += 1
    np.save(file, texts)
    stream = stream_of(config)
    assert stream.number("item", 0) < len(texts)
    with pytest.raises(UserError, match=r"its items' texts are others; data\.text must be the same"):
        base_of(found.directory.path, config, stream, Feed(stream).sizes(0))


@pytest.mark.parametrize("tables", ["grow", "whole"])
def test_a_base_part_in_other_tables(tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tight = Capacities(table=8)  # so that there are others
    monkeypatch.setattr(experiment, "feed_of", lambda parts: Feed(parts.stream, whole=parts.whole, capacities=tight))
    theirs, items = {"grow": "whole", "whole": "grow"}[tables], "data.source.items=400"
    execute(composed(tmp_path / "lent", items, "update.window=0", f"devices.tables={theirs}"))
    given = items, f"base={only(tmp_path / 'lent')}", f"devices.tables={tables}"
    if tables == "grow":
        with pytest.raises(UserError, match=r"its tables are made for more ids .*; set devices.tables=whole here too"):
            execute(composed(tmp_path / "shared", *given))
        return
    execute(composed(tmp_path / "shared", *given))
    execute(composed(tmp_path / "alone", items, f"devices.tables={tables}"))
    one, other = (pl.read_csv(only(tmp_path / runs) / "evaluations.csv")["value"] for runs in ("alone", "shared"))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_run_that_is_not_finished_lends_no_base_part(lent: Path, tmp_path: Path) -> None:
    """The borrower would be another run once it is, and be trained again."""
    shutil.copytree(lent, begun := tmp_path / "begun")
    (begun / "summary.json").unlink()
    with pytest.raises(UserError, match="begun: the run is not finished; let it go on to its end first"):
        execute(composed(tmp_path / "runs", f"base={begun}"))


def test_a_run_that_went_on_or_has_strategies_lends_no_base_part(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has strategies \(anchor, memory\); name one without"):
        execute(composed(tmp_path, f"base={finished}", *ANCHOR))
    went_on = tmp_path / "on"
    execute(composed(went_on))
    with pytest.raises(UserError, match="it has gone on training after its base part; make one with update=static"):
        execute(composed(tmp_path, f"base={only(went_on)}"))
    with pytest.raises(UserError, match=r"^base=nowhere: not a run directory \(there is no such folder\)"):
        execute(composed(tmp_path, "base=nowhere"))


def test_an_empty_base_is_no_run_without_one(tmp_path: Path, documented: Any) -> None:
    """So a command whose variable is not set does not train the base part that it was to share."""
    with pytest.raises(UserError, match=r"^base is empty: expected the directory of a run") as error:
        execute(composed(tmp_path, "base="))
    documented("a base that is empty", error.value)
