"""Published against measured: the rows' means and their differences to Dropout, each period, the order and the cost."""

import csv
import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from incremental.data.sources.diginetica import diginetica
from incremental.report.numbers import seconds, size, whole
from incremental.report.pictures.drawing import COLOURS, LINES, MARKERS, WIDTH, handles, legend

METRICS = ("recall@20", "mrr@20")
MOST = {"recall@20": (1.0, 1.5), "mrr@20": (0.6, 0.9)}  # allowed differences: of all periods' mean, of one period
APART = 1.0  # allowed difference between a row's distances to Dropout, published and measured, in Recall@20
LAST = 16
CURVES = ("Finetune", "Dropout", "EWC", "Joint", "ADER")  # the rows whose periods are published
ORDER = ("ADER", "Dropout", "Finetune")

# The files that the published figures belong to, by their first period: clicks, sessions, items. A folder's name says
# nothing of what lies in it.
DIGINETICA = (70_739, 15_076, 18_569)

Curve = Mapping[int, float]  # period -> percent
Published = Mapping[tuple[str, str], tuple[float, Curve]]
"""(row, metric) -> the mean over the 16 periods, and those that are published one by one"""


class Cell(NamedTuple):
    """One run."""

    seed: str
    curves: Mapping[str, Curve]
    cost: Mapping[str, float] | None
    """None until the run is finished"""


class Asked(NamedTuple):
    """What the rows were to run."""

    seeds: int = 1
    periods: int | None = None
    """None: all"""


Found = Mapping[str, Sequence[Cell]]


@cache
def published() -> Published:
    """The figures of DIGINETICA."""
    with (Path(__file__).parent / "published.csv").open() as file:
        return {
            (line["row"], line["metric"]): (
                float(line["mean"]),
                {t: float(line[str(t)]) for t in range(1, LAST + 1) if line[str(t)]},
            )
            for line in csv.DictReader(file)
        }


def published_of(folder: str) -> Published:
    """The published figures of the periods in a folder: none unless they are DIGINETICA's."""
    clicks = diginetica(path=folder, periods=1).frame
    found = (len(clicks), clicks["user"].n_unique(), clicks["item"].n_unique())
    return published() if found == DIGINETICA else {}


def prequential(directory: Path) -> dict[str, Curve]:
    """What a run has tested so far, each period with the model trained until the one before."""
    curves: dict[str, dict[int, float]] = {metric: {} for metric in METRICS}
    path = directory / "evaluations.csv"
    if path.exists():
        with path.open() as file:
            for line in csv.DictReader(file):
                t = int(line["evaluated_on"])
                if line["metric"] in curves and int(line["trained_until"]) == t - 1:
                    curves[line["metric"]][t] = 100 * float(line["value"])
    return curves  # type: ignore[return-value]


def measured(runs: Sequence[tuple[str, Path]]) -> dict[str, list[Cell]]:
    """The runs of each row that have tested a period."""
    found: dict[str, list[Cell]] = {}
    for row, directory in runs:
        curves, summary = prequential(directory), directory / "summary.json"
        if curves[METRICS[0]]:
            cost = json.loads(summary.read_text(encoding="utf-8"))["cost"] if summary.exists() else None
            found.setdefault(row, []).append(Cell(directory.name, curves, cost))
    return found


def mean_curve(cells: Sequence[Cell], metric: str) -> dict[int, float]:
    """The mean over the seeds, of the periods that all of them have tested."""
    periods = set.intersection(*(set(cell.curves[metric]) for cell in cells)) if cells else set()
    return {t: float(np.mean([cell.curves[metric][t] for cell in cells])) for t in sorted(periods)}


def mean_over(curve: Curve, periods: Sequence[int]) -> float | None:
    """The mean over the periods, if they are all there."""
    return float(np.mean([curve[t] for t in periods])) if periods and set(periods) <= set(curve) else None


def expected(row: str, metric: str, periods: Sequence[int], known: Published) -> float | None:
    """The published mean over the periods, where there is one."""
    if (row, metric) not in known:
        return None
    mean, curve = known[row, metric]
    return mean if len(periods) == LAST else mean_over(curve, periods)


def number(value: float | None, sign: str = "") -> str:
    """Two decimals, or nothing."""
    return "" if value is None else f"{value:{sign}.2f}"


def judged(difference: float | None, most: float) -> str:
    """A difference, in bold where it is larger than allowed."""
    text = number(difference, "+")
    return f"**{text}**" if difference is not None and abs(difference) > most else text


def minus(a: float | None, b: float | None) -> float | None:
    """a - b, where both are there."""
    return None if a is None or b is None else a - b


def lines_of_means(found: Found, rows: Sequence[str], known: Published, asked: Asked) -> list[str]:
    """A line a row: means over the periods that it has, and their distance to Dropout's over the same ones."""
    lines = []
    for row in rows:
        cells = [row]
        if row not in found:
            lines.append(f"| {row} | not run |{' |' * (8 if known else 3)}")
            continue
        periods: list[int] = []
        for metric in METRICS:
            curve = mean_curve(found[row], metric)
            periods = list(curve)
            value, wanted = mean_over(curve, periods), expected(row, metric, periods, known)
            most = MOST[metric][len(periods) < LAST]
            compared = [number(wanted), number(value), judged(minus(value, wanted), most)]
            cells += compared if known else [number(value)]
        other = mean_curve(found.get("Dropout", ()), METRICS[0])
        own = minus(mean_over(mean_curve(found[row], METRICS[0]), periods), mean_over(other, periods))
        theirs = minus(*(expected(each, METRICS[0], periods, known) for each in (row, "Dropout")))
        apart = ["", ""] if row == "Dropout" else [number(theirs, "+"), judged_against(own, theirs)]
        cells += apart if known else apart[1:]
        cells.insert(1, extent(periods, len(found[row]), asked))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def extent(periods: Sequence[int], seeds: int, asked: Asked) -> str:
    """The periods and seeds that were run, and of how many that were asked for."""
    ended = f"1–{periods[-1]}" if periods else "none of all seeds"
    if periods and asked.periods is not None and len(periods) < asked.periods:
        ended += f" of {asked.periods}"
    if seeds < asked.seeds:
        return f"{ended}, {seeds} of {asked.seeds} seeds"
    return f"{ended}, {seeds} seeds" if seeds > 1 else ended


def judged_against(own: float | None, theirs: float | None) -> str:
    """A distance to Dropout, in bold where it is too far from the published one."""
    apart = minus(own, theirs)
    text = number(own, "+")
    return f"**{text}**" if apart is not None and abs(apart) > APART else text


def lines_of_periods(found: Found, rows: Sequence[str], known: Published, metric: str) -> list[str]:
    """A line a row: each period as published / measured (difference), or where nothing is published as measured."""
    shown = [row for row in rows if row in found]
    last = max((max(mean_curve(found[row], metric), default=0) for row in shown), default=0)
    lines = [f"| {metric} | {' | '.join(map(str, range(1, last + 1)))} |", "|---|" + "---|" * last]
    for row in shown:
        curve, cells = mean_curve(found[row], metric), []
        for t in range(1, last + 1):
            wanted = expected(row, metric, [t], known)
            difference = minus(curve.get(t), wanted)
            told = f" ({judged(difference, MOST[metric][1])})" if difference is not None else ""
            compared = f"{number(wanted)} / " if known else ""
            cells.append(f"{compared}{number(curve.get(t))}{told}" if t in curve else "")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def lines_of_order(found: Found) -> list[str]:
    """Whether ADER > Dropout > Finetune holds over the periods that both of a pair have."""
    lines = []
    for high, low in combinations([row for row in ORDER if row in found], 2):
        a, b = (mean_curve(found[row], METRICS[0]) for row in (high, low))
        periods = sorted(set(a) & set(b))
        gap = minus(mean_over(a, periods), mean_over(b, periods))
        lines.append(f"- {high} > {low}: {'holds' if (gap or 0) > 0 else '**reversed**'}, {number(gap, '+')}")
    return lines


def lines_of_cost(found: Found, rows: Sequence[str]) -> list[str]:
    """A line a row, of the runs that are finished."""
    lines = []
    for row in rows:
        costs = [cell.cost for cell in found.get(row, ()) if cell.cost is not None]
        if costs:
            mean = {key: float(np.mean([cost[key] for cost in costs])) for key in costs[0]}
            first, each = seconds(mean["base_seconds"]), seconds(mean["seconds_per_update"])
            rest = f"{seconds(mean['compile_seconds'])} | {whole(mean['examples'])} | {size(mean['memory_bytes'])}"
            lines.append(f"| {row} | {first} | {each} | {rest} |")
    return lines


def table(found: Found, rows: Sequence[str], known: Published, asked: Asked) -> str:
    """Everything that was measured, as Markdown; beside it what is published, if anything is."""
    heads = ["row", "periods", "R@20", "M@20", "R@20 over Dropout"]
    if known:
        heads = ["row", "periods", "R@20 published", "measured", "difference", "M@20 published", "measured"]
        heads += ["difference", "R@20 over Dropout, published", "measured"]
    bold = "; bold: farther from the published number than allowed" if known else ""
    lines = [
        f"\nMeans over the test periods, percent{bold}.\n",
        f"| {' | '.join(heads)} |",
        "|" + "---|" * len(heads),
        *lines_of_means(found, rows, known, asked),
    ]
    for metric in METRICS:
        lines += [f"\nEach period, {metric}{': published / measured (difference)' if known else ''}.\n"]
        lines += lines_of_periods(found, rows, known, metric)
    if known and (order := lines_of_order(found)):
        lines += ["\nOrder, mean Recall@20 over the periods of both:\n", *order]
    if cost := lines_of_cost(found, rows):
        lines += [
            "\nCost of finished runs; the base part is trained once for all rows of a base.\n",
            "| row | base part | an update | compilation | examples of the updates | memory |",
            "|---|---|---|---|---|---|",
            *cost,
        ]
    return "\n".join(lines)


def draw(found: Found, folder: Path, known: Published) -> Path:
    """The periods' curves side by side, published ones dashed, into `folder`/curves.png."""
    figure = Figure(figsize=(2 * WIDTH, 3.6), layout="constrained", dpi=120)
    panels = figure.subplots(1, 2)
    shown = [row for row in dict.fromkeys((*CURVES, *found)) if row in found]
    for axes, metric in zip(panels, METRICS, strict=True):
        for place, row in enumerate(shown):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            curve = mean_curve(found[row], metric)
            axes.plot(list(curve), list(curve.values()), LINES[0], color=colour, marker=marker, markersize=4, label=row)
            _, theirs = known.get((row, metric), (None, {}))
            wanted = {t: value for t, value in theirs.items() if t <= max(curve, default=0)}
            if wanted:
                axes.plot(list(wanted), list(wanted.values()), LINES[1], color=colour, linewidth=1)
        axes.set_title(f"{metric}, percent{' (dashed: published)' if known else ''}", fontsize=9)
        axes.set_xlabel("test period")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e5e5e5", linewidth=0.8)
    legend(figure, handles(panels[0]), shown)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "curves.png"
    figure.savefig(path, metadata={"Software": None})
    return path
