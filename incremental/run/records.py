"""Lines of evaluations.csv: what the ranks of an increment's test rows come to."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from incremental.core.types import Ranks
from incremental.data.choosing import belongs
from incremental.data.features import Examples
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.metrics import classes
from incremental.metrics.continual import ERROR
from incremental.metrics.metric import Metric
from incremental.metrics.named import resolved
from incremental.metrics.ranking import parse, per_event
from incremental.run.progress import Record
from incremental.run.reading import catalogue_of, given_to

RARE = 5  # training events: an item with at least one and fewer is rare


Metrics = Sequence[str | Metric]
"""names, of `incremental.metrics.ranking` first, and metrics of one's own"""


def cutoffs(metrics: Metrics) -> tuple[int, ...]:
    """The K's of the metrics, each once; those of one's own may have none."""
    ks = (parse(metric)[1] if isinstance(metric, str) else metric.k for metric in resolved(metrics))
    return tuple(sorted({k for k in ks if k is not None}))


def prequential(
    metrics: Metrics,
    stream: Stream,
    t: int,
    trained_until: int,
    rows: Examples,
    ranked: Ranks,
    *,
    listed: bool = False,
) -> list[Record]:
    """Of all of increment t: the metrics, those of cold users, of cold and of rare items apart; coverage and popularity
    bias; where labels are behaviours, a report of each. `ranked` on the host or the device; with `listed` the items
    that t brings were candidates.

    Groups and percentiles are of what the stream's training events before t say, whatever a policy trained on: a table
    compares its rows on the same events. Behind the mean of a sample stands its standard error, as a metric of its own
    (`errors`).
    """
    ranks, recommended = np.asarray(ranked.rank), np.asarray(ranked.recommended)
    label, count, met = stream.label, stream.trained(t), stream.met(t)
    count = np.pad(count, (0, max(recommended.shape[1] - len(count), 0)))
    groups = {
        "": np.ones(len(rows), bool),
        "/cold_users": ~belongs(met, rows.user),
        "/cold_items": ~belongs(count > 0, rows.label),
        "/rare_items": belongs((count > 0) & (count < RARE), rows.label),
    }
    records = []
    for metric in (one for one in metrics if isinstance(one, str)):
        values = per_event(metric)(ranks)
        for name, group in groups.items():
            records.append(Record(trained_until, t, metric + name, mean(values[group]), int(group.sum())))
            records += errors(records[-1], values[group], rows)
    if stream.task.classes and len(rows):
        names = stream.labels[: stream.number(stream.task.labels, t)]  # those of events that were let go too
        scores = np.asarray(ranked.scores)[:, : len(names)]
        lacking = len(names) - scores.shape[1]  # behaviours that t brings and the table has no room for
        scores = np.pad(scores, [(0, 0), (0, lacking)], constant_values=-np.inf)
        told = classes.report(scores, rows.label, names)
        records += [Record(trained_until, t, metric, value, events) for metric, (value, events) in told.items()]
    new = np.isin(np.arange(len(count)), label[slice(*stream.bounds(t))]) if listed else np.zeros(len(count), bool)
    if stream.unseen_items == "known":
        new[1 : len(stream.labels)] = True
    candidates = (count > 0) | new
    percentile = percentiles(count[candidates])
    for k, given in zip(cutoffs(metrics), recommended, strict=True):
        shown = np.pad(given, (0, len(count) - len(given)))[candidates]
        bias = float(shown @ percentile / shown.sum()) if shown.any() else float("nan")
        coverage = mean(shown > 0) if len(rows) else float("nan")
        records.append(Record(trained_until, t, f"coverage@{k}", coverage, len(rows)))
        records.append(Record(trained_until, t, f"popularity@{k}", bias, len(rows)))
    counts = {
        k: np.pad(given, (0, len(count) - len(given))) for k, given in zip(cutoffs(metrics), recommended, strict=True)
    }
    more = [one for one in metrics if isinstance(one, Metric)]
    catalogue = catalogue_of(stream, t, count, candidates) if more else None
    for own in more:
        given = (given_to(own, stream, t, rows, ranked.lists),) if own.reads else ()
        values = np.asarray(own.measure(ranks, counts, catalogue, rows, *given), np.float64)
        if values.ndim == 0:
            records.append(Record(trained_until, t, own.name, float(values), len(rows)))
            continue
        if values.shape != (len(rows),):
            raise UserError(
                f"evaluation.metrics: {own.name} returned values of shape {values.shape}; expected one number, or "
                f"one for each of the {len(rows)} events"
            )
        for name, group in groups.items():
            said = group & ~np.isnan(values)
            records.append(Record(trained_until, t, own.name + name, mean(values[said]), int(said.sum())))
            records += errors(records[-1], values[said], rows)
    return records


def errors(of: Record, values: np.ndarray, rows: Examples) -> list[Record]:
    """The standard error of a record that is the mean of `values` [n], where the rows are a sample; else nothing.

    s / √n · √(1 - f), s with n - 1 below, f the share of the test's events that the sample has (Cochran 1977, 2.5 and
    2.12 for a group). It is 0 where all are in the sample, and not known of one event (nan).
    """
    if rows.of is None or not len(values):
        return []
    left = 1 - len(rows) / rows.of
    spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    value = spread * (left / len(values)) ** 0.5 if left else 0.0
    return [of._replace(metric=of.metric + ERROR, value=value)]


def percentiles(counts: np.ndarray) -> np.ndarray:
    """[n] float64 of counts [n]: the share of the others that are lower, equal ones counted as half; so 0.5 on average.

    The mean of what is recommended is its popularity bias, 0.5 where there is none.
    """
    return (pl.Series(counts).rank().to_numpy() - 1) / max(len(counts) - 1, 1)


def mean(values: np.ndarray) -> float:
    """nan of none."""
    return float(values.mean()) if len(values) else float("nan")


def matrix_entries(metrics: Metrics, t: int, trained_until: int, ranks: np.ndarray) -> list[Record]:
    """R[trained_until, t] in every metric but those of one's own."""
    return [
        Record(trained_until, t, f"heldout/{metric}", mean(per_event(metric)(ranks)), len(ranks))
        for metric in metrics
        if isinstance(metric, str)
    ]
