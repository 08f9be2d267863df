"""What a metric reads beside the ranks and the counts: the catalogue, the lists, the users' past, side tables, fields.

All of it is the stream's, the same for every row of a table, and made only where a metric reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from incremental.core.program import Program
from incremental.data.features import Examples, before
from incremental.data.past import firsts
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.metrics.metric import Catalogue, Metric

TEXT = "text"
"""the side table of `data.text`"""


def catalogue_of(stream: Stream, t: int, count: np.ndarray, candidates: np.ndarray) -> Catalogue:
    """The items as the test on increment t finds them; `count` [V] are their training events before."""
    older = count
    if t > 1:
        older = stream.trained(t - 1)
        older = np.pad(older, (0, len(count) - len(older)))
    return Catalogue(stream.labels, count, candidates, older == 0)


def given_to(metric: Metric, stream: Stream, t: int, rows: Examples, lists: Any) -> dict[str, Any]:
    """The arrays that the metric reads, by name; `lists` [N, K] as `Ranks` has them."""
    found: dict[str, Any] = {}
    for name in metric.reads:
        if name == "lists":
            found[name] = np.asarray(lists)[:, : metric.k]
        elif name == "past":
            every = np.ones(len(stream.label), bool)
            found[name] = before(stream.label, replace(rows, past=stream.past(rows.event, every)))
        elif name == TEXT:
            found[name] = stream.interactions.side[TEXT].values
        else:
            found[name] = field_of(stream, name, t)
    return found


def field_of(stream: Stream, kind: str, t: int) -> np.ndarray:
    """[V] int32: for each item the id of this kind at its first event that has one, up to the end of increment t."""
    last = stream.bounds(t)[1]
    ids, items = stream.interactions.ids(kind)[:last], stream.label[:last]
    return firsts(ids, items, stream.summary.fields.get(kind, items[:0]), len(stream.labels))


def refuse(metrics: Sequence[str | Metric], stream: Stream, program: Program) -> None:
    """A UserError where a metric reads what neither the data nor the program has."""
    for metric in (one for one in metrics if isinstance(one, Metric)):
        for name in metric.reads:
            if why := lacking(name, metric.k, stream, program):
                raise UserError(f"evaluation.metrics: {metric} reads {why}")


def lacking(name: str, k: int | None, stream: Stream, program: Program) -> str | None:
    """What is not there, and what to do; None: nothing."""
    kinds = [kind for kind in stream.interactions.kinds if kind not in ("item", "user")]
    side: Mapping[str, Any] = stream.interactions.side
    if name == "lists":
        if k is None:
            return "lists, but does not say how long they are: Metric(..., k=10)"
        if program.rank_lists is None:
            return "each event's first items, which the model's program does not keep: it needs rank_lists"
        return None
    if stream.task.labels != "item":
        return f"items, but what is predicted is a {stream.task.labels} (data.task); leave it out"
    if name == "past":
        return None
    if name == TEXT:
        vectors = side[TEXT].values if TEXT in side else None
        if vectors is None:
            return "the items' text vectors, but data.text=null; give +text@data.text=hashed_words, or a field of ids"
        if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
            return "the items' text vectors, but data.text makes tokens or states; give +text@data.text=encoded"
        return None
    if name not in kinds:
        there = ", ".join(kinds) or "none"
        return f"the field {name}, which the data does not have ({there}); give +data.source.kinds.{name}=COLUMN"
    return None
