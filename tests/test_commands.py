"""Each command line of the documentation composes: of the README, docs/, the studies, the scripts and the configs."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from incremental.app import cli
from incremental.app.overrides import check as check_overrides
from incremental.report.cli import _parser
from tests.test_configs import check

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/*.md", "experiments/*/README.md", "incremental/strategies/README.md", "configs/**/*.yaml"]
USAGES = ["scripts/*", "experiments/*/run"]
LINE = re.compile(r"^[#\s]*(?:\.venv/bin/|\./)?((?:incremental(?:-report)?|scripts/\w+|experiments/\w+/run)) (.*)$")
SET = re.compile(r"^\s*(\w)=[\"'](.*)[\"']$")


def lines() -> Iterator[tuple[str, str, list[str]]]:
    """Page, program and arguments of every command line, its variables filled in, and `...` by the command before."""
    for page in [file for pattern in PAGES + USAGES for file in sorted(ROOT.glob(pattern)) if file.is_file()]:
        text = re.sub(r"\s*\\\n[#\s]*", " ", page.read_text(encoding="utf-8"))
        values: dict[str, str] = {}
        before: list[str] = []
        for line in text.splitlines():
            if found := SET.match(line):
                values[found[1]] = found[2]
            if not (found := LINE.match(line)):
                continue
            filled = re.sub(r"\$(\w)\b", lambda one, values=values: values.get(one[1], one[0]), found[2])
            given = re.split(r"\s{2,}|\s#|\s\(docs/", filled)[0]
            if "`" in given or ("=" not in given and "--" not in given) or "--help" in given or "$@" in given:
                continue
            words = shlex.split(given)
            here = {word.partition("=")[0] for word in words}
            rest = [word for word in before if word.partition("=")[0] not in here]
            words = [one for word in words if word != "…" for one in (rest if word == "..." else [word])]
            yield str(page.relative_to(ROOT)), found[1], words
            before = words if found[1] == "incremental" else before


COMMANDS = sorted({(program, tuple(words)): (page, program, words) for page, program, words in lines()}.values())
PAGES_OF = sorted({page for page, _, _ in COMMANDS})


def last_job(words: list[str]) -> list[str]:
    """A sweep's job of the last values; without intervals, and without a study's file, which is not there."""
    job = []
    with hydra.initialize_config_dir(str(cli.config_folder()), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        for one in parser.parse_overrides(words):
            if one.is_discrete_sweep():
                *_, value = one.sweep_string_iterator()
                job.append(f"{one.get_key_element()}={value}")
            elif not one.is_sweep_override() and one.get_key_element() != "study":
                job.append(str(one.input_line))
    return job


def composes(words: list[str]) -> None:
    job = last_job(cli.swept(words[1:])) if words[:1] == ["-m"] else words
    values = cli.resolved(cli.composed(job)[0])
    if not any("my_" in word for word in job):  # a plugin that the reader is to write
        check(values)


def options_of(script: Path) -> dict[str, Any]:
    """The names of a script's options, and whether it hands others on; nothing of a shell script."""
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except SyntaxError:
        return {}
    return {
        str(key.value): None
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Option"
    }


@pytest.mark.parametrize("page", PAGES_OF)
def test_every_command_of_a_page_composes(page: str) -> None:
    for own, program, words in COMMANDS:
        if own != page:
            continue
        try:
            if program == "incremental":
                composes(words)
            elif program == "incremental-report":
                _parser().parse_args(words)
            else:
                known = options_of(ROOT / program)
                check_overrides([word for word in words if word.partition("=")[0] not in known], multirun=True)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{program} {shlex.join(words)}\n{error}")


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) > 90
    assert len(PAGES_OF) > 15
