"""Published against measured, with the differences; the order of the splits; what updates in increments change."""

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

EVENTS = 198_502  # of Amazon Beauty: published figures belong to it
METRICS = ("ndcg@10", "recall@10")
TARGETS = {"last": "last-{}", "first": "first-{}", "users": "users-{}", "predictions": "{}"}
"""target -> the metric's name in a run; "users" and "predictions" are two means over the successive targets"""
MOST = {"leave_one_out": 5.0, "by_time": 10.0, "last_train_item": 10.0, "by_user": 10.0}
"""percent that one run may differ: the published seed's spread, as far as it is known, and what is known to differ"""
ORDER = ("leave_one_out", "by_user", "last_train_item", "by_time")  # published, from the highest


class Run(NamedTuple):
    """What a run directory is of."""

    split: str
    row: str
    update: str


Values = Mapping[str, float]
Published = Mapping[tuple[str, str, str, str], float]
"""(split, row, target, metric) -> value"""


@cache
def published() -> Published:
    """The figures of Amazon Beauty."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8") as file:
        return {
            (line["split"], line["row"], line["target"], metric): float(line[metric])
            for line in csv.DictReader(file)
            for metric in ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
            if line[metric]
        }


def published_of(folder: Path) -> Published:
    """The published figures of the file in a folder: none unless it is as long as Amazon Beauty's."""
    with (folder / "interactions.csv").open(encoding="utf-8") as file:
        return published() if sum(1 for _ in file) == EVENTS + 1 else {}


def measured(directory: Path) -> Values | None:
    """A finished run's metrics over all tested events of its increments; None of one that is not finished.

    Means over users are of single increments, and are there only where the run has one.
    """
    if not (directory / "summary.json").exists():
        return None
    found: dict[str, list[tuple[float, int]]] = {}
    with (directory / "evaluations.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if int(line["trained_until"]) == int(line["evaluated_on"]) - 1 and "/" not in line["metric"]:
                found.setdefault(line["metric"], []).append((float(line["value"]), int(line["count"])))
    per_event = [metric for metric in found if metric.split("@")[0] in ("recall", "ndcg")]
    one = len(found[METRICS[0]]) == 1
    mean = {}
    for metric in found if one else per_event:
        values, counts = zip(*found[metric], strict=True)
        mean[metric] = float(np.average(values, weights=counts))
    return mean


def by_run(runs: Sequence[tuple[Run, Path]]) -> dict[Run, list[Values]]:
    """The finished runs, seeds of one row together."""
    found: dict[Run, list[Values]] = {}
    for run, directory in runs:
        if (values := measured(directory)) is not None:
            found.setdefault(run, []).append(values)
    return found


def mean(values: Sequence[Values], metric: str) -> float | None:
    """Over the seeds, where all have it."""
    return float(np.mean([each[metric] for each in values])) if all(metric in each for each in values) else None


def number(value: float | None) -> str:
    """Four decimals, or nothing."""
    return "" if value is None else f"{value:.4f}"


def percent(value: float | None, wanted: float | None, most: float | None = None) -> str:
    """How far a value is from the one that is wanted, in bold where it is farther than `most`."""
    if value is None or not wanted:
        return ""
    apart = 100 * (value / wanted - 1)
    text = f"{apart:+.1f} %"
    return f"**{text}**" if most is not None and abs(apart) > most else text


def lines_of_rows(found: Mapping[Run, Sequence[Values]], known: Published) -> list[str]:
    """A line a split, row and target; of leave-one-out all targets are one."""
    lines = []
    for run, values in found.items():
        if run.update != "static":
            continue
        for target, name in TARGETS.items():
            if run.split == "leave_one_out" and target != "last":
                continue
            cells = [run.split, run.row, target, str(len(values))]
            for metric in reversed(METRICS):
                value, wanted = mean(values, name.format(metric)), known.get((*run[:2], target, metric))
                cells += [number(wanted), number(value), percent(value, wanted, MOST[run.split])]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def lines_of_order(found: Mapping[Run, Sequence[Values]]) -> list[str]:
    """Whether the published orders hold, on the last target, among what was run."""
    lines, rows = [], dict.fromkeys(run.row for run in found)
    for metric in METRICS:
        name = TARGETS["last"].format(metric)
        value = {run[:2]: mean(values, name) or 0.0 for run, values in found.items() if run.update == "static"}
        for row in rows:
            splits = [split for split in ORDER if (split, row) in value]
            for high, low in pairwise(splits):
                holds = "holds" if value[high, row] > value[low, row] else "**reversed**"
                lines.append(f"- {row}, {metric}: {high} > {low}: {holds}")
        for split in ORDER:
            ours = [row for row in rows if (split, row) in value]
            for high in [row for row in ours if row.startswith("sasrec")]:
                for low in [row for row in ours if row.startswith("gru4rec")]:
                    holds = "holds" if value[split, high] > value[split, low] else "**reversed**"
                    lines.append(f"- {split}, {metric}: {high} > {low}: {holds}")
    return lines


def lines_of_updates(found: Mapping[Run, Sequence[Values]]) -> list[str]:
    """A line a run with updates, beside the same model without, on the same test events."""
    lines = []
    for run, values in found.items():
        static = found.get(run._replace(update="static"))
        if run.update != "static" and static:
            cells = [run.split, run.row, run.update, str(len(values))]
            for metric in reversed(METRICS):
                before, after = mean(static, metric), mean(values, metric)
                cells += [number(before), number(after), percent(after, before)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def table(runs: Sequence[tuple[Run, Path]], known: Published, ties: str) -> str:
    """Everything that was measured, as Markdown; beside it what is published of the rule that says what was before."""
    found = by_run(runs)
    missing = len(runs) - sum(len(values) for values in found.values())
    heads = ["split", "row", "target", "seeds", "HR@10 published", "measured", "difference"]
    heads += ["NDCG@10 published", "measured", "difference"]
    lines = [f"\nties={ties}; bold: farther from the published number than allowed.\n"]
    lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *lines_of_rows(found, known)]
    if order := lines_of_order(found):
        lines += ["\nThe published order, last target:\n", *order]
    if updates := lines_of_updates(found):
        heads = ["split", "row", "update", "seeds", "HR@10 static", "updated", "difference"]
        heads += ["NDCG@10 static", "updated", "difference"]
        lines += ["\nThe same test in increments with updates, successive targets, over predictions.\n"]
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *updates]
    if missing:
        lines.append(f"\n{missing} of {len(runs)} runs are not finished.")
    return "\n".join(lines)
