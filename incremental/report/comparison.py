"""The comparison behind every format: rows of runs, their means over seeds, and tests against a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from incremental.errors import UserError
from incremental.report.runs import Run
from incremental.report.statistics import Estimate, estimate, holm, paired_p, same_difference

SIGNIFICANT = 0.05

# Rows that are a bound and not a competitor: they are tested against the baseline, but are never the best.
BOUNDS = {"oracle"}


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
    """The runs that differ only in the seed. ``quality`` is by metric and then measure, where measured."""

    label: str
    runs: Sequence[Run]
    quality: Mapping[str, Mapping[str, Estimate]]
    cost: Mapping[str, Estimate]
    comparisons: Mapping[str, Comparison]


@dataclass(frozen=True)
class Table:
    """What the formats render. ``best`` has the label of each metric's best row where it is significant."""

    metrics: Sequence[str]
    baseline: str
    rows: Sequence[Row]
    best: Mapping[str, str]
    notes: Sequence[str]

    def __str__(self) -> str:
        from incremental.report.formats import terminal

        return terminal(self)


def table(
    runs: Sequence[Run],
    *,
    metrics: Sequence[str] = (),
    baseline: str | None = None,
) -> Table:
    """Compare ``runs`` by their prequential ``metrics`` (by default ndcg@10, or else the first there is).

    Rows are ordered by the mean of the first metric, highest first. Each is tested against ``baseline`` (by
    default finetune, or else the first row) by a paired t-test over the seeds both have, with Holm's
    correction over the rows of a metric. ``print`` the result, or give it to a function of
    ``incremental.report.formats``.

    >>> runs = [
    ...     Run(row, seed, {"ndcg@10": {"prequential": value}})
    ...     for row, values in {"finetune": [0.10, 0.12], "replay": [0.20, 0.24]}.items()
    ...     for seed, value in enumerate(values)
    ... ]
    >>> best = table(runs).rows[0]
    >>> best.label, round(best.quality["ndcg@10"]["prequential"].mean, 2), best.comparisons["ndcg@10"].pairs
    ('replay', 0.22, 2)
    """
    groups = _rows(runs)
    chosen = _metrics(runs, metrics)
    reference = _baseline(groups, baseline)
    comparisons = {metric: _against(reference, groups, metric) for metric in chosen}
    rows = [
        Row(
            label,
            group,
            {metric: _estimates([run.metrics.get(metric, {}) for run in group]) for metric in chosen},
            _estimates([run.cost for run in group]),
            {metric: comparisons[metric][label] for metric in chosen if label != reference},
        )
        for label, group in groups.items()
    ]
    rows.sort(key=lambda row: -_mean(row, chosen[0]))
    best = {metric: label for metric in chosen if (label := _best(groups, metric)) is not None}
    return Table(chosen, reference, rows, best, _notes(rows, chosen, reference, best))


def _rows(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by label, sorted by seed. Where two have one label and seed, the runs' names are the labels."""
    if not runs:
        raise UserError("no finished runs to compare")
    seeds = [(run.row, run.seed) for run in runs]
    by_row = len(set(seeds)) == len(seeds)
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault(run.row if by_row else run.name, []).append(run)
    for label, group in groups.items():
        for one, other in pairwise(group):
            if one.seed == other.seed:
                raise UserError(
                    f"two runs named {label!r} with seed {one.seed}: {one.directory} and {other.directory}. "
                    "Leave one out, or give them different names."
                )
    return groups


def _metrics(runs: Sequence[Run], asked: Sequence[str]) -> list[str]:
    available = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    for metric in asked:
        if metric not in available:
            raise UserError(f"no run has the metric {metric!r}; there is {', '.join(available) or 'none'}")
    if not available:
        raise UserError(f"the runs have no metrics; see {runs[0].directory}")
    default = "ndcg@10" if "ndcg@10" in available else available[0]
    return list(dict.fromkeys(asked)) or [default]


def _baseline(groups: Mapping[str, object], asked: str | None) -> str:
    if asked is None:
        return "finetune" if "finetune" in groups else next(iter(groups))
    if asked not in groups:
        raise UserError(f"no row is named {asked!r}, to be the baseline; there is {', '.join(groups)}")
    return asked


def _estimates(parts: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    """Mean of each number over the runs that measured it; one that no run measured is left out."""
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [v for part in parts if (v := part.get(name)) is not None] for name in names}
    return {name: estimate(measured) for name, measured in values.items() if measured}


def _values(group: Sequence[Run], metric: str) -> dict[int, float]:
    found = {run.seed: run.metrics.get(metric, {}).get("prequential") for run in group}
    return {seed: value for seed, value in found.items() if value is not None}


def _differences(group: Sequence[Run], other: Sequence[Run], metric: str) -> list[float]:
    """``group`` minus ``other`` over the seeds that both measured."""
    mine, theirs = _values(group, metric), _values(other, metric)
    return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]


def _against(baseline: str, groups: Mapping[str, Sequence[Run]], metric: str) -> dict[str, Comparison]:
    others = [label for label in groups if label != baseline]
    differences = [_differences(groups[label], groups[baseline], metric) for label in others]
    p_values = [paired_p(pairs) for pairs in differences]
    return {
        label: Comparison(estimate(pairs).mean, p, p_holm, len(pairs), same_difference(pairs))
        for label, pairs, p, p_holm in zip(others, differences, p_values, holm(p_values), strict=True)
    }


def _best(groups: Mapping[str, Sequence[Run]], metric: str) -> str | None:
    """The row of highest mean, if it is significantly above each other row (Holm over them); bounds apart."""
    values = {label: list(_values(group, metric).values()) for label, group in groups.items()}
    means = {label: sum(v) / len(v) for label, v in values.items() if v and label not in BOUNDS}
    # A bias towards popular items is neither good nor bad.
    if len(means) < 2 or metric.startswith("popularity"):
        return None
    best = max(means, key=means.__getitem__)
    differences = [_differences(groups[best], groups[label], metric) for label in means if label != best]
    corrected = holm([paired_p(pairs) for pairs in differences])
    above = all(sum(pairs) > 0 for pairs in differences)
    return best if above and all(p is not None and p < SIGNIFICANT for p in corrected) else None


def _mean(row: Row, metric: str) -> float:
    mean = row.quality[metric].get("prequential", Estimate(None, None, 0)).mean
    return float("-inf") if mean is None else mean


def _notes(rows: Sequence[Row], metrics: Sequence[str], baseline: str, best: Mapping[str, str]) -> list[str]:
    """What a reader must know to read the table, and what is unusual about these runs."""
    notes = [
        f"{', '.join(metrics)}: prequential, tested on each increment before training on it. Mean over seeds "
        f"± half-width of the 95 % t-interval; rows ordered by {metrics[0]}, highest first."
    ]
    if len(metrics) > 1:
        notes.append(f"What is not named after a metric, such as the slope, is of {metrics[0]}.")
    single = [row.label for row in rows if len(row.runs) == 1]
    if single:
        notes.append(f"One seed, so no interval and no test (–): {', '.join(single)}.")
    tests: dict[str, list[str]] = {}
    for metric in metrics:
        for note in _test_notes(rows, metric, baseline):
            tests.setdefault(note, []).append(metric)
    notes += [f"p ({', '.join(of)}): {note}" for note, of in tests.items()]
    if tests:
        notes.append(_best_note(best))
    if len({run.increments for row in rows for run in row.runs}) > 1:
        lengths = [f"{row.label} {'/'.join(_lengths(row))}" for row in rows]
        notes.append(f"The runs do not have the same number of increments: {', '.join(lengths)}.")
    return notes


def _test_notes(rows: Sequence[Row], metric: str, baseline: str) -> list[str]:
    compared = {row.label: row.comparisons[metric] for row in rows if row.label != baseline}
    pairs = {label: comparison.pairs for label, comparison in compared.items() if comparison.p is not None}
    if not pairs:
        return []
    counts = {count: [label for label in pairs if pairs[label] == count] for count in pairs.values()}
    if len(counts) == 1:
        seeds = f"the {next(iter(counts))} shared seeds"
    else:
        seeds = "the shared seeds (" + "; ".join(f"{n}: {', '.join(of)}" for n, of in counts.items()) + ")"
    notes = [
        f"paired t-test against {baseline} over {seeds}, Holm-corrected for {len(pairs)} "
        f"comparison{'s' * (len(pairs) > 1)}."
    ]
    same = [label for label in pairs if compared[label].same]
    if same:
        notes.append(
            f"every seed gives {', '.join(same)} the same difference to {baseline}, so that p is the limit "
            "of the test: 1 if the difference is zero, 0 if not."
        )
    return notes


def _best_note(best: Mapping[str, str]) -> str:
    rule = f"significantly above every other row (paired t-test, p < {SIGNIFICANT}, Holm)"
    apart = f"; bounds ({', '.join(sorted(BOUNDS))}) apart."
    return f"* and bold: {rule}{apart}" if best else f"No row is marked as best: none is {rule}{apart}"


def _lengths(row: Row) -> list[str]:
    return [str(length) for length in dict.fromkeys(run.increments for run in row.runs)]
