"""Metrics by name: `novelty@10` is what `incremental.metrics.novelty` makes of K = 10."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from incremental import metrics as folder
from incremental.errors import UserError
from incremental.metrics import ranking
from incremental.metrics.metric import Metric


@cache
def factories() -> Mapping[str, Callable[..., Metric]]:
    """The factories of this folder by name, those that take a K: a file has the one that it is named by."""
    names = [each.name for each in pkgutil.iter_modules(folder.__path__)]
    modules = {name: importlib.import_module(f"{folder.__name__}.{name}") for name in names}
    found = {name: getattr(module, name) for name, module in modules.items() if hasattr(module, name)}
    return {name: factory for name, factory in found.items() if "k" in inspect.signature(factory).parameters}


def metric_named(name: str) -> str | Metric:
    """The metric of a name: itself where it is one of the label's rank (`incremental.metrics.ranking`).

    >>> metric_named("ndcg@10"), str(metric_named("novelty@10")), metric_named("diversity@5.category").reads
    ('ndcg@10', 'novelty@10', ('lists', 'category'))
    """
    if users := re.fullmatch(r"(users|last|first|sets)-(.+)", name):
        factory = "user_sets.user_sets" if users[1] == "sets" else "per_user.per_user"
        target = f",target:{users[1]}" if users[1] in ("last", "first") else ""
        raise UserError(
            f"evaluation.metrics: {name} is made by a node; write {{_target_:incremental.metrics.{factory},"
            f"of:{users[2]}{target}}}"
        )
    match = re.fullmatch(r"([a-z_]+)@([1-9][0-9]*)(?:\.(\w+))?", name)
    if match is None or match[1] in ranking.KINDS or match[1] not in factories():
        try:
            ranking.parse(name, [*ranking.KINDS, *factories()])
        except UserError as error:
            raise UserError(f"evaluation.metrics: {error}") from None
        return name
    make, k, of = factories()[match[1]], int(match[2]), match[3]
    takes = inspect.signature(make).parameters.get("of")
    if of and takes is None:
        raise UserError(f"evaluation.metrics: {name} reads no field; write {match[1]}@{k}")
    if not of and takes is not None and takes.default is takes.empty:
        raise UserError(f"evaluation.metrics: {name} needs a field of the items; write {name}.category, or what it is")
    return make(k=k, of=of) if of else make(k=k)


def resolved(metrics: Sequence[str | Metric]) -> tuple[str | Metric, ...]:
    """`metric_named`, where they are names."""
    return tuple(metric_named(metric) if isinstance(metric, str) else metric for metric in metrics)
