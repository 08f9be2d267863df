"""A run directory is data: what its config names is imported from this package and from those that the user names."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from incremental.app import config as schema
from incremental.errors import UserError

OURS = "incremental"


def refuse_strangers(config: Mapping[str, Any], plugins: Sequence[str], where: str) -> None:
    """A UserError for the first factory in a run's config, at any depth, of a package that is not trusted.

    A factory of this package is one that is defined in it: what its modules import from elsewhere is none.
    """
    for key, name in targets(config, ""):
        if belongs(name, plugins):
            continue
        package = name.partition(".")[0] or name
        asked = (
            f"{where}: {key} is {name!r}, a factory that is not of this package. A run is data, and nothing that it "
            f"names is imported unasked; if you know and trust {package!r}, say so with --plugin {package} (in Python: "
            f"plugins=[{package!r}])"
        )
        if not belongs(name, (OURS,)) or "__main__" in name.split("."):
            raise UserError(asked)
        factory = schema.find(name, f"{where}: {key}")
        if not (inspect.isfunction(factory) or inspect.isclass(factory)) or not belongs(factory.__module__, (OURS,)):
            raise UserError(asked)


def strangers(config: Mapping[str, Any]) -> list[str]:
    """The packages, beside this one, that a config's factories are of."""
    return sorted({name.partition(".")[0] for _, name in targets(config, "") if not belongs(name, (OURS,))})


def belongs(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name is in one of the packages."""
    return any(name.startswith(f"{package}.") for package in packages)


def targets(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """Each `_target_` in a node and below, by its dotted key."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            place = f"{where}.{key}" if where else str(key)
            if key == "_target_":
                yield place, str(value)
            else:
                yield from targets(value, place)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from targets(value, f"{where}[{number}]")
