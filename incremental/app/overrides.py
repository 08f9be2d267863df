"""The overrides of a command line, before Hydra composes them: what its parser refuses comes back in quotes.

A value in quotes is a text to Hydra's parser, whatever is in it, and `\\${` is a text to OmegaConf.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from incremental.errors import UserError

PLACES = {"strategy": "strategies.{}", "feature": "data.features.{}", "text": "data.text", "task": "data.task"}
"""where a group's choice belongs that Hydra puts at the top level"""
NESTED = ("data.cut", "hydra.launcher", "hydra.sweeper")
"""the places of groups whose name is the place's"""


def quoted(text: str, quote: Quote = Quote.single) -> str:
    """A text as a value in Hydra's grammar."""
    return str(QuotedString(text, quote).with_quotes())


def literal(text: str) -> str:
    """A text that OmegaConf reads as it stands: `${` begins no interpolation in it."""
    return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)


def pasted(key: str, text: str) -> str:
    """`key=text` for a POSIX shell: a text with whatever in it, for the shell, Hydra and OmegaConf."""
    plain = f"{key}={quoted(literal(text))}"
    if not re.search(r"[\"$`\\!\n]", plain):
        return f'"{plain}"'
    double = f"{key}={quoted(literal(text), Quote.double)}"
    return f"'{double}'" if "'" not in double else shlex.quote(plain)


def parsed(argument: str) -> Override:
    """One override; a UserError with the form that can be pasted, where quotes are all that is missing."""
    parser = OverridesParser.create()
    if argument.startswith("="):
        raise UserError(f"{argument!r}: expected KEY=VALUE, KEY of letters, digits, _ and dots")
    try:
        return parser.parse_override(argument)
    except HydraException as error:
        key, equals, text = argument.partition("=")
        try:
            parser.parse_override(f"{key}={quoted(literal(text))}")
        except HydraException:
            equals = ""  # the key is wrong too
        if not equals:
            said = str(error).splitlines()[0]
            raise UserError(f"{argument!r}: expected KEY=VALUE, KEY of letters, digits, _ and dots ({said})") from None
        if text.endswith(","):
            raise UserError(
                f"{argument}: nothing follows the comma; several values have no blanks between them, as in -m "
                f"seed=0,1; in quotes it is a text: {pasted(key, text)}"
            ) from None
        raise UserError(
            f"{argument}: the value has a sign that overrides use (= , # ( ) [ ] {{ }} ~ ' \" \\) or a letter "
            f"that is not ASCII; in quotes it is a text: {pasted(key, text)}"
        ) from None


def check(arguments: Sequence[str], *, multirun: bool) -> list[Override]:
    """All overrides; a UserError says which one Hydra would refuse, and what to write."""
    found = [parsed(argument) for argument in arguments]
    for one in found:
        if right := chosen(str(one.input_line)):
            raise UserError(f"{one.input_line}: a choice is given to its group, and not to a key; write {right}")
        if one.is_sweep_override() and not multirun:
            key, _, text = str(one.input_line).partition("=")
            raise UserError(
                f"{one.input_line}: these are several values: -m runs one after the other; a list is "
                f"{shlex.quote(f'{key}=[{text}]')}; one text is {pasted(key, text)}"
            )
    return found


def chosen(argument: str) -> str | None:
    """The right form of a group's choice that is given as the value of its place; None for every other override.

    These places take nodes, so that a word there is no value.
    """
    key, _, text = argument.lstrip("+").partition("=")
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[A-Za-z]\w*", word) and word.lower() != "null" for word in words):
        return None
    place = key.replace("/", ".")
    for group, where in PLACES.items():
        if re.fullmatch(re.escape(where).replace(r"\{\}", r"\w+"), place):
            return f"+{group}@{place}={text}"
    return f"{key.replace('.', '/')}={text}" if key in NESTED else None


def command(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The overrides among the `incremental` command's arguments, and whether it sweeps."""
    options, unknown = get_args_parser().parse_known_args(list(arguments))
    if unknown:
        option, _, value = unknown[0].partition("=")
        after = dict(itertools.pairwise(arguments)).get(unknown[0], "")
        value = value or (after if re.fullmatch(r"[^-=][^=]*", after) else "…")
        key = option.lstrip("-").replace("-", "_")
        raise UserError(f"{unknown[0]}: there is no such option (see --help); did you mean {key}={value}?")
    return list(options.overrides), bool(options.multirun)


def with_places(arguments: Sequence[str], loader: Any, compose: Callable[[list[str]], Any]) -> list[str]:
    """A sweep's overrides, with `++` before a fixed value that only a choice of a swept group has a place for.

    Hydra composes a sweep's own configuration without what is swept, where such a key is not there. A job whose choice
    has not got the key refuses it.
    """
    given = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))

    def is_group(one: Override) -> bool:
        return one.package is not None or bool(loader.get_group_options(one.key_or_group))

    groups = [one for one in given if one.is_discrete_sweep() and is_group(one)]
    plain = [one for one in given if not one.is_sweep_override()]
    fixed = [one for one in plain if "." in one.key_or_group and not is_group(one) and one.input_line[0] not in "+~"]
    fixed = [one for one in fixed if not one.is_hydra_override()]
    if not groups or not fixed:
        return list(arguments)
    rest = [str(one.input_line) for one in plain if one not in fixed]
    bare = compose(rest)
    absent = [one for one in fixed if not has(bare, one.key_or_group)]
    brought: set[str] = set()
    for group in groups if absent else ():
        for choice in group.sweep_string_iterator():
            made = compose([*rest, f"{group.get_key_element()}={choice}"])
            brought |= {str(one.input_line) for one in absent if brings(made, bare, one.key_or_group)}
    return [f"++{argument}" if argument in brought else argument for argument in arguments]


def brings(made: Any, bare: Any, key: str) -> bool:
    """Whether a choice brings a key, or its node: a wrong key there is the job's to refuse, which knows all."""
    where = key.rpartition(".")[0]
    return has(made, key) or (OmegaConf.select(bare, where) is None and OmegaConf.select(made, where) is not None)


def has(config: Any, key: str) -> bool:
    """Whether a configuration has a key, be it null."""
    where, _, last = key.rpartition(".")
    node = OmegaConf.select(config, where)
    return isinstance(node, DictConfig) and last in list(node)  # without `list` a key of ??? is not there
