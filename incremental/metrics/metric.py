"""A metric of your own: what a factory in `evaluation.metrics` returns."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from incremental.errors import UserError


class Catalogue(NamedTuple):
    """The items as the test on increment t finds them.

    Attributes:
        names: [V] of the source; id 0 is padding
        events: [V] training events of each before t, whatever a policy trained on
        candidates: [V] items that could be recommended
        new: [V] items without a training event, and those whose first one is of increment t - 1, if that is not the
            base part
    """

    names: Sequence[str]
    events: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.bool_]
    new: npt.NDArray[np.bool_]


class Metric(NamedTuple):
    """A metric of your own.

    Attributes:
        name: in files and tables, such as "novelty@10"; letters, digits and @ . + - _
        measure: (ranks [N] float32, recommended, catalogue, rows) -> a value for each event [N], or one number.
            `ranks`: of each event's label, 0 the first, ties counted as half, inf where it is no candidate.
            `recommended`: for each K of the other metrics how often [V] each item was among the first K of an event.
            `rows`: the N events as `incremental.data.features.Examples` (`event`, `user`, `label`, `increment`,
            `past`). Values for each event are averaged over all of them and over the groups (cold users, cold items,
            rare items); NaN is an event that the metric says nothing of. A number stands as it is.
        k: the K that it reads of `recommended` or of "lists"; None: those of the other metrics will do
        reads: what `measure` takes as a fifth argument, arrays by name; nothing is made of what no metric reads:
            "lists" [N, k] int32, an event's first items, best first, 0 where there are fewer;
            "past" [N, L] int32, the items of the user's last L events before, 0 where there is none, whatever a model
            knows of them;
            "text" [V, F] float, the items' vectors (`data.text`), 0 where an item has no text;
            any kind of ids of the data, such as "category" [V] int32: that of the item's first event that has one, 0
            where none has.
        whole: whether it needs every event of a test, as where it goes by a user's events: a sample of them
            (`evaluation.events`) is then refused
    """

    name: str
    measure: Callable[..., Any]
    k: int | None = None
    reads: tuple[str, ...] = ()
    whole: bool = False

    def __str__(self) -> str:
        return self.name


def check(metrics: Sequence[str | Metric]) -> None:
    """Refuses names that a table cannot have, a name given twice, and a first metric of one's own."""
    if metrics and isinstance(metrics[0], Metric):
        raise UserError(
            f"evaluation.metrics: {metrics[0]} is the first; the first is what sweeps and drift policies read, and "
            "must be one of recall@K, hit@K, ndcg@K, mrr@K"
        )
    names = [str(metric) for metric in metrics]
    for metric in metrics:
        if isinstance(metric, Metric) and not re.fullmatch(r"[\w@.+-]+", metric.name):
            raise UserError(f"evaluation.metrics: the name {metric.name!r} may have letters, digits and @ . + - _ only")
        if names.count(str(metric)) > 1:
            raise UserError(f"evaluation.metrics: {metric} is there twice")
