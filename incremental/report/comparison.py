"""The comparison behind every format: rows of runs, their means over seeds, and tests against a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from incremental.errors import UserError
from incremental.report.direction import is_quality
from incremental.report.factors import Factors, Group, chosen, order
from incremental.report.runs import Run
from incremental.report.settings import Settings
from incremental.report.statistics import Estimate, estimate, holm, paired_p, same_difference

SIGNIFICANT = 0.05

# Rows and models that are a bound and not a competitor: they are tested against the baseline, but are never the best.
BOUNDS = {"oracle"}

# Costs that are wall time, which the lanes of one program share.
TIMES = ("seconds_per_update", "waited_per_update", "wall_per_update", "compile_seconds", "base_seconds")


class Comparison(NamedTuple):
    """A row against the baseline, over the seeds that both have: mean difference, raw p and Holm's p.

    ``same`` says that every seed gives the same difference, where there is no test.
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
    the numbers of runs that shared the seconds; where there are several, ``cost`` has no seconds. ``apart`` are the
    seconds (`TIMES`) that are not comparable with the baseline's, of other lanes.
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
    apart: frozenset[str]


@dataclass(frozen=True)
class Table:
    """What the formats render. Without column factors there is one column, named "".

    ``after``: increments up to it are left out of the qualities. ``titles`` has what stands for the name of a metric
    or measure, where it is not the name itself.
    """

    metrics: Sequence[str]
    baseline: str
    rows: Sequence[Row]
    columns: Sequence[str]
    row_factors: Sequence[str]
    column_factors: Sequence[str]
    sensitivity: str | None
    after: int = 0
    notes: Sequence[str] = ()
    titles: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The rows' labels, from the top."""
        return list(dict.fromkeys(row.label for row in self.rows))

    def of(self, column: str) -> list[Row]:
        """The rows of a column, from the top."""
        return [row for row in self.rows if row.column == column]

    def title(self, name: str) -> str:
        """What stands for a metric or measure."""
        return self.titles.get(name, name)


def compare(
    runs: Sequence[Run],
    *,
    metrics: Sequence[str],
    baseline: str | None,
    rows: Sequence[str],
    columns: Sequence[str],
    sensitivity: str | None,
    after: int,
    labels: Mapping[str, str],
) -> Table:
    """The numbers of :func:`incremental.report.table`, without its notes."""
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
    places = list(by_column)
    renamed = _renamed(found, labels)
    found = [_named(row, renamed) for row in found]
    places = [renamed.get(place, place) for place in places]
    height = _heights(found, wanted[0], "line"), _heights(found, wanted[0], "label")
    found.sort(
        key=lambda row: (
            # The lines of a sensitivity stay together, from its lowest value to the highest.
            *((-height[0][row.line], row.line, order(row.factors, [sensitivity])) if sensitivity else ()),
            -height[1][row.label],
            row.label,
            places.index(row.column),
        )
    )
    titles = {name: title for name, title in labels.items() if name not in renamed}
    return Table(
        wanted,
        renamed.get(reference, reference),
        found,
        places,
        factors.rows,
        factors.columns,
        sensitivity,
        after,
        titles=titles,
    )


def _renamed(rows: Sequence[Row], labels: Mapping[str, str]) -> dict[str, str]:
    """The ``labels`` of rows and columns; the others are titles. Two rows or two columns of one name are refused."""
    for names in ({row.label for row in rows}, {row.column for row in rows}):
        new = [labels.get(name, name) for name in names]
        if twice := sorted({name for name in new if new.count(name) > 1}):
            raise UserError(f"--label: {twice[0]} would stand for several rows or columns; choose another")
    known = {name for row in rows for name in (row.label, row.line, row.column)}
    measures = {name for row in rows for part in (row.cost, row.quality, *row.quality.values()) for name in part}
    for name in labels:
        if name not in known | measures | {"p", "seeds", "strategy"}:
            raise UserError(
                f"--label {name}=...: nothing has this name; rows and columns are {', '.join(sorted(known - {''}))}; "
                f"metrics and measures are {', '.join(sorted(measures))}, p, seeds"
            )
    return {name: label for name, label in labels.items() if name in known}


def _named(row: Row, names: Mapping[str, str]) -> Row:
    """The row under its names; its factors are those that the CSV shows."""
    factors = {key: names.get(value, value) if isinstance(value, str) else value for key, value in row.factors.items()}
    label, column, line = (names.get(name, name) for name in (row.label, row.column, row.line))
    return replace(row, label=label, column=column, line=line, factors=factors)


def is_bound(run: Run) -> bool:
    """Whether a run is a bound, whatever its row is called, as in a study."""
    return run.row in BOUNDS or run.settings.get("model") in BOUNDS


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
            frozenset(time for time in TIMES if _spent(group.runs, time))
            if len(of_baseline) > 1 or lanes[group.label] != of_baseline
            else frozenset(),
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
    means = {label: sum(v) / len(v) for label, v in values.items() if v and not is_bound(groups[label][0])}
    if len(means) < 2 or not is_quality(metric):
        return None
    best = max(means, key=means.__getitem__)
    differences = [_differences(groups[best], groups[label], metric) for label in means if label != best]
    corrected = holm([paired_p(pairs) for pairs in differences])
    above = all(sum(pairs) > 0 for pairs in differences)
    return best if above and all(p is not None and p < SIGNIFICANT for p in corrected) else None
