"""The command line of studies and benchmarks: `key=value`, as everywhere else."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import yaml

from incremental import domains
from incremental.domains import Count, Whole, refuse
from incremental.errors import UserError
from incremental.shell import enter, reported

NEEDED = "???"
"""the default of an option that the user must give"""


class Option(NamedTuple):
    """What an option is by default, which says its type too, and what it means."""

    default: Any
    said: str = ""
    choices: Sequence[Any] = ()


def options(
    arguments: Sequence[str], doc: str | None, known: Mapping[str, Option], *, others: bool = False
) -> tuple[SimpleNamespace, list[str]]:
    """The options' values, and the `others`: overrides of the `incremental` command, where a script hands them on.

    `-h` and `--help` print the documentation and the options. A mistake is said in one line; both end the program.
    """
    enter()
    if {"-h", "--help"} & set(arguments):
        print(help_of(doc, known, others=others))
        raise SystemExit(0)
    with reported():
        return parsed(arguments, known, others=others)


def parsed(arguments: Sequence[str], known: Mapping[str, Option], *, others: bool) -> tuple[SimpleNamespace, list[str]]:
    """The values; a UserError says what is wrong.

    >>> parsed(["rounds=3", "items=[10,20]"], {"rounds": Option(7), "items": Option([5])}, others=False)
    (namespace(rounds=3, items=[10, 20]), [])
    """
    values, left = {name: option.default for name, option in known.items()}, []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if equals and name in known:
            values[name] = value_of(name, text, known[name])
        elif others and equals and not name.startswith("--"):
            left.append(argument)
        else:
            close = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), list(known), n=1)
            guess = f"; did you mean {close[0]}={text or '…'}?" if close else ""
            raise UserError(f"{argument}: expected KEY=VALUE with one of {', '.join(known)}{guess}")
    for name, value in values.items():
        if value is NEEDED:
            raise UserError(f"{name}: a value is needed ({known[name].said}); give it as {name}=…")
    return SimpleNamespace(**values), left


def value_of(name: str, text: str, option: Option) -> Any:
    """A text as a value of the option's type."""
    kind = type(option.default)
    if kind is str or option.default is None:
        value: Any = text
    elif isinstance(option.default, Path):
        value = Path(text).expanduser()
    else:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if kind is list and not isinstance(value, list):
            value = [value]
        if type(value) is not kind:
            raise UserError(f"{name}={text}: expected {kind.__name__}, such as {shown(option.default)}")
    if (domain := domain_of(option)) is not None:
        for number in value if kind is list else [value]:
            if isinstance(number, int):
                refuse(name, number, [domain])
    if option.choices and (wrong := [one for one in (value if kind is list else [value]) if one not in option.choices]):
        raise UserError(f"{name}={text}: {wrong[0]} is not one of {', '.join(map(str, option.choices))}")
    return value


def domain_of(option: Option) -> Any:
    """What a whole number may be: at least 1, or 0 too where that is the default or one of several; None: no number."""
    if type(option.default) is int:
        return Count if option.default else Whole
    return Whole if isinstance(option.default, list) and any(type(one) is int for one in option.default) else None


def help_of(doc: str | None, known: Mapping[str, Option], *, others: bool) -> str:
    """The documentation and a line for each option."""
    lines = [f"  {f'{name}={shown(option.default)}':<34} {said(option)}".rstrip() for name, option in known.items()]
    lines += ["  KEY=VALUE                          any other: an override of the incremental command"] * others
    return "\n".join([(doc or "").strip(), "", "options, each with its default:", *lines])


def said(option: Option) -> str:
    """What an option means, its choices, and what a number may be."""
    domain = domain_of(option)
    choices = "of " + shown([*option.choices]) if option.choices else ""
    return "; ".join(filter(None, [option.said, choices, "" if domain is None else domains.told(domain)]))


def shown(value: Any) -> str:
    """A default as on the command line."""
    if isinstance(value, list):
        return f"[{','.join(json.dumps(one) if ',' in str(one) else str(one) for one in value)}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
