"""The laws: each yields, in plain words, what breaks and what that means for an experiment."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from incremental.core.problem import Model
from incremental.core.strategy import Strategy
from incremental.testing import hooks, kinds, memories, shapes, training
from incremental.testing.subject import Path, Subject

Kind = Literal["penalty", "memory", "distillation", "projection", "isolation", "policy"]


def laws(
    subject: Subject, of: Sequence[Kind], off: Mapping[str, Any] | None, keeps: str, draws: str, freezes: bool
) -> Iterator[str]:
    """What breaks, in words; first what needs no further program, last the laws whose programs are largest."""
    paths = subject.run()
    plain = _plain(subject.model)
    yield from training.finite(paths)
    yield from training.level(subject, paths, plain)
    if not freezes:
        yield from training.learns(subject, paths, off)
    yield from training.effect(subject, paths, plain, off)
    yield from shapes.padding(subject, paths)
    yield from memories.rows_as_offered(subject, paths)
    yield from hooks.reports(subject, paths)
    yield from kinds.constant_within(paths, anchors="penalty" in of)
    if "isolation" in of:
        yield from kinds.isolation(paths, plain)
    if "policy" in of:
        yield from kinds.policy(paths)
    yield from training.fill(subject, paths)
    if "penalty" in of:
        yield from kinds.penalty(subject, paths)
    if "distillation" in of:
        yield from kinds.distillation(subject, paths)
    if "projection" in of:
        yield from kinds.projection(subject, paths)
    if "memory" in of:
        yield from memories.memory_of_rows(subject, paths, keeps, draws)
    yield from hooks.draws_of_gradients(subject, paths)
    yield from hooks.corrections(subject, paths)
    yield from shapes.lanes_and_growth(subject, paths)


_runs: dict[int, tuple[Model, list[Path]]] = {}  # by the model's identity; each holds its model, so that no id returns


def _plain(model: Model) -> list[Path]:
    """Plain fine-tuning; a model is trained once."""
    if id(model) not in _runs:
        _runs[id(model)] = model, Subject(lambda _problem: Strategy(), {}, model).run()
    return _runs[id(model)][1]
