"""Lines of evaluations.csv: what the ranks of an increment's test rows come to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from incremental.data.stream import Rows, Stream, belongs
from incremental.metrics import classes
from incremental.metrics.ranking import parse, per_event
from incremental.types import Catalogue, Ranks

RARE = 5  # training events: an item with at least one and fewer is rare


class Record(NamedTuple):
    """One line of evaluations.csv. `heldout/` metrics are entries of the matrix R, the others are prequential."""

    trained_until: int  # increment; 0 = the base part, -1 = untrained
    evaluated_on: int
    metric: str
    value: float
    events: int  # that it is the mean of


def cutoffs(metrics: Sequence[str]) -> tuple[int, ...]:
    """The K's of the metrics, each once."""
    return tuple(sorted({parse(metric)[1] for metric in metrics}))


def prequential(
    metrics: Sequence[str], stream: Stream, known: Catalogue, t: int, trained_until: int, rows: Rows, ranked: Ranks
) -> list[Record]:
    """Of all of increment t: the metrics, those of cold users, of cold and of rare items apart; coverage and popularity
    bias; where labels are behaviours, a report of each. `known` and `ranked` on the host or the device.
    """
    ranks, recommended = np.asarray(ranked.rank), np.asarray(ranked.recommended)
    users, seen, count = (np.asarray(part) for part in (known.users, known.seen, known.events))
    groups = {
        "": np.ones(len(rows), bool),
        "/cold_users": ~belongs(users, rows.user),
        "/cold_items": ~belongs(seen, rows.label),
        "/rare_items": belongs(seen & (count < RARE), rows.label),
    }
    records = []
    for metric in metrics:
        values = per_event(metric)(ranks)
        for name, group in groups.items():
            mean = float(values[group].mean()) if group.any() else float("nan")
            records.append(Record(trained_until, t, metric + name, mean, int(group.sum())))
    names = stream.interactions.items
    if stream.question is not None and len(rows):
        names = names[: stream.interactions.item[: stream.bounds(t)[1]].max() + 1]
        scores = np.asarray(ranked.scores)[:, : len(names)]
        lacking = len(names) - scores.shape[1]  # behaviours that t brings and the table has no room for
        scores = np.pad(scores, [(0, 0), (0, lacking)], constant_values=-np.inf)
        told = classes.report(scores, rows.label, names)
        records += [Record(trained_until, t, metric, value, events) for metric, (value, events) in told.items()]
    # Popularity bias: the mean percentile, by training events, of what is recommended (0.5 = none).
    order = np.argsort(np.argsort(count[seen], kind="stable"), kind="stable")
    percentile = order / max(len(order) - 1, 1)
    for k, given in zip(cutoffs(metrics), recommended, strict=True):
        shown = given[seen]
        bias = float((shown * percentile).sum() / max(shown.sum(), 1))
        records.append(Record(trained_until, t, f"coverage@{k}", float((shown > 0).mean()), len(rows)))
        records.append(Record(trained_until, t, f"popularity@{k}", bias, len(rows)))
    return records


def matrix_entries(metrics: Sequence[str], t: int, trained_until: int, ranks: np.ndarray) -> list[Record]:
    """R[trained_until, t] in every metric."""
    means = [float(per_event(metric)(ranks).mean()) if len(ranks) else float("nan") for metric in metrics]
    return [
        Record(trained_until, t, f"heldout/{metric}", mean, len(ranks))
        for metric, mean in zip(metrics, means, strict=True)
    ]
