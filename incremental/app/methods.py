"""The group `method`, made from the groups `update`, `strategy` and `model` of the configs at some addresses.

A method is a row of a table. By its name it is, first found first: an update of the model (`update=NAME`), fine-tuning
with a strategy (`strategies.NAME`), or a baseline, a model without gradients, in place of the model.
"""

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource


def defaults(name: str, addresses: Sequence[str]) -> list[dict[str, str]]:
    """The defaults list of `method=NAME` among the configs at these addresses; empty: there is no such method."""
    for source in sources(addresses):
        if source.is_config(f"update/{name}"):
            return [{"override /update": name}]
    for source in sources(addresses):
        if source.is_config(f"strategy/{name}"):
            return [{f"/strategy@strategies.{name}": name}, {"override /update": "finetune"}]
    for source in sources(addresses):
        if source.is_config(f"model/{name}") and without_gradients(source, name):
            return [{"override /model": name}]
    return []


def model_name(choice: str, factory: str, addresses: Sequence[str]) -> str:
    """The name of a run's model: that of the chosen file, or of the factory where it stands in place of the file's."""
    for source in sources(addresses):
        if source.is_config(f"model/{choice}"):
            config: Any = source.load_config(f"model/{choice}").config
            return choice if config.get("_target_", factory) == factory else factory.rpartition(".")[2]
    return choice


def names(addresses: Sequence[str]) -> list[str]:
    """Every method."""
    found: set[str] = set()
    for source in sources(addresses):
        found |= {*listed(source, "update"), *listed(source, "strategy")}
        found |= {name for name in listed(source, "model") if without_gradients(source, name)}
    return sorted(found)


def listed(source: ConfigSource, group: str) -> Sequence[str]:
    """The configs of a group."""
    return source.list(group, ObjectType.CONFIG) if source.is_group(group) else []


def sources(addresses: Sequence[str]) -> Iterator[ConfigSource]:
    """The configs at these addresses."""
    Plugins.instance()  # it knows the kinds of sources
    for address in addresses:
        scheme = address.partition("://")[0] if "://" in address else "file"
        yield SourcesRegistry.instance().resolve(scheme)("", address)


def without_gradients(source: ConfigSource, name: str) -> bool:
    """Whether a model's factory is annotated to return a `Baseline`; it is read, not imported."""
    config: Any = source.load_config(f"model/{name}").config
    module, _, factory = str(config.get("_target_", "")).rpartition(".")
    return bool(module) and "Baseline" in returns(module).get(factory, "")


@lru_cache
def returns(module: str) -> dict[str, str]:
    """What each function of a module is annotated to return; nothing of a module that is not there."""
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return {}
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {}
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return {
        node.name: ast.unparse(node.returns) for node in tree.body if isinstance(node, ast.FunctionDef) and node.returns
    }
