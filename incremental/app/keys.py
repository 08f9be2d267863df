"""What the keys of a configuration take, for `incremental --help`: read from the factories' source, for it is quick."""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
from omegaconf import OmegaConf

from incremental import domains
from incremental.app.config import describe

WORDS = {**vars(domains), **vars(annotated_types), "Annotated": Annotated, "Literal": Literal}
"""what an annotation may name"""


def taken(config: Any) -> str:
    """A line for each number of each node of a composed configuration, with its domain."""
    nodes = OmegaConf.to_container(config, resolve=False)
    return "\n".join(f"  {key}: {said}" for key, said in below(nodes, ""))


def below(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """The dotted keys of the numbers of a node and of those in it."""
    if not isinstance(node, Mapping) or where == "hydra":
        return
    if "_target_" in node:
        yield from ((f"{where}.{key}", said) for key, said in numbers(str(node["_target_"])))
    for name, inner in node.items():
        yield from below(inner, f"{where}.{name}" if where else str(name))


@lru_cache
def numbers(target: str) -> list[tuple[str, str]]:
    """The keys of a factory that are numbers, with what they take; none of a factory that is not there."""
    module, _, name = target.rpartition(".")
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    factories = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    keys = [key for factory in factories for key in factory.args.kwonlyargs]
    return [(key.arg, said) for key in keys if (said := domain(key.annotation))]


def domain(annotation: ast.expr | None) -> str | None:
    """The domain in words, where an annotation is a number with bounds."""
    try:
        kind = eval(compile(ast.Expression(annotation), "annotation", "eval"), {**WORDS}) if annotation else None
    except NameError:
        return None  # of the module's own, which is no number
    return describe(kind) if any(map(domains.is_bounded, domains.numeric(kind))) else None
