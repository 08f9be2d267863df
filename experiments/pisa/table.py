"""Published against measured, with the differences, each block; the order static < others from block 1 on."""

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

EVENTS = 74_093  # of Amazon Games: published figures belong to it
METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
BLOCKS = range(5)  # block t is tested on increment t + 1
MEAN = 15.0  # percent that the mean over the blocks 1 to 4 may differ
BLOCK = {"static": 20.0, "finetune": 25.0}
"""percent that a block may differ, of one published seed; of other rows 20 at block 0"""

Curve = Sequence[float]
"""a value a block"""
Published = Mapping[tuple[str, str], Sequence[float | None]]


@cache
def published() -> Published:
    """The figures of Amazon Games."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8") as file:
        return {
            (line["row"], line["metric"]): [float(line[str(t)]) if line[str(t)] else None for t in BLOCKS]
            for line in csv.DictReader(file)
        }


def published_of(folder: Path) -> Published:
    """The published figures of the file in a folder: none unless it is as long as Amazon Games'."""
    with (folder / "interactions.csv").open(encoding="utf-8") as file:
        return published() if sum(1 for _ in file) == EVENTS + 1 else {}


def measured(directory: Path) -> dict[str, Curve] | None:
    """A finished run's metrics over users, by block; None of one that is not finished."""
    if not (directory / "summary.json").exists():
        return None
    found: dict[str, dict[int, float]] = {metric: {} for metric in METRICS}
    with (directory / "evaluations.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            t, metric = int(line["trained_until"]), line["metric"].removeprefix("sets-")
            if line["metric"] == f"sets-{metric}" and int(line["evaluated_on"]) == t + 1:
                found[metric][t] = float(line["value"])
    return {metric: [values[t] for t in BLOCKS] for metric, values in found.items()}


def by_row(runs: Sequence[tuple[str, Path]]) -> dict[str, list[dict[str, Curve]]]:
    """The finished runs, seeds of one row together."""
    found: dict[str, list[dict[str, Curve]]] = {}
    for row, directory in runs:
        if (curves := measured(directory)) is not None:
            found.setdefault(row, []).append(curves)
    return found


def apart(value: float, wanted: float | None, most: float | None) -> str:
    """What is published, and how far the value is from it, in bold where it is farther than `most` percent."""
    if wanted is None:
        return ""
    percent = 100 * (value / wanted - 1)
    text = f"{percent:+.0f} %"
    return f" ({wanted:.4f}, {f'**{text}**' if most is not None and abs(percent) > most else text})"


def line(row: str, metric: str, curves: Sequence[Mapping[str, Curve]], known: Published) -> str:
    """A row's mean over its seeds in each block and over the blocks 1 to 4, each with what is published."""
    values = np.array([each[metric] for each in curves])
    wanted = known.get((row, metric), [None] * len(BLOCKS))
    cells = [row, str(len(values))]
    for t in BLOCKS:
        most = BLOCK.get(row) if t in (0, 1) or row == "static" else None
        cells.append(f"{values[:, t].mean():.4f}{apart(values[:, t].mean(), wanted[t], 20.0 if t == 0 else most)}")
    means, later = values[:, 1:].mean(1), [each for each in wanted[1:] if each is not None]
    spread = f" ± {means.std(ddof=1):.4f}" if len(means) > 1 else ""
    theirs = float(np.mean(later)) if len(later) == len(BLOCKS) - 1 else None
    cells.append(f"{means.mean():.4f}{spread}{apart(float(means.mean()), theirs, MEAN)}")
    return f"| {' | '.join(cells)} |"


def order(found: Mapping[str, Sequence[Mapping[str, Curve]]], metric: str) -> list[str]:
    """In which blocks from 1 on the static row is below each other row, by the means over the seeds."""
    if "static" not in found:
        return []
    low = np.mean([each[metric] for each in found["static"]], 0)
    lines = []
    for row, curves in found.items():
        if row != "static":
            high = np.mean([each[metric] for each in curves], 0)
            fails = [str(t) for t in BLOCKS[1:] if high[t] <= low[t]]
            lines.append(f"- static < {row}: {'holds' if not fails else '**not in block ' + ', '.join(fails) + '**'}")
    return lines


def table(runs: Sequence[tuple[str, Path]], known: Published) -> str:
    """Everything that was measured, as Markdown; in brackets what is published, and the difference."""
    found = by_row(runs)
    lines = []
    for metric in METRICS:
        lines += [
            f"\n{metric}, mean over users; in brackets what is published, and how far the measured mean is from it.\n"
        ]
        lines += [
            f"| row | seeds | block {' | '.join(map(str, BLOCKS))} | mean of 1–4 |",
            "|" + "---|" * (3 + len(BLOCKS)),
        ]
        lines += [line(row, metric, curves, known) for row, curves in found.items()]
    for metric in METRICS:
        lines += [f"\nThe order, {metric}, blocks 1 to 4:\n", *order(found, metric)]
    missing = len(runs) - sum(len(curves) for curves in found.values())
    if missing:
        lines.append(f"\n{missing} of {len(runs)} runs are not finished.")
    return "\n".join(lines)
