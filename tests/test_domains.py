"""Every number of every factory has a domain; what lies outside is refused by its key, before anything is made."""

import importlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from incremental import domains
from incremental.app import cli, config
from incremental.errors import UserError

ROOT = Path(__file__).parents[1]
PLUGINS = ("strategies", "heads", "models")


def targets(node: Any) -> Iterator[str]:
    """The factories that a configuration names, at any depth."""
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        for value in node.values():
            yield from targets(value)


def factories() -> dict[str, Any]:
    """All that the configs name, and the plugins."""
    files = [file for folder in PLUGINS for file in (ROOT / "incremental" / folder).glob("[a-z]*.py")]
    names = {f"incremental.{file.parent.name}.{file.stem}.{file.stem}" for file in files}
    for file in cli.config_folder().rglob("*.yaml"):
        names |= {*targets(OmegaConf.to_container(OmegaConf.load(file)))}
    found = {name: name.rpartition(".") for name in sorted(names)}
    return {name: getattr(importlib.import_module(module), factory) for name, (module, _, factory) in found.items()}


def keys_of(factory: Any) -> dict[str, list[Any]]:
    """The numbers among a factory's keys."""
    keyed = inspect.signature(factory, eval_str=True).parameters.values()
    return {p.name: kinds for p in keyed if (kinds := domains.numeric(p.annotation)) and p.kind is p.KEYWORD_ONLY}


FACTORIES = factories()
NUMBERS = [(name, key, kinds) for name, factory in FACTORIES.items() for key, kinds in keys_of(factory).items()]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


def test_every_number_of_every_factory_has_a_domain() -> None:
    without = [f"{name}: {key}" for name, key, kinds in NUMBERS if not all(map(domains.is_bounded, kinds))]
    assert len(NUMBERS) > 150
    assert not without, f"annotate them with their bounds, such as those of incremental/domains.py: {without}"


def test_every_factory_with_a_number_refuses_it_in_a_call_from_python_too() -> None:
    silent = sorted({name for name, _, _ in NUMBERS if not hasattr(FACTORIES[name], "__wrapped__")})
    assert not silent, f"decorate them with incremental.domains.checked: {silent}"


def outside(kind: Any) -> st.SearchStrategy[float]:
    """Numbers of the kind's type that its bounds leave out."""
    whole = typing.get_args(kind)[0] is int
    numbers = st.integers() if whole else st.one_of(st.floats(), st.integers().map(float))
    ends = [] if whole else [math.inf, -math.inf]
    near = [limit + step for _, _, limit in domains.bounds(kind) for step in (-1, 0, 1) if not math.isinf(limit)]
    return st.one_of(numbers, st.sampled_from([*ends, *near])).filter(
        lambda x: x == x and not domains.inside(x, kind) and (not whole or x == int(x))
    )


@settings(max_examples=300)
@given(st.data())
def test_what_lies_outside_is_refused_by_its_key(data: st.DataObject) -> None:
    name, key, kinds = data.draw(st.sampled_from(NUMBERS))
    value = data.draw(outside(kinds[0]))
    listed = typing.get_origin(inspect.signature(FACTORIES[name], eval_str=True).parameters[key].annotation) is tuple
    said = refusal(lambda: config.partial({"_target_": name, key: [value] if listed else value}, "a.b"))
    assert said.startswith(f"a.b.{key}={[value] if listed else value}: expected "), said
    said = refusal(lambda: FACTORIES[name](**{key: (value,) if listed else value}))
    assert said.startswith(f"{name.rpartition('.')[2]}: {key}={value}: expected "), said


@settings(max_examples=100)
@given(st.sampled_from(NUMBERS))
def test_every_default_lies_inside(number: tuple[str, str, list[Any]]) -> None:
    name, key, kinds = number
    default = inspect.signature(FACTORIES[name], eval_str=True).parameters[key].default
    if default is inspect.Parameter.empty:
        return
    for value in default if isinstance(default, tuple) else [default]:
        assert value is None or isinstance(value, str) or any(domains.inside(value, kind) for kind in kinds), name


@pytest.mark.parametrize(
    ("target", "key", "value", "expected"),
    [
        ("strategies.lwf.lwf", "temperature", -1, "a number > 0"),
        ("strategies.lwf.lwf", "temperature", 0, "a number > 0"),
        ("strategies.online_ewc.online_ewc", "decay", 2, "a number from 0 to 1"),
        ("models.gru4rec.gru4rec", "dropout", 1.5, "a number >= 0 and < 1"),
        ("models.sasrec.sasrec", "width", 0, "a whole number >= 1"),
        ("core.optimizers.adam", "learning_rate", -0.001, "a number >= 0"),
        ("core.optimizers.sgd", "clip", 0.0, "a number > 0 or null"),
        ("strategies.ewc.ewc", "weight", math.inf, "a finite number >= 0"),
        ("heads.adaptive_softmax.adaptive_softmax", "cutoffs", [0, 5], "list[a whole number >= 1, ...]"),
        ("run.policy.update", "window", -2, "a whole number >= 0 or all"),
    ],
)
def test_the_refusal_says_the_domain(
    target: str, key: str, value: Any, expected: str, documented: Callable[[str, object], None]
) -> None:
    said = refusal(lambda: config.partial({"_target_": f"incremental.{target}", key: value}, "a.b"))
    assert said == f"a.b.{key}={config.shown(value)}: expected {expected}"
    if key == "temperature" and value == -1:
        documented("a number outside of its range", said)


def test_a_number_of_the_wrong_type_and_an_unknown_key_say_it_too() -> None:
    lwf = "incremental.strategies.lwf.lwf"
    said = refusal(lambda: config.partial({"_target_": lwf, "weight": "much"}, "s"))
    assert said == "s.weight: expected a number >= 0, got 'much' (str)"
    said = refusal(lambda: config.partial({"_target_": lwf, "wait": 1}, "s"))
    assert "lwf takes weight (a number >= 0), temperature (a number > 0)" in said


def test_a_bounded_float_is_a_float_that_lanes_may_differ_in() -> None:
    node = {"_target_": "incremental.core.optimizers.adam", "learning_rate": 1, "clip": 2, "warmup": 3}
    assert config.floats(node, "optimizer") == {"optimizer.learning_rate": 1.0, "optimizer.clip": 2.0}
