"""What numbers a factory takes: bounds that stand in its signature, in the words of `annotated-types`.

    def lwf(problem, *, weight: NotNegative = 1.0, temperature: Positive = 2.0)

The configuration reads them from there (`incremental.app.config`), `checked` refuses the same numbers in a call from
Python, and the help of a command shows them. A number of a kind of its own is annotated in place:
`Annotated[int, Ge(2)]`. A finite number has an open bound at infinity.
"""

import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

from annotated_types import Ge, Gt, Le, Lt

from incremental.errors import UserError

Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0), Lt(math.inf)]
NotNegative = Annotated[float, Ge(0), Lt(math.inf)]
Finite = Annotated[float, Gt(-math.inf), Lt(math.inf)]
Share = Annotated[float, Ge(0), Le(1)]
ShareBelow1 = Annotated[float, Ge(0), Lt(1)]
"""1 would leave nothing over, or divide by 0"""
InnerShare = Annotated[float, Gt(0), Lt(1)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""what tells two of JAX's keys apart: larger numbers are taken modulo 2^32"""
AtLeast1 = Annotated[float, Ge(1), Lt(math.inf)]

SIGNS = {Gt: (">", operator.gt), Ge: (">=", operator.ge), Lt: ("<", operator.lt), Le: ("<=", operator.le)}
NAMES = {Gt: "gt", Ge: "ge", Lt: "lt", Le: "le"}
P = ParamSpec("P")
R = TypeVar("R")


def is_bounded(kind: Any) -> bool:
    """Whether an annotation is a number with bounds."""
    return typing.get_origin(kind) is Annotated and bool(bounds(kind))


def bounds(kind: Any) -> list[tuple[str, Callable[[Any, Any], bool], Any]]:
    """The bounds of an annotation: the sign, the comparison that holds for a value inside, the limit."""
    marks = typing.get_args(kind)[1:]
    return [(*SIGNS[type(mark)], getattr(mark, NAMES[type(mark)])) for mark in marks if type(mark) in SIGNS]


def inside(value: float, kind: Any) -> bool:
    """Whether a number lies within the bounds of its annotation; NaN lies in none."""
    return all(holds(value, limit) for _, holds, limit in bounds(kind))


def told(kind: Any, *, finite: bool = False) -> str:
    """The domain in words; that it is finite only where that is the point.

    >>> told(Share), told(Positive), told(Count), told(Positive, finite=True)
    ('a number from 0 to 1', 'a number > 0', 'a whole number >= 1', 'a finite number > 0')
    """
    limits = [(sign, limit) for sign, _, limit in bounds(kind) if not math.isinf(limit)]
    number = "whole number" if typing.get_args(kind)[0] is int else "number"
    number = f"finite {number}" if finite or not limits else number
    if [sign for sign, _ in limits] == [">=", "<="]:
        return f"a {number} from {limits[0][1]} to {limits[1][1]}"
    return " ".join([f"a {number}", " and ".join(f"{sign} {limit}" for sign, limit in limits)]).strip()


def checked(factory: Callable[P, R]) -> Callable[P, R]:
    """The factory, which raises a UserError for a keyword's number outside of its bounds.

    A number without a value yet, of a sweep's lane, passes: the lane's own was checked before.
    """

    @functools.wraps(factory)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for key, value in kwargs.items():
            numbers: Sequence[Any] = value if isinstance(value, tuple | list) else [value]
            kinds = among(key)
            for number in numbers if kinds else ():
                if isinstance(number, int | float) and not isinstance(number, bool):
                    refuse(f"{name}: {key}", number, kinds)
        return factory(*args, **kwargs)

    @functools.cache
    def among(key: str) -> list[Any]:
        parameter = inspect.signature(factory, eval_str=True).parameters.get(key)
        return [] if parameter is None else numeric(parameter.annotation)

    name = getattr(factory, "__name__", str(factory))
    return call


def refuse(where: str, number: float, kinds: Sequence[Any]) -> None:
    """Raises a UserError for a number that lies in none of the `kinds`."""
    if not any(inside(number, kind) for kind in kinds):
        expected = " or ".join(told(kind, finite=math.isinf(number)) for kind in kinds)
        raise UserError(f"{where}={number}: expected {expected}")


def numeric(kind: Any) -> list[Any]:
    """The numbers in an annotation: those with bounds, and `int` and `float` where they have none."""
    if kind in (int, float) or is_bounded(kind):
        return [kind]
    if typing.get_origin(kind) in (typing.Union, types.UnionType, tuple, list):
        return [number for part in typing.get_args(kind) for number in numeric(part)]
    return []
