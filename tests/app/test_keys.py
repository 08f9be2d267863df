"""The help says what each number takes, and imports no factory for it."""

import inspect
from typing import Any

import pytest
from omegaconf import OmegaConf

from incremental.app import cli, config, keys
from tests.test_domains import FACTORIES, NUMBERS


def test_every_number_of_every_factory_is_read_from_its_source() -> None:
    for name, key, _ in NUMBERS:
        factory = inspect.signature(FACTORIES[name], eval_str=True)
        assert dict(keys.numbers(name)).get(key) == config.describe(factory.parameters[key].annotation), (name, key)


def test_the_help_has_a_line_for_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["incremental", "--help", "+strategy@strategies.teacher=lwf"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    for line in (
        "  strategies.teacher.temperature: a number > 0",
        "  model.dropout: a number >= 0 and < 1",
        "  update.window: a whole number >= 0 or all",
        "  data.source.items: a whole number >= 2",
        "  data.cut.base: a number > 0 and < 1",
    ):
        assert line in said.splitlines()


def test_what_is_not_there_has_no_line() -> None:
    nodes: Any = OmegaConf.create({"a": {"_target_": "no.such.factory", "b": {"_target_": "incremental.errors.no"}}})
    assert keys.taken(nodes) == ""
