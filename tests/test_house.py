"""The map of docs/house.md: an arrow of imports points downwards only, and no file is too long to be read at once."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "incremental"
MOST_LINES = 400
STOREYS = [
    {"errors"},
    {"domains", "shell"},
    {"metrics"},
    {"core"},
    {"memory", "encoders", "log"},
    {"strategies", "heads", "data"},
    {"models"},
    {"run"},
    {"report", "testing"},
    {"app"},
    {"serve"},
]
STOREY = {folder: floor for floor, folders in enumerate(STOREYS) for folder in folders}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in FILES}


def imported(file: Path) -> Iterator[str]:
    """The package's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("incremental"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


@functools.cache
def arrows() -> dict[str, set[str]]:
    """By module, what it imports."""
    return {module: {*imported(file)} - {module} for module, file in MODULES.items()}


def folder(module: str) -> str | None:
    """None: the public face and the command stand outside of the house."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def test_an_arrow_points_downwards_only() -> None:
    climbs = []
    for module, others in arrows().items():
        own = folder(module)
        for other in others if own else ():
            theirs = folder(other)
            if theirs != own and (theirs is None or STOREY[theirs] >= STOREY[own or ""]):
                climbs.append(f"{module} -> {other}")
    assert climbs == []


def test_there_is_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for other in arrows().get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in arrows():
        if folder(module):
            visit(module, ())


@pytest.mark.parametrize("kind", ["strategies", "heads", "models"])
def test_a_plugin_folder_holds_plugins_only(kind: str) -> None:
    """A file has the factory that it is named by."""
    for file in (ROOT / kind).glob("*.py"):
        functions = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert file.stem == "__init__" or file.stem in functions, file.name


def test_no_file_is_too_long_to_be_read() -> None:
    long = {module: n for module, file in MODULES.items() if (n := len(file.read_text().splitlines())) > MOST_LINES}
    assert long == {}


def test_every_public_name_has_a_docstring_that_says_its_fields() -> None:
    import incremental as inc

    for name in inc.__all__:
        thing = getattr(inc, name)
        assert thing.__doc__, name
        for field in getattr(thing, "_fields", ()):
            told = thing.__doc__.partition("Attributes:")[2]
            assert f"{field}:" in told, f"{name}.{field}"


def of_text(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes a text file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    modes = [str(one.value) for one in call.args if isinstance(one, ast.Constant)]
    return name in ("read_text", "write_text") or (name == "open" and modes[-1:] in (["w"], ["r"], ["a"]))


def test_every_text_file_says_its_encoding() -> None:
    """Else the user's locale decides, and a name beyond ASCII ends the run."""
    folders = ("incremental", "hydra_plugins", "experiments", "scripts")
    silent = [
        f"{file}:{node.lineno}"
        for folder in folders
        for file in sorted((ROOT.parent / folder).rglob("*"))
        if file.suffix == ".py"
        or (file.parent.name == "scripts" and file.is_file() and file.read_bytes().startswith(b"#!/usr/bin/env py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and of_text(node) and "encoding" not in {word.arg for word in node.keywords}
    ]
    assert silent == []
