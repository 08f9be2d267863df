"""Every config file composes, and builds what it says."""

import inspect
import re
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from incremental.app import cli, config
from incremental.app.assemble import completed, refuse_unknown
from incremental.app.methods import names
from incremental.data.stream import make_stream

FOLDER = cli.config_folder()
STRATEGIES = sorted(path.stem for path in FOLDER.glob("strategy/*.yaml"))
APART = ("data", "experiment", "strategy")
CHOICES = sorted((path.parent.name, path.stem) for path in FOLDER.glob("*/*.yaml") if path.parent.name not in APART)

NEEDED = {  # what the user must give
    "encoder_items": ["model.path=x"],
    "encoder_behaviour": ["model.path=x"],
    "encoded": ["data.text.path=x"],
    "click": ["data.task.clicked=[buy]"],
    "states": ["model=encoder_items", "model.path=x"],
    "tokens": ["model=encoder_behaviour", "model.path=x"],
}


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved configuration of a command line."""
    with hydra.initialize_config_dir(str(FOLDER), version_base="1.3"):
        values: Any = OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)
    return dict(values)


def check(values: dict[str, Any]) -> None:
    """Every node fits its factory's signature (the stream's source is not read)."""
    refuse_unknown(values)
    values = completed(values)
    for key in ("model", "head", "optimizer", "update", "training", "evaluation", "tracking", "devices"):
        config.partial(values[key], key)
    for name, node in (values["strategies"] or {}).items():
        config.partial(node, f"strategies.{name}")
    for key in ("text", "task"):
        if values["data"].get(key):
            config.build(values["data"][key], f"data.{key}")
    data = dict(values["data"])
    source = config.partial({**data.pop("source"), "path": "x"}, "data.source") if "path" in data["source"] else None
    if source is not None:
        config.partial({key: value for key, value in data.items() if key != "source"}, "data", source=source)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_fits_its_factory(group: str, choice: str) -> None:
    nested = {"text": "data.text", "task": "data.task", "feature": "data.features.it"}
    place = f"+{group}@{nested[group]}" if group in nested else group
    check(composed(f"{place}={choice}", *NEEDED.get(choice, [])))


def test_every_strategy_fits_its_factory_beside_all_others() -> None:
    values = composed(*(f"+strategy@strategies.my_{choice}={choice}" for choice in STRATEGIES))
    check(values)
    assert list(values["strategies"]) == [f"my_{choice}" for choice in STRATEGIES]


@pytest.mark.parametrize("choice", sorted(path.stem for path in (FOLDER / "data").glob("*.yaml")))
def test_every_data_config_fits_its_factories(choice: str) -> None:
    check(composed(f"data={choice}"))


PARTS = {"Base part", "Cuts", "Validation", "Candidates", "History", "Seen items", "New users", "Targets"}


@pytest.mark.parametrize("file", sorted((FOLDER / "protocol").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_header_of_a_protocol_says_each_part(file: Path) -> None:
    """In the form that the catalogue reads."""
    labels = re.findall(r"^#   ([A-Z][\w ]+):", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(labels) == sorted(PARTS | {"What it leaks"})


def test_leave_one_out_has_no_update_after_its_one_test() -> None:
    assert composed("protocol=leave_one_out")["update"]["window"] == 0
    assert composed("protocol=leave_one_out", "update=finetune")["update"]["window"] == 1


def test_the_protocols_defaults_are_those_of_make_stream() -> None:
    """The config names each key, so that a command line can set it; what it says is what Python users get."""
    said = dict(OmegaConf.load(FOLDER / "config.yaml").data)
    signature = inspect.signature(make_stream).parameters
    assert said.pop("heldout") is None  # follows from evaluation.matrix
    assert said == {key: signature[key].default for key in said}
    nodes = {"source", "cut", "cleaning", "text", "task", "features"}
    protocols = {"roles", "targets"}  # which the files of that group name
    assert set(said) | {"heldout"} == set(signature) - nodes - protocols
    for file in (FOLDER / f"protocol/{name}.yaml" for name in ("leave_one_out", "time_to_split_by_user")):
        assert protocols <= {*OmegaConf.load(file).data}


def test_under_pisa_the_last_increment_is_only_tested() -> None:
    """Nothing comes after it by which an update could stop: it would run all epochs."""
    for row in ("update=finetune", "update=static", "update=retrain"):
        values = composed("protocol=pisa", row)
        assert values["update"]["last"] == values["data"]["cut"]["increments"] - 1


def test_a_data_set_says_where_it_differs_only() -> None:
    protocol = dict(OmegaConf.load(FOLDER / "config.yaml").data)
    kept = {"ties", "exclude_seen"}  # said by each: they follow from what the data are
    for file in (FOLDER / "data").glob("*.yaml"):
        own = dict(OmegaConf.load(file))
        assert not {key for key in own.keys() & protocol.keys() - kept if own[key] == protocol[key]}, file.name


METHODS = names([str(FOLDER)])


@pytest.mark.parametrize("choice", sorted(path.stem for path in (FOLDER / "experiment").glob("*.yaml")))
@pytest.mark.parametrize("method", ["retrain", "replay", "popularity"])
def test_every_experiment_takes_every_kind_of_method(choice: str, method: str) -> None:
    values = composed(f"experiment={choice}", f"method={method}")
    check(values)
    assert values["row"] == method


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_row(method: str) -> None:
    values = composed(f"method={method}")
    check(values)
    assert values["row"] == method


def test_every_config_says_what_it_is() -> None:
    silent = [path for path in FOLDER.rglob("*.yaml") if not path.read_text().lstrip().startswith("#")]
    assert not silent, f"no comment at the head of {[str(Path(path).name) for path in silent]}"


@pytest.mark.parametrize("path", sorted((FOLDER / "protocol").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_protocol_says_what_the_catalogue_asks_for(path: Path) -> None:
    """And docs/protocol.md has a line of it."""
    labels = "Base part, Cuts, Validation, Candidates, History, Seen items, New users, Targets, What it leaks"
    told = [line[4:].partition(":")[0] for line in path.read_text().splitlines() if line.startswith("#   ")]
    assert [label for label in told if label in labels] == labels.split(", ")
    assert f"| `{path.stem}` |" in (Path(__file__).parents[1] / "docs" / "protocol.md").read_text()


def test_strategies_compose_from_the_command_line() -> None:
    values = composed(
        "+strategy@strategies.memory=replay", "+strategy@strategies.anchor=ewc", "strategies.anchor.weight=10"
    )
    assert list(values["strategies"]) == ["memory", "anchor"]
    built = config.partial(values["strategies"]["anchor"], "strategies.anchor")
    assert built.keywords["weight"] == 10.0
    assert isinstance(built.keywords["weight"], float)
