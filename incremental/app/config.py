"""From a config node to the object it describes: the factory's signature is the config's schema.

A node names its factory and gives its keyword-only parameters:

    _target_: incremental.strategies.ewc.ewc
    weight: 10                  # def ewc(problem, *, weight: float = 1.0, samples: int = 1024)

Positional parameters are the program's to provide. Values are checked against the annotations, because a
command line's `weight=10` arrives as an int where the factory was promised a float. A number's bounds stand in the
annotation too (`incremental.domains`). In place of a float a JAX array may stand: a number that a sweep's lanes do not
share, each of which was checked before.
"""

import collections.abc
import contextlib
import difflib
import functools
import importlib
import inspect
import math
import os
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from incremental import domains
from incremental.errors import UserError

Parameters = Mapping[str, inspect.Parameter]

_MISSING = "???"  # how OmegaConf writes a value that the user must give
_LISTS = (list, tuple, collections.abc.Sequence)
_DICTS = (dict, collections.abc.Mapping)


class _Mismatch(Exception):
    """The value does not fit the annotation; the caller knows the key and says so."""


class _Outside(_Mismatch):
    """The number is of the right type, and outside of its bounds."""


def build(node: Any, where: str, /, *args: Any, kind: Any = object, **provided: Any) -> Any:
    """The object that `node` describes, its factory called with `args`; `where` is the node's dotted key.

    `provided` are keyword-only parameters that the program gives in place of the config. A UserError where the factory
    makes no `kind`, a class or a tuple of them.
    """
    call = partial(node, where, **provided)
    takes(call, len(args), node, where)
    return of_kind(call(*args), kind, node, where)


def takes(call: Callable[..., Any], number: int, node: Mapping[str, Any], where: str) -> None:
    """A UserError where a node's factory cannot be called with so many positional arguments."""
    try:
        inspect.signature(call).bind(*[None] * number)
    except TypeError as error:
        raise UserError(f"{where}: {node['_target_']} does not fit here: {error}") from None


def of_kind(made: Any, kind: Any, node: Mapping[str, Any], where: str) -> Any:
    """What a node's factory has made; a UserError where it is no `kind`, a class or a tuple of them."""
    if not isinstance(made, kind):
        kinds = " or a ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        found = type(made).__name__
        raise UserError(f"{where}: {node['_target_']} makes a {found}, where the configuration needs a {kinds}")
    return made


def partial(node: Any, where: str, /, **provided: Any) -> functools.partial[Any]:
    """The node's factory, its keyword-only parameters checked and bound; positional ones are left open."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{where}: expected a node with _target_, the dotted name of a factory; got {node!r}")
    target = find(node["_target_"], f"{where}._target_")
    parameters = _keys(target)
    keywords = dict(provided)
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in parameters:
            raise UserError(_unknown(target, parameters, where, str(key)))
        if key in provided:
            raise UserError(f"{where}.{key}: set by the program, not by the config; remove it")
        keywords[key] = _check(value, parameters[key].annotation, f"{where}.{key}")
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in keywords:
            kind = describe(parameter.annotation)
            raise UserError(f"{where}.{key}: a value is needed ({kind}); give it as ++{where}.{key}=...")
    return functools.partial(target, **keywords)


def keywords(node: Mapping[str, Any], where: str) -> list[str]:
    """The keys that the node's factory takes."""
    return list(_keys(find(node["_target_"], f"{where}._target_")))


def floats(node: Mapping[str, Any], where: str) -> dict[str, float]:
    """The numbers in `node` and in the nodes below that may be traced, by dotted key: those annotated `float`."""
    call = partial(node, where)
    kinds = _keys(call.func)
    found: dict[str, float] = {}
    for key, given in node.items():
        value = call.keywords.get(key)
        if isinstance(given, Mapping) and "_target_" in given:
            found |= floats(given, f"{where}.{key}")
        elif type(value) is float and float in map(_plain, (kinds[key].annotation, *_parts(kinds[key].annotation))):
            found[f"{where}.{key}"] = value
    return found


def keys(node: Any, where: str = "") -> list[str]:
    """The dotted keys below `node`: those that it gives, and those that its factories take."""
    if not isinstance(node, Mapping):
        return []
    names = [str(key) for key in node if key != "_target_"]
    if isinstance(node.get("_target_"), str):
        with contextlib.suppress(UserError):
            names += [key for key in _keys(find(node["_target_"], where)) if key not in node]
    found = []
    for name in names:
        place = f"{where}.{name}" if where else name
        found += [place, *keys(node.get(name), place)]
    return found


def meant(word: str, words: Sequence[str], places: Iterable[str]) -> str:
    """A question for what `word` was meant to be: one of `words`, or one of the dotted `places` that ends so."""
    places = [place for place in places if "." in place]
    by_end = {place.rpartition(".")[2]: place for place in reversed(places)}
    same = [place for place in places if place.endswith(f".{word}")]
    if same:
        return f"; did you mean {' or '.join(same[:3])}?"
    for known in ({word: word for word in words}, by_end):  # a word before the end of a place: modle is model, not mode
        if close := difflib.get_close_matches(word, known, n=1, cutoff=0.8):
            return f"; did you mean {known[close[0]]}?"
    return ""


def find(name: Any, where: str) -> Callable[..., Any]:
    """The factory of a dotted name, imported; `where` is the key that has it."""
    if name == _MISSING:
        raise UserError(_needed(where))
    module_name, _, attribute = str(name).rpartition(".")
    if not module_name:
        raise UserError(f"{where}: {name!r} is not a dotted name, as in package.module.factory")
    if os.getcwd() not in sys.path:  # a console script's path begins with the folder of the script
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"{where}: {module_name} needs the package {error.name}; install it") from error
        raise UserError(f"{where}: no module {error.name}{_siblings(error.name)}") from None
    target = getattr(module, attribute, None)
    if not callable(target):
        found = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module_name and key[0] != "_"
        ]
        raise UserError(f"{where}: {module_name} has no factory {attribute}{_listed(attribute, found)}")
    return target


def _siblings(missing: str) -> str:
    """What the parent package of a missing module does have."""
    parent, _, name = missing.rpartition(".")
    if not parent:
        return ""
    path = getattr(importlib.import_module(parent), "__path__", [])
    return _listed(name, [module.name for module in pkgutil.iter_modules(path)], parent)


def _listed(name: str, found: list[str], holder: str = "it") -> str:
    return f"; {holder} has {', '.join(found) or 'none'}{_guess(name, found)}"


def _guess(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _keys(target: Callable[..., Any]) -> Parameters:
    signature = inspect.signature(target, eval_str=True)
    return {key: p for key, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _unknown(target: Callable[..., Any], parameters: Parameters, where: str, key: str) -> str:
    takes = ", ".join(f"{name} ({describe(p.annotation)})" for name, p in parameters.items())
    factory = getattr(target, "__name__", str(target))
    return f"{where}.{key}: unknown key; {factory} takes {takes or 'no keys'}{_guess(key, parameters)}"


def _needed(where: str) -> str:
    return f"{where}: a value is needed; give it as {where}=..."


def _check(value: Any, kind: Any, where: str) -> Any:
    try:
        return _convert(value, kind, where)
    except _Outside:
        endless = isinstance(value, float) and math.isinf(value)
        raise UserError(f"{where}={shown(value)}: expected {describe(kind, finite=endless)}") from None
    except _Mismatch:
        guess = _guess(str(value), [word for word in _choices(kind) if isinstance(word, str)])
        if isinstance(value, int | float) and any(each in (str, Path) for each in (kind, *typing.get_args(kind))):
            guess = f"; a text that looks like a number is given in quotes: '{where}=\"{str(value).lower()}\"'"
        if isinstance(value, str) and any(typing.get_origin(each) in _LISTS for each in (kind, *typing.get_args(kind))):
            guess = f"; a list is given in brackets: '{where}=[{value}]'"
        raise UserError(f"{where}: expected {describe(kind)}, got {value!r} ({type(value).__name__}){guess}") from None


def _convert(value: Any, kind: Any, where: str) -> Any:
    """`value` as `kind`, nested nodes built; `_Mismatch` where it does not fit."""
    if isinstance(value, str) and value == _MISSING:
        raise UserError(_needed(where))
    if kind is Any or kind is inspect.Parameter.empty:
        return _build_within(value, where)
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(kind), where)
    if origin is Annotated:
        return _convert_bounded(value, kind, where)
    if origin is Literal:
        return _same(value, kind, any(type(value) is type(c) and value == c for c in _choices(kind)))
    if kind is None or kind is types.NoneType:
        return _same(value, kind, value is None)
    if kind is float:
        if hasattr(value, "dtype") and not isinstance(value, float):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
        return float(_same(value, kind, number))
    if kind in (int, bool, str):
        return _same(value, kind, type(value) is kind)
    if kind is Path:
        return Path(_same(value, kind, isinstance(value, str | Path)))
    if origin in _LISTS:
        return _convert_sequence(value, kind, origin, where)
    if origin in _DICTS:
        return _convert_mapping(value, kind, where)
    return _convert_object(value, kind, origin, where)


def _same(value: Any, kind: Any, fits: bool) -> Any:
    if not fits:
        raise _Mismatch(kind)
    return value


def _convert_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    # An exact type first: under `float | int` an int stays one.
    wrong: _Mismatch = _Mismatch(kinds)
    for kind in sorted(kinds, key=lambda kind: type(value) is not _plain(kind)):
        try:
            return _convert(value, kind, where)
        except _Mismatch as error:
            wrong = error if isinstance(error, _Outside) else wrong
    raise wrong


def _convert_bounded(value: Any, kind: Any, where: str) -> Any:
    converted = _convert(value, _plain(kind), where)
    if isinstance(converted, int | float) and not domains.inside(converted, kind):
        raise _Outside(kind)
    return converted


def _plain(kind: Any) -> Any:
    """An annotation without its bounds."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind


def _parts(kind: Any) -> tuple[Any, ...]:
    """The kinds of a union."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()


def _convert_sequence(value: Any, kind: Any, origin: Any, where: str) -> Any:
    _same(value, kind, isinstance(value, list | tuple))
    kinds = typing.get_args(kind) or (Any, ...)
    if origin is not tuple or kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    _same(value, kind, len(value) == len(kinds))
    pairs = enumerate(zip(value, kinds, strict=True))
    items = [_convert(item, item_kind, f"{where}[{index}]") for index, (item, item_kind) in pairs]
    return tuple(items) if origin is tuple else items


def _convert_mapping(value: Any, kind: Any, where: str) -> dict[Any, Any]:
    _same(value, kind, isinstance(value, Mapping))
    key_kind, item_kind = typing.get_args(kind) or (Any, Any)
    pairs = value.items()
    return {_convert(k, key_kind, where): _convert(item, item_kind, f"{where}.{k}") for k, item in pairs}


def _convert_object(value: Any, kind: Any, origin: Any, where: str) -> Any:
    """A Callable or any other class: the config can only give a node that makes one."""
    built = _build_node(value, where) if isinstance(value, Mapping) else value
    if not isinstance(built, origin):
        if built is value:
            raise _Mismatch(kind)
        made, expected = type(built).__name__, describe(kind)
        raise UserError(f"{where}: {value['_target_']} makes a {made}, where the config needs {expected}")
    return built


def _build_node(node: Any, where: str) -> Any:
    """A nested node's object, or its factory as a function of the positional parameters still open."""
    call = partial(node, where)
    try:
        inspect.signature(call).bind()
    except TypeError:
        return call
    return call()


def _build_within(value: Any, where: str) -> Any:
    """A value of unstated type with the nodes in it built."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return _build_node(value, where)
        return {key: _convert(item, Any, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_convert(item, Any, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _choices(kind: Any) -> list[Any]:
    """The values that the Literals in `kind` allow."""
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return [choice for part in typing.get_args(kind) if typing.get_origin(part) for choice in _choices(part)]


def shown(value: Any) -> str:
    """A value as on the command line."""
    return f"[{','.join(map(shown, value))}]" if isinstance(value, list | tuple) else str(value)


def describe(kind: Any, *, finite: bool = False) -> str:
    """An annotation in a config writer's words; a number is said to be finite only where that is the point."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return domains.told(kind, finite=finite)
    if kind is Any or kind is inspect.Parameter.empty:
        return "any value"
    if kind is None or kind is types.NoneType:
        return "null"
    if origin is Literal:
        return " or ".join(str(choice) for choice in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(arg, finite=finite) for arg in args)
    if kind is Path:
        return "a path"
    if kind in (int, float, bool, str, list, tuple, dict):
        return str(kind.__name__)
    if origin in _LISTS + _DICTS:
        inner = ", ".join("..." if arg is Ellipsis else describe(arg) for arg in args)
        return f"{'list' if origin in _LISTS else 'dict'}[{inner}]"
    if origin is collections.abc.Callable or kind in (Callable, collections.abc.Callable):
        return "a node with _target_"
    return f"a node whose _target_ makes a {getattr(origin or kind, '__name__', kind)}"
