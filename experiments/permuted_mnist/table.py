"""Published against measured, as Markdown."""

import csv
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("accuracy", "forgetting", "worst forgetting", "LCA10")
ALLOWED = {"VAN": 4.0, "EWC": 3.0, "A-GEM": 1.0}  # of the accuracy, in points
MOST_FORGETTING = {"A-GEM": 0.08}
ORDER = ("VAN", "EWC", "A-GEM", "all at once")  # EWC and MAS are 1.5 points apart: a tie

Summary = Mapping[str, np.ndarray]
"""metric -> [seeds]"""


def published() -> dict[str, dict[str, tuple[float, float | None] | None]]:
    """row -> metric -> mean and standard deviation of five runs."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8") as file:
        lines = [*csv.DictReader(file)]

    def cell(line: Mapping[str, str], metric: str) -> tuple[float, float | None] | None:
        mean, std = line[metric], line[f"{metric} std"]
        return (float(mean), float(std) if std else None) if mean else None

    return {line["row"]: {metric: cell(line, metric) for metric in METRICS} for line in lines}


def path_of(out: Path, name: str, seeds: int) -> Path:
    """Where a row is kept."""
    return out / f"{seeds}_seeds" / f"{name.replace(' ', '_').lower()}.json"


def summary(cell: Mapping[str, Any]) -> Summary:
    """The row's metrics, a seed each; NaN where it has none.

    R[i, j] is the accuracy on task j at the end of task i, T tasks, Z_b the mean over the tasks of the accuracy on a
    task after its first b batches. Forgetting of j: max_{i < T-1} R[i, j] - R[T-1, j], its mean and its maximum over
    the tasks but the last. LCA10 = (Z_0/2 + Z_1 + … + Z_9 + Z_10/2) / 10, the trapezoid.
    """
    accuracy, start = np.array(cell["accuracy"], float), np.array(cell["start"], float)
    last = accuracy[:, -1]
    before = np.where(np.isnan(accuracy[:, :-1, :-1]), -np.inf, accuracy[:, :-1, :-1])
    best = before.max(1)
    lost = np.where(np.isfinite(best), best - last[:, :-1], np.nan)
    z = start.mean(1)
    return {
        "accuracy": 100 * last.mean(1),
        "forgetting": lost.mean(1),
        "worst forgetting": lost.max(1),
        "LCA10": np.trapezoid(z, axis=1) / (z.shape[1] - 1),
    }


def measured(out: Path, seeds: int) -> dict[str, tuple[Summary, float]]:
    """row -> metrics and seconds a seed, of the finished rows."""
    found = {}
    for name in published():
        path = path_of(out, name, seeds)
        if path.exists():
            cell = json.loads(path.read_text(encoding="utf-8"))
            found[name] = summary(cell), cell["seconds"] / len(cell["accuracy"])
    return found


def shown(metric: str, mean: float, std: float | None) -> str:
    """A mean and its standard deviation."""
    digits = 2 if metric == "accuracy" else 4
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def cells(metric: str, said: tuple[float, float | None] | None, values: np.ndarray | None) -> str:
    """Published | measured | difference."""
    told = "" if said is None else shown(metric, *said)
    if values is None or np.isnan(values).any():
        return f"{told} | | "
    mean = float(values.mean())
    digits = 2 if metric == "accuracy" else 4
    apart = "" if said is None else f"{mean - said[0]:+.{digits}f}"
    return f"{told} | {shown(metric, mean, float(values.std()))} | {apart}"


def within(name: str, found: Summary) -> list[str]:
    """The criteria that the row has, each with its answer."""
    said = published()[name]["accuracy"]
    lines = []
    if name in ALLOWED and said:
        apart = abs(float(found["accuracy"].mean()) - said[0])
        lines.append(
            f"- {name}: accuracy {apart:.2f} from the published one, at most {ALLOWED[name]:.2f}: "
            f"{'yes' if apart <= ALLOWED[name] else '**no**'}"
        )
    if name in MOST_FORGETTING:
        lost = float(found["forgetting"].mean())
        most = MOST_FORGETTING[name]
        lines.append(f"- {name}: forgetting {lost:.4f}, at most {most:.2f}: {'yes' if lost <= most else '**no**'}")
    return lines


def table(out: Path, seeds: int) -> str:
    """Everything that was measured."""
    found = measured(out, seeds)
    lines: list[str] = []
    for metric in METRICS:
        name = f"{metric}, percent" if metric == "accuracy" else metric
        lines += [
            f"\n{name}, mean ± standard deviation of {seeds} seeds (published: of 5):\n",
            "| row | published | measured | difference |" + (" a seed |" if metric == "accuracy" else ""),
            "|---|---|---|---|" + ("---|" if metric == "accuracy" else ""),
        ]
        for row, said in published().items():
            done = found.get(row)
            took = f" {done[1]:.0f} s |" if done else " not run |"
            own = cells(metric, said[metric], done[0][metric] if done else None)
            lines.append(f"| {row} | {own} |" + (took if metric == "accuracy" else ""))
    means = [(row, float(found[row][0]["accuracy"].mean())) for row in ORDER if row in found]
    lines += ["", *[line for row, (own, _) in found.items() for line in within(row, own)]]
    for (low, a), (high, b) in pairwise(means):
        lines.append(f"- {low} < {high}: {a:.2f} and {b:.2f}: {'yes' if a < b else '**no**'}")
    return "\n".join(lines)
