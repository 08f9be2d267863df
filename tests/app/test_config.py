"""The signature is the schema: a wrong key or value is an error that names it and says what is allowed."""

import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from incremental.app import config
from incremental.core.problem import Head
from incremental.errors import UserError
from incremental.run.policy import Update

HERE = __name__


class Penalty(NamedTuple):
    problem: str
    weight: float
    samples: int


def ewc(problem: str, *, weight: float = 1.0, samples: int = 1024) -> Penalty:
    return Penalty(problem, weight, samples)


def source(*, path: Path, columns: list[str] | None = None, order: Literal["time", "file"] = "time") -> dict:
    return {"path": path, "columns": columns, "order": order}


def shift(x: float, *, by: float) -> float:
    return x + by


def stream(
    *,
    cut: Callable[[float], float],
    inner: Any = None,
    penalties: Mapping[str, Callable[[str], Penalty]] | None = None,
    widths: tuple[int, ...] = (),
    bounds: tuple[float, float] = (0.0, 1.0),
    rate: float | int | None = None,
    flag: bool = False,
    made: Penalty | None = None,
) -> dict:
    return dict(locals())


def ready(*, weight: float = 1.0) -> Penalty:
    return Penalty("ready", weight, 0)


def nothing(problem: str) -> str:
    return problem


def node(name: str, **keys: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.{name}", **keys}


def refusal(build: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        build()
    return str(error.value)


CUT = {"cut": {"_target_": f"{HERE}.shift", "by": 2}}


def test_build_binds_keys_and_leaves_positional_parameters_to_the_program() -> None:
    assert config.build(node("ewc", samples=3), "strategies.anchor", "p") == Penalty("p", 1.0, 3)
    assert config.partial(node("ewc"), "s")("q") == Penalty("q", 1.0, 1024)
    assert config.build(node("ewc"), "s", "p", weight=7.0) == Penalty("p", 7.0, 1024)


def test_an_int_becomes_a_float_where_the_annotation_says_float() -> None:
    weight = config.build(node("ewc", weight=10), "strategies.anchor", "p").weight
    assert weight == 10.0
    assert type(weight) is float
    assert type(config.build(node("stream", **CUT, rate=3), "data")["rate"]) is int
    assert math.isinf(config.build(node("ewc", weight=math.inf), "s", "p").weight)


def test_unknown_key_names_it_and_what_is_taken() -> None:
    text = refusal(lambda: config.build(node("ewc", wieght=1), "strategies.anchor", "p"))
    assert text == (
        "strategies.anchor.wieght: unknown key; ewc takes weight (float), samples (int); did you mean weight?"
    )
    assert refusal(lambda: config.partial(node("nothing", k=1), "s")) == ("s.k: unknown key; nothing takes no keys")
    # A positional parameter is the program's, not a key.
    assert "s.problem: unknown key" in refusal(lambda: config.partial(node("ewc", problem="p"), "s"))


@pytest.mark.parametrize(
    ("factory", "key", "value", "expected"),
    [
        ("ewc", "weight", "ten", "expected float, got 'ten' (str)"),
        ("ewc", "weight", True, "expected float, got True (bool)"),
        ("ewc", "weight", None, "expected float, got None (NoneType)"),
        ("ewc", "weight", math.nan, "expected float, got nan (float)"),
        ("ewc", "samples", 1.5, "expected int, got 1.5 (float)"),
        ("ewc", "samples", True, "expected int, got True (bool)"),
        (
            "source",
            "path",
            3,
            "expected a path, got 3 (int); a text that looks like a number is given in quotes: 'a.b.path=\"3\"'",
        ),
        (
            "source",
            "columns",
            "user",
            "expected list[str] or null, got 'user' (str); a list is given in brackets: 'a.b.columns=[user]'",
        ),
        ("source", "columns", ["user", 1], "expected list[str] or null, got ['user', 1] (list)"),
        ("source", "order", "tmie", "expected time or file, got 'tmie' (str); did you mean time?"),
        ("stream", "cut", 3, "expected a node with _target_, got 3 (int)"),
        ("stream", "widths", [1, "2"], "expected list[int, ...], got [1, '2'] (list)"),
        ("stream", "bounds", [1, 2, 3], "expected list[float, float], got [1, 2, 3] (list)"),
        ("stream", "flag", 1, "expected bool, got 1 (int)"),
        ("stream", "rate", "x", "expected float or int or null, got 'x' (str)"),
        ("stream", "made", 1, "expected a node whose _target_ makes a Penalty or null, got 1 (int)"),
        ("stream", "penalties", [1], "expected dict[str, a node with _target_] or null, got [1] (list)"),
    ],
)
def test_wrong_value_names_the_key_the_value_and_what_is_allowed(
    factory: str, key: str, value: object, expected: str
) -> None:
    assert refusal(lambda: config.partial(node(factory, **{key: value}), "a.b")) == f"a.b.{key}: {expected}"


def test_values_are_converted_through_containers_and_unions() -> None:
    built = config.build(node("stream", **CUT, widths=[3, 4], bounds=[1, 2], rate=None), "data")
    assert built["widths"] == (3, 4)
    assert built["bounds"] == (1.0, 2.0)
    assert {type(bound) for bound in built["bounds"]} == {float}
    assert built["rate"] is None
    made = config.build(node("source", path="a.csv", columns=["u", "i"], order="file"), "data.source")
    assert made == {"path": Path("a.csv"), "columns": ["u", "i"], "order": "file"}


def test_nested_nodes_are_built_and_open_factories_stay_functions() -> None:
    inner = {"deep": [node("shift", by=5)]}
    penalties = {"anchor": node("ewc", weight=2)}
    built = config.build(node("stream", **CUT, inner=inner, penalties=penalties, made=node("ready")), "data")
    assert built["cut"](1.0) == 3.0
    assert built["inner"]["deep"][0](1.0) == 6.0
    assert built["penalties"]["anchor"]("p") == Penalty("p", 2.0, 1024)
    assert built["made"] == Penalty("ready", 1.0, 0)


def test_errors_in_nested_nodes_carry_the_whole_key() -> None:
    assert refusal(lambda: config.build(node("stream", cut=node("shift", bye=1)), "data")) == (
        "data.cut.bye: unknown key; shift takes by (float); did you mean by?"
    )
    penalties = {"anchor": node("ewc", samples="many")}
    assert refusal(lambda: config.build(node("stream", **CUT, penalties=penalties), "data")) == (
        "data.penalties.anchor.samples: expected int, got 'many' (str)"
    )
    assert refusal(lambda: config.build(node("stream", **CUT, inner=[node("ewc", weight="???")]), "data")) == (
        "data.inner[0].weight: a value is needed; give it as data.inner[0].weight=..."
    )
    assert refusal(lambda: config.build(node("stream", **CUT, made=node("source", path="x")), "data")) == (
        f"data.made: {HERE}.source makes a dict, where the config needs a node whose _target_ makes a Penalty"
    )


def test_a_value_that_must_be_given() -> None:
    assert refusal(lambda: config.build(node("source", path="???"), "data.source")) == (
        "data.source.path: a value is needed; give it as data.source.path=..."
    )
    assert refusal(lambda: config.build(node("source"), "data.source")) == (
        "data.source.path: a value is needed (a path); give it as ++data.source.path=..."
    )


def test_what_the_program_provides_is_not_for_the_config() -> None:
    text = refusal(lambda: config.build(node("ewc", weight=1), "s", "p", weight=2.0))
    assert text == "s.weight: set by the program, not by the config; remove it"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (f"{HERE}.ewcc", f"{HERE} has no factory ewcc; it has "),
        (f"{HERE}.ewcc", "; did you mean ewc?"),
        ("incremental.app.confg.build", "no module incremental.app.confg; incremental.app has "),
        ("incremental.app.confg.build", "; did you mean config?"),
        ("no_such_package.ewc", "no module no_such_package"),
        ("ewc", "'ewc' is not a dotted name"),
        ("???", "a value is needed; give it as s._target_=..."),
    ],
)
def test_a_target_that_does_not_exist(target: str, expected: str) -> None:
    text = refusal(lambda: config.build({"_target_": target}, "s"))
    assert text.startswith("s._target_: ")
    assert expected in text


def test_a_module_that_needs_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(lambda: config.build({"_target_": "needs_more.make"}, "s")) == (
        "s._target_: needs_more needs the package a_package_nobody_has; install it"
    )


def test_what_is_not_a_node_or_does_not_fit() -> None:
    assert "s: expected a node with _target_" in refusal(lambda: config.build("ewc", "s"))
    assert "s: expected a node with _target_" in refusal(lambda: config.build({"weight": 1}, "s"))
    text = refusal(lambda: config.build(node("source", path="x"), "strategies.a", "problem"))
    assert text == f"strategies.a: {HERE}.source does not fit here: too many positional arguments"


def test_config_imports_no_jax() -> None:
    code = "import sys, incremental.app.config; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_factory_that_makes_something_else_is_refused() -> None:
    node = {"_target_": "incremental.core.optimizers.adam"}
    said = "optimizers.adam makes a GradientTransformationExtraArgs, where the configuration needs a Head or a Update"
    with pytest.raises(UserError, match=f"^head: incremental.core.{said}$"):
        config.build(node, "head", kind=(Head, Update))
