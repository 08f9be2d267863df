"""The configuration of a run by dotted key, and the keys in which runs differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from incremental.errors import UserError

Value = str | float | bool | None
Settings = Mapping[str, Value]

# What may differ between runs of one row: the seed, the name, where a run is kept, how it is watched.
INCIDENTAL = {"seed", "name", "label", "study", "runs", "tracking", "debug", "profile", "dry_run", "continue"}


def read_config(path: Path) -> dict[str, Any]:
    """A run's ``config.yaml``; empty where there is none."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        # The C parser reads a hundred runs in a fifth of a second, the Python one in two. It does not read halves of
        # pairs, by which Python knows the bytes of a path that is not UTF-8.
        fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(text, Loader=yaml.SafeLoader if "\\uD" in text else fast)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected the configuration of a run, found {content!r:.40}")
    return content


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """``config`` by dotted key; what a ``_target_`` builds is named after it, and a list is one text.

    >>> flat({"seed": 0, "model": {"_target_": "incremental.models.sasrec.sasrec", "width": 32}})
    {'seed': 0, 'model': 'sasrec', 'model.width': 32}
    """
    found: dict[str, Value] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            if "_target_" in value:
                found[key] = str(value["_target_"]).rpartition(".")[2]
            found |= flat({k: v for k, v in value.items() if k != "_target_"}, f"{key}.")
        elif isinstance(value, list | tuple):
            found[key] = " ".join(map(shown, value))
        else:
            found[key] = value if value is None or isinstance(value, str | int | float) else str(value)
    return found


def shown(value: object, digits: int | None = None) -> str:
    """A value as in a command line; a number to ``digits`` digits, or to as many as make it this number again.

    >>> shown(10.0), shown(1e-05), shown(True), shown(None), shown("ewc"), shown(0.12345678)
    ('10', '1e-05', 'true', 'null', 'ewc', '0.12345678')
    >>> shown(0.12345678, 6)
    '0.123457'
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, float):
        return str(value)
    return str(value).removesuffix(".0") if digits is None else f"{value:.{digits}g}"


def differing(settings: Sequence[Settings]) -> dict[str, list[str]]:
    """Keys that not all of ``settings`` have with the same value: their values as shown, "absent" included.

    Without the incidental ones, and without what belongs to a choice that differs itself.

    >>> differing([{"model": "sasrec", "model.width": 32, "seed": 0}, {"model": "gru4rec", "seed": 1}])
    {'model': ['gru4rec', 'sasrec']}
    """
    found: dict[str, list[str]] = {}
    for key in sorted({key for each in settings for key in each}, key=lambda key: (key.count("."), key)):
        parts = key.split(".")
        within = any(".".join(parts[:end]) in found for end in range(1, len(parts)))
        if within or parts[0] in INCIDENTAL or parts[-1] == "seed":
            continue
        values = {shown(each[key]) if key in each else "absent" for each in settings}
        if len(values) > 1:
            found[key] = sorted(values)
    return found
