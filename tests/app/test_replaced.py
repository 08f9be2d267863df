"""What a command line puts in a node's place, and where it is looked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from incremental.app import cli, config
from incremental.data import cutting

TINY = ["tracking=disabled", "data.source.events=1200", "data.source.users=60", "data.source.items=80"]


def composed(*overrides: str) -> dict[str, Any]:
    return cli.resolved(cli.composed(overrides)[0])


def test_another_factory_does_not_get_the_old_ones_keys() -> None:
    values = composed("optimizer._target_=incremental.core.optimizers.sgd", "optimizer.learning_rate=0.5")
    assert values["optimizer"] == {"_target_": "incremental.core.optimizers.sgd", "learning_rate": 0.5}
    values = composed("data=columns", "data.source._target_=incremental.data.sources.inter.inter", "data.source.path=x")
    assert values["data"]["source"] == {"_target_": "incremental.data.sources.inter.inter", "path": "x"}
    assert values["data"]["cut"] == composed("data=columns", "data.source.path=x")["data"]["cut"]
    assert composed()["optimizer"].keys() > {"_target_", "learning_rate"}


def test_another_stream_keeps_what_the_command_line_chose_for_it() -> None:
    line = ["data=columns", "data.source.path=x", "data._target_=my.stream"]
    assert set(composed(*line)["data"]) == {"_target_", "source"}
    chosen = composed(*line, "data/cut=weekly", "+text@data.text=hashed_words")["data"]
    assert chosen["cut"] == {"_target_": "incremental.data.cutting.calendar", "interval": "1w", "base": 0.5}
    assert chosen["text"]["_target_"] == "incremental.data.text.hashed_words"


@pytest.mark.parametrize("data", ["builtin", "columns", "diginetica", "lastfm"])
@pytest.mark.parametrize(
    ("choice", "factory", "keywords"),
    [
        ("weekly", "calendar", {"interval": "1w", "base": 0.5}),
        ("daily", "calendar", {"interval": "1d", "base": 0.5}),
        ("monthly", "calendar", {"interval": "1mo", "base": 0.5}),
        ("counts", "equal_counts", {"increments": 10, "base": 0.5}),
        ("periods", "given_periods", {"base": 1}),
    ],
)
def test_a_cut_is_one_word(data: str, choice: str, factory: str, keywords: dict[str, Any]) -> None:
    own = [] if data == "builtin" else ["data.source.path=x"]
    cut = composed(f"data={data}", *own, f"data/cut={choice}")["data"]["cut"]
    call = config.partial(cut, "data.cut")
    assert call.func is getattr(cutting, factory)
    assert call.keywords == keywords


def test_a_cuts_own_keys_may_be_given_with_it() -> None:
    assert composed("data/cut=weekly", "data.cut.base=0.3")["data"]["cut"]["base"] == 0.3
    assert composed("data/cut=counts", "data.cut.increments=4")["data"]["cut"]["increments"] == 4


THURSDAY = 1_420_070_400  # 1 January 2015


def test_weeks_of_an_own_file_and_a_module_beside_it_in_one_line(tmp_path: Path) -> None:
    """The `incremental` script, whose path does not begin with the current folder."""
    events = [f"u{i % 7},i{i % 5},{THURSDAY + i * 40_000}" for i in range(120)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time", *events]) + "\n")
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{i},Title {i}\n" for i in range(5)))
    (tmp_path / "mine.py").write_text(
        "from incremental.core.problem import Baseline\n"
        "from incremental.models.popularity import popularity\n\n\n"
        "def forgetful(*, decay: float = 0.5) -> Baseline:\n    return popularity(decay=decay)\n"
    )
    arguments = ["data=columns", "data.source.path=events.csv", "data.source.items_path=items.csv"]
    arguments += ["data.source.text=title", "data/cut=weekly", "model._target_=mine.forgetful", "tracking=disabled"]
    arguments += ["evaluation.metrics=[ndcg@2]"]
    program = "import sys; sys.path.remove(''); from incremental.app.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "runs").iterdir()
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["increments"] == 4  # 55 days from a Thursday: nine weeks, five of them the base part
    written: Any = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"))
    assert written["model"] == {"_target_": "mine.forgetful"}
    assert (written["name"], written["row"]) == ("forgetful", "forgetful")
    assert directory.name.startswith("forgetful-seed0-")


@pytest.mark.parametrize(
    ("overrides", "model"),
    [
        ([], "sasrec"),
        (["model=sasrec_small"], "sasrec_small"),
        (["model._target_=incremental.models.sasrec.sasrec"], "sasrec"),
        (["model._target_=incremental.models.gru4rec.gru4rec"], "gru4rec"),
        (["method=popularity", "model._target_=mine.newest"], "newest"),
    ],
)
def test_a_model_by_another_factory_has_the_factorys_name(overrides: list[str], model: str) -> None:
    assert cli.composed(overrides)[1]["model"] == model
