"""The comparison behind every format: rows of runs, their means over seeds, and tests against a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from incremental.errors import UserError
from incremental.report.direction import is_quality
from incremental.report.factors import Factors, Group, chosen, order
from incremental.report.runs import Run
from incremental.report.settings import Settings
from incremental.report.statistics import Estimate, estimate, holm, paired_p, same_difference

SIGNIFICANT = 0.05

# Rows that are a bound and not a competitor: they are tested against the baseline, but are never the best.
BOUNDS = {"oracle"}

# Costs that are wall time, which the lanes of one program share.
TIMES = ("seconds_per_update", "compile_seconds", "base_seconds")


class Comparison(NamedTuple):
    """A row against the baseline, over the seeds that both have: mean difference, raw p and Holm's p.

    ``same`` says that every seed gives the same difference, where p is only the limit of the test.
    """

    difference: float | None
    p: float | None
    p_holm: float | None
    pairs: int
    same: bool


@dataclass(frozen=True)
class Row:
    """The runs of one row and column, which differ only in the seed.

    ``quality`` is by metric and then measure, where measured; ``comparisons`` with the baseline of the same
    column and ``best`` are by metric. ``line`` is the label without the sensitivity's hyper-parameter. ``lanes`` are
    the numbers of runs that shared the seconds; where there are several, ``cost`` has no seconds. ``apart``: the row's
    seconds are not comparable with the baseline's, of other lanes.
    """

    label: str
    column: str
    line: str
    factors: Settings
    runs: Sequence[Run]
    quality: Mapping[str, Mapping[str, Estimate]]
    cost: Mapping[str, Estimate]
    comparisons: Mapping[str, Comparison]
    best: frozenset[str]
    lanes: Sequence[int]
    apart: bool


@dataclass(frozen=True)
class Table:
    """What the formats render. Without column factors there is one column, named ""."""

    metrics: Sequence[str]
    baseline: str
    rows: Sequence[Row]
    columns: Sequence[str]
    row_factors: Sequence[str]
    column_factors: Sequence[str]
    sensitivity: str | None
    notes: Sequence[str]

    @property
    def labels(self) -> list[str]:
        """The rows' labels, from the top."""
        return list(dict.fromkeys(row.label for row in self.rows))

    def of(self, column: str) -> list[Row]:
        """The rows of a column, from the top."""
        return [row for row in self.rows if row.column == column]

    def __str__(self) -> str:
        from incremental.report.formats import terminal

        return terminal(self)


def table(
    runs: Sequence[Run],
    *,
    metrics: Sequence[str] = (),
    baseline: str | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    sensitivity: str | None = None,
    after: int = 0,
) -> Table:
    """Compare ``runs`` by their prequential ``metrics`` (by default ndcg@10, or else the first there is).

    ``rows`` and ``columns`` are dotted keys of the runs' configurations: a row, and a column, for each combination
    of their values (by default a row for each ``row``, or for each ``name`` where runs of one row share a seed).
    ``sensitivity`` is the key of a number: it becomes a row factor, and the page draws the metrics against it.
    Increments up to ``after`` are left out of the qualities: those that something was chosen on.

    Rows are ordered by the mean of the first metric, highest first. Each is tested against ``baseline`` (by
    default finetune, or else the first row) by a paired t-test over the seeds both have, with Holm's correction
    over the rows of a metric and column. ``print`` the result, or give it to a function of
    ``incremental.report.formats``.

    >>> runs = [
    ...     Run(row, seed, {"ndcg@10": {"prequential": value}})
    ...     for row, values in {"finetune": [0.10, 0.12], "replay": [0.20, 0.24]}.items()
    ...     for seed, value in enumerate(values)
    ... ]
    >>> best = table(runs).rows[0]
    >>> best.label, round(best.quality["ndcg@10"]["prequential"].mean, 2), best.comparisons["ndcg@10"].pairs
    ('replay', 0.22, 2)

    With the keys of the configuration as factors:

    >>> sweep = [
    ...     Run("ewc", 0, {"ndcg@10": {"prequential": value}}, config={"strategies": {"anchor": {"weight": weight}}})
    ...     for weight, value in {0.1: 0.11, 1.0: 0.13, 10.0: 0.12}.items()
    ... ]
    >>> [row.label for row in table(sweep, rows=["row", "strategies.anchor.weight"]).rows]
    ['ewc weight=1', 'ewc weight=10', 'ewc weight=0.1']
    >>> [row.label for row in table(sweep, sensitivity="strategies.anchor.weight").rows]  # by value
    ['ewc weight=0.1', 'ewc weight=1', 'ewc weight=10']
    """
    from incremental.report.notes import notes

    if not runs:
        raise UserError("no finished runs to compare")
    if after < 0:
        raise UserError(f"after={after}: expected the number of an increment, or 0")
    if after:
        runs = [run.after(after) for run in runs]
    wanted = _metrics(runs, metrics)
    factors = chosen(runs, rows, columns, sensitivity)
    groups = factors.group(runs)
    reference = _baseline(groups, baseline)
    by_column: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: order(group.factors, factors.columns)):
        by_column.setdefault(group.column, []).append(group)
    found = [row for column in by_column.values() for row in _column(column, wanted, reference, factors, sensitivity)]
    height = _heights(found, wanted[0], "line"), _heights(found, wanted[0], "label")
    places = list(by_column)
    found.sort(
        key=lambda row: (
            # The lines of a sensitivity stay together, from its lowest value to the highest.
            *((-height[0][row.line], row.line, order(row.factors, [sensitivity])) if sensitivity else ()),
            -height[1][row.label],
            row.label,
            places.index(row.column),
        )
    )
    return Table(
        wanted,
        reference,
        found,
        places,
        factors.rows,
        factors.columns,
        sensitivity,
        [*notes(found, groups, wanted, reference, sensitivity), *([_after(after)] if after else [])],
    )


def _after(increment: int) -> str:
    return (
        f"Only increments after {increment} count. What is of the matrix R (forgetting, transfer) is of the part of it "
        f"that begins with increment {increment + 1}. Seconds, examples and memory are of all updates."
    )


def prequential(row: Row, metric: str) -> float | None:
    """A row's mean over seeds and increments, None where not measured."""
    return row.quality[metric].get("prequential", Estimate(None, None, 0)).mean


def _column(
    groups: Sequence[Group], metrics: Sequence[str], baseline: str, factors: Factors, sensitivity: str | None
) -> list[Row]:
    lines = [key for key in factors.rows if key != sensitivity]
    runs = {group.label: group.runs for group in groups}
    comparisons = {metric: _against(baseline, runs, metric) for metric in metrics}
    best = {metric: _best(runs, metric) for metric in metrics}
    lanes = {label: sorted({run.lanes for run in same}) for label, same in runs.items()}
    of_baseline = lanes.get(baseline, lanes[groups[0].label])
    return [
        Row(
            group.label,
            group.column,
            factors.label(group.factors, lines),
            group.factors,
            group.runs,
            {metric: _estimates([run.metrics.get(metric, {}) for run in group.runs]) for metric in metrics},
            _costs(group.runs, lanes[group.label]),
            {metric: comparisons[metric][group.label] for metric in metrics if group.label != baseline},
            frozenset(metric for metric in metrics if best[metric] == group.label),
            lanes[group.label],
            (len(of_baseline) > 1 or lanes[group.label] != of_baseline) and _spent(group.runs, TIMES[0]),
        )
        for group in groups
    ]


def _heights(rows: Sequence[Row], metric: str, name: str) -> dict[str, float]:
    """Mean of ``metric`` over the rows with the same label or line."""
    means: dict[str, list[float]] = {}
    for row in rows:
        mean = prequential(row, metric)
        means.setdefault(getattr(row, name), []).extend([] if mean is None else [mean])
    return {text: sum(values) / len(values) if values else float("-inf") for text, values in means.items()}


def _metrics(runs: Sequence[Run], asked: Sequence[str]) -> list[str]:
    available = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    for metric in asked:
        if metric not in available:
            raise UserError(f"no run has the metric {metric!r}; there is {', '.join(available) or 'none'}")
    if not available:
        raise UserError(f"the runs have no metrics; see {runs[0].directory}")
    default = "ndcg@10" if "ndcg@10" in available else available[0]
    return list(dict.fromkeys(asked)) or [default]


def _baseline(groups: Sequence[Group], asked: str | None) -> str:
    labels = list(dict.fromkeys(group.label for group in groups))
    if asked is None:
        return next((group.label for group in groups if group.runs[0].row == "finetune"), labels[0])
    if asked not in labels:
        raise UserError(f"no row is named {asked!r}, to be the baseline; there is {'; '.join(labels)}")
    return asked


def _estimates(parts: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    """Mean of each number over the runs that measured it; one that no run measured is left out."""
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [v for part in parts if (v := part.get(name)) is not None] for name in names}
    return {name: estimate(measured) for name, measured in values.items() if measured}


def _costs(runs: Sequence[Run], lanes: Sequence[int]) -> dict[str, Estimate]:
    """Means of the costs; seconds of different lanes have none."""
    found = _estimates([run.cost for run in runs])
    mixed = TIMES if len(lanes) > 1 else ()
    return {name: cost for name, cost in found.items() if name not in mixed or not _spent(runs, name)}


def _spent(runs: Sequence[Run], time: str) -> bool:
    """Whether any run took time; no time is none, whoever shares it."""
    return any(run.cost.get(time) for run in runs)


def _values(group: Sequence[Run], metric: str) -> dict[int, float]:
    found = {run.seed: run.metrics.get(metric, {}).get("prequential") for run in group}
    return {seed: value for seed, value in found.items() if value is not None}


def _differences(group: Sequence[Run], other: Sequence[Run], metric: str) -> list[float]:
    """``group`` minus ``other`` over the seeds that both measured."""
    mine, theirs = _values(group, metric), _values(other, metric)
    return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]


def _against(baseline: str, groups: Mapping[str, Sequence[Run]], metric: str) -> dict[str, Comparison]:
    others = [label for label in groups if label != baseline]
    differences = [_differences(groups[label], groups.get(baseline, ()), metric) for label in others]
    p_values = [paired_p(pairs) for pairs in differences]
    return {
        label: Comparison(estimate(pairs).mean, p, p_holm, len(pairs), same_difference(pairs))
        for label, pairs, p, p_holm in zip(others, differences, p_values, holm(p_values), strict=True)
    }


def _best(groups: Mapping[str, Sequence[Run]], metric: str) -> str | None:
    """The row of highest mean, if it is significantly above each other row (Holm over them); bounds apart."""
    values = {label: list(_values(group, metric).values()) for label, group in groups.items()}
    means = {label: sum(v) / len(v) for label, v in values.items() if v and groups[label][0].row not in BOUNDS}
    if len(means) < 2 or not is_quality(metric):
        return None
    best = max(means, key=means.__getitem__)
    differences = [_differences(groups[best], groups[label], metric) for label in means if label != best]
    corrected = holm([paired_p(pairs) for pairs in differences])
    above = all(sum(pairs) > 0 for pairs in differences)
    return best if above and all(p is not None and p < SIGNIFICANT for p in corrected) else None
