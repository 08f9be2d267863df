"""Names of runs, rows and folders: texts as they were typed, that fit a folder of their own."""

import os.path
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from incremental.app.overrides import quoted
from incremental.errors import UserError

TEXTS = ("name", "row", "label", "runs", "base", "study")
"""the keys that are texts, whatever they look like"""
FOLDERS = ("runs", "base", "study")
"""those that are paths, and that nothing else reads `~` in"""
MOST = 100
"""bytes of a name; a file system takes 255 for a folder's, which has a label and an identity too"""


def typed(argument: str) -> str:
    """An argument of the command line, what YAML would make a number or a truth value of it in quotes.

    `name=1_1_1` is the run 1_1_1, and not 111; null stays null. `~/` is the home folder: a shell leaves it as it is
    after `=`, and Hydra has no value that begins so.
    """
    key, equals, value = argument.partition("=")
    if "," not in value and (value.startswith("~/") or (key in FOLDERS and re.match(r"(['\"])~/.*\1$", value))):
        return f"{key}={quoted(os.path.expanduser(value.strip(value[0]) if value[0] != '~' else value))}"
    if not equals or key.lstrip("+") not in TEXTS or re.search(r"['\"\[\](){}\\$]", value):
        return argument
    pieces = (f"'{each.strip()}'" if converted(each) else each for each in value.split(","))
    return f"{key}={','.join(pieces)}"


def converted(text: str) -> bool:
    """Whether Hydra makes something else than a text of it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return isinstance(OverridesParser.create().parse_rule(text.strip(), "primitive"), int | float)
    except HydraException:
        return False


def check(config: Mapping[str, Any]) -> None:
    """Refuses names that are no texts, leave the folder of the runs, or that the disk or a table cannot show."""
    for key in TEXTS:
        value = config.get(key)
        if not isinstance(value, str | None) or (key == "runs" and not value):
            raise UserError(
                f"{key}={value!r} ({type(value).__name__}): expected a text; in a YAML file put it in quotes, as in "
                f"{key}: '{value}'"
            )
        broken = [char for char in value or "" if unicodedata.category(char) in ("Cc", "Cs")]
        if broken and key in ("name", "row"):
            raise UserError(
                f"{key}={value!r}: the character {broken[0]!r} can be shown in no table; choose letters and digits"
            )
    name = config.get("name") or ""
    if name.startswith(".") or ".." in re.split(r"[/\\]", name):
        raise UserError(
            f"name={name!r}: the run's folder would be hidden, or outside of runs={config['runs']}; choose a name "
            "without a point at its start, and the folder by runs=…"
        )
    if len(name.encode()) > MOST:
        raise UserError(f"name={name[:20]!r}…: {len(name.encode())} bytes are too long; give at most {MOST}")
