"""What a node leaves behind where a command line puts another factory in its place: nothing."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from incremental.app import config as schema

CUT = "data/cut"
"""the group whose node another file, that of the data set, has filled before"""


def replaced(config: MutableMapping[str, Any], overrides: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Takes the old keys out of the nodes of `config` that have got another factory by the command line's `overrides`.

    After `X._target_=...` X has the keys that the command line gives it, and no other: those of the file were the old
    factory's. A choice of a group (`data/cut=weekly`, `text@data.text=encoded`) gives the node that it fills. After
    `data/cut=...` the keys of the data set's own cut that the chosen one does not take are gone.
    """
    given = [override.lstrip("+").partition("=")[0] for override in overrides]
    given = [key.partition("@")[2] or (CUT.replace("/", ".") if key == CUT else key) for key in given]
    for key in given:
        where, _, last = key.rpartition(".")
        if last == "_target_" and (node := at(config, where)) is not None:
            keep(node, {"_target_"}, given, where)
    if choices.get(CUT) and (node := at(config, "data.cut")) is not None:
        keep(node, {"_target_", *schema.keywords(node, "data.cut")}, given, "data.cut")


def at(config: Any, where: str) -> Any:
    """The node at a dotted key, or None."""
    for name in where.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return None
        config = config[name]
    return config if isinstance(config, MutableMapping) else None


def keep(node: MutableMapping[str, Any], names: set[str], given: Sequence[str], where: str) -> None:
    """Takes out of a node what is neither one of the `names` nor given below `where`."""
    for key in [str(key) for key in node]:
        own = f"{where}.{key}"
        if key not in names and not any(one == own or one.startswith(f"{own}.") for one in given):
            del node[key]
