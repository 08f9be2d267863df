"""What Hydra refuses to compose, in one line: the key or the choice, what there is, what may be meant."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf

from incremental.app import config as schema
from incremental.app.overrides import PLACES, has


def refusal(error: Exception, overrides: Sequence[str], compose: Callable[[list[str]], Any]) -> str:
    """The line; `compose` makes a configuration of overrides, here of those that are not refused."""
    if (said := choices(error)) is not None:
        return said
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    from incremental.app.assemble import KEYS, LIVE, unchosen  # what it imports takes seconds

    added = next((one for one in overrides if one[0] == "+" and re.match(r"\+[^.@=]+=", one)), None)
    if added is not None and re.match(r"Multiple values for|.* appears more than once", " ".join(lines)):
        return f"{added}: one is chosen already; choose another without the plus: {added[1:]}"
    group, _, choice = next((one for one in overrides if one.partition("=")[0] in PLACES), "").partition("=")
    if group and "No match in the defaults list" in lines[0]:
        return f"{group}={choice}: its place is missing; give it as +{group}@{PLACES[group].format(choice)}={choice}"
    absent = re.fullmatch(r"Could not override '([^'@]+)'", lines[0]) if lines else None
    if absent is None:
        return "; ".join([*lines[:3], *str(error.__cause__ or "").strip().splitlines()[:1]])
    key = absent[1]
    given = next((one for one in overrides if one.partition("=")[0] == key), key)
    try:
        known = compose([one for one in overrides if one != given])
    except HydraException:  # another one is wrong too
        known = compose([])
    above, _, last = key.rpartition(".")
    if key.startswith("hydra."):
        node = OmegaConf.select(known, above)
        there = [str(name) for name in node if name != "_target_"] if isinstance(node, DictConfig) else []
        return f"{given}: there is no such key" + (f"; {above} has {', '.join(there)}" if there else "")
    top: Any = OmegaConf.to_container(known, resolve=False)
    if key.partition(".")[0] == LIVE and LIVE not in top:
        return f"{given}: the configuration has no node {LIVE}; give experiment=live, or one of yours that has it"
    nodes = (*KEYS, *(name for name in (LIVE,) if name in top))
    places = schema.keys({name: top.get(name) for name in nodes})
    if key in places or (above in places and not has(known, above)):
        return f"{given}: the configuration leaves this key of its factory out; give it with a plus: +{given}"
    if above.startswith("strategies.") and above not in places:
        guess = schema.meant(last, (), [place for place in places if place.startswith("strategies.")])
        return f"{unchosen(above.split('.')[1], key)}{guess}"
    above = above if above.split(".")[0] in nodes else ""
    there = [name for where, _, name in (place.rpartition(".") for place in places) if where == above]
    listed = f"; {above or 'the configuration'} has {', '.join(there)}" if there else ""
    return f"{given}: there is no such key{listed}{schema.meant(last, nodes, places)}"


def choices(error: Exception) -> str | None:
    """What there is in place of a group's choice that there is not; None for another error."""
    if not isinstance(error, MissingConfigException) or not error.options:
        return None
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    close = difflib.get_close_matches(choice, error.options, n=1)
    guess = f"; did you mean {close[0]}?" if close else ""
    return f"{group}={choice}: there is {', '.join(error.options)}{guess}"
