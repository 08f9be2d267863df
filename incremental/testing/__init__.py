"""Laws that every strategy keeps, checked on a tiny stream: for this project's own strategies and for anyone's plugin.

    check_strategy(my_package.mine, kind="penalty", off={"weight": 0.0})

says in plain words which law broke and what that means for an experiment. Memories, anchors and teachers are found by
their types (`incremental.core.types`), not by their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from incremental.core.problem import Model
from incremental.errors import UserError
from incremental.testing.laws import Kind, laws
from incremental.testing.subject import MODEL, Factory, Subject


class LawBroken(AssertionError):
    """One or several laws do not hold; the text says which, and what that means."""


def broken_laws(
    factory: Factory,
    *,
    kind: Kind | Sequence[Kind] = (),
    off: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    model: Model | None = None,
    keeps: Literal["uniform", "quota", "other"] = "uniform",
    draws: Literal["uniform", "other"] = "uniform",
    freezes: bool = False,
) -> Iterator[str]:
    """What `check_strategy` tells, one by one as it is found: who looks for one law does not wait for the others."""
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    for option, values, allowed in (
        ("kind", kinds, get_args(Kind)),
        ("keeps", (keeps,), ("uniform", "quota", "other")),
        ("draws", (draws,), ("uniform", "other")),
    ):
        if unknown := sorted(set(values) - set(allowed)):
            raise UserError(f"check_strategy: {option}={unknown}: expected of {', '.join(allowed)}")
    subject = Subject(factory, dict(arguments or {}), model or MODEL)
    untraced = list(subject.shapes())  # what does not trace cannot be run
    yield from untraced or laws(subject, kinds, off, keeps, draws, freezes)


def check_strategy(
    factory: Factory,
    *,
    kind: Kind | Sequence[Kind] = (),
    off: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    model: Model | None = None,
    keeps: Literal["uniform", "quota", "other"] = "uniform",
    draws: Literal["uniform", "other"] = "uniform",
    freezes: bool = False,
) -> None:
    """Raises `LawBroken` where `factory(problem, **arguments)` breaks a law of every strategy, or of its `kind`.

    `off` are the arguments under which it must be plain fine-tuning. `keeps` says what a memory promises: every row
    offered so far equally likely ("uniform"), proportional label quotas ("quota"), or something else; `draws`
    whether a batch's rows are uniform over the memory. `freezes` says that increments teach the model nothing by
    design. `model` is a small one; by default matrix factorisation of
    width 8. Every parameter annotated `float` is passed as a traced number.
    """
    broken = list(
        broken_laws(
            factory,
            kind=kind,
            off=off,
            arguments=arguments,
            model=model,
            keeps=keeps,
            draws=draws,
            freezes=freezes,
        )
    )
    if broken:
        name = getattr(factory, "__name__", "the strategy")
        raise LawBroken("\n".join([f"{name} breaks {len(broken)} law(s):", *(f"- {text}" for text in broken)]))
