"""The group `method`, made from the groups `update`, `strategy` and `model`: light, for Hydra looks at each start.

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
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

SCHEME, GROUP = "methods", "method"


class Beside(str):
    """The address of this source, which knows the search path that it is in; a copy of the path has a copy of it."""

    of: ConfigSearchPath


class MethodSource(ConfigSource):
    """Configs `method/NAME`."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        elements = path.of.get_path() if isinstance(path, Beside) else []
        addresses = [str(one.path) for one in elements if one.path is not path]
        self.others = [address for address in addresses if not address.startswith((f"{SCHEME}:", "structured:"))]

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return group == GROUP and bool(defaults(name, self.others))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG or not names(self.others) else [GROUP]
        return [] if config_path != GROUP or results_filter == ObjectType.GROUP else names(self.others)

    def load_config(self, config_path: str) -> ConfigResult:
        name = config_path.removesuffix(".yaml").rpartition("/")[2]
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        config = OmegaConf.create({"defaults": defaults(name, self.others), "row": name})
        return ConfigResult(self.provider, self.full_path(), config, {"package": "_global_"})


class MethodsPath(SearchPathPlugin):
    """Puts the methods behind all other configs: a `method/NAME.yaml` that someone wrote goes first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        address = Beside(f"{SCHEME}://")
        address.of = search_path
        search_path.append("incremental", address)


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
