"""Published against measured: the cells, the paired tests and the order of the domain column, as Markdown."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experiments.split_mnist.digits import SIZES, Scenario
from experiments.split_mnist.methods import METHODS
from incremental.report.numbers import p_value
from incremental.report.statistics import estimate, holm, paired_p

RUNS = 10  # of the paper
BETTER = ("L2", "SI", "MAS", "LwF", "GEM", "replay, 1,100", "replay, 4,400")  # than plain training
ORDER = ("plain, Adam", "EWC", "SI", "LwF", "replay, 1,100", "replay, 4,400", "all at once")


def path_of(out: Path, name: str, scenario: Scenario) -> Path:
    """Where a cell is kept."""
    return out / scenario / f"{name.replace(',', '').replace(' ', '_').lower()}.json"


def keep(out: Path, name: str, scenario: Scenario, cell: dict[str, Any]) -> None:
    """Writes a cell, whole or not at all."""
    path = path_of(out, name, scenario)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    half.write_text(json.dumps(cell), encoding="utf-8")
    half.replace(path)


def cell(out: Path, name: str, scenario: Scenario) -> dict[str, Any] | None:
    """A kept cell."""
    path = path_of(out, name, scenario)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def accuracy(out: Path, name: str, scenario: Scenario) -> np.ndarray:
    """[seeds] percent, the mean over the tasks; empty where it was not run."""
    kept = cell(out, name, scenario)
    return 100 * np.mean(kept["accuracy"], axis=1) if kept else np.zeros(0)


def allowed(std: float, published: float, runs: int) -> float:
    """How far a mean may be from the published one: 2 points and three standard errors of their difference."""
    return float(2 + 3 * (std**2 / runs + published**2 / RUNS) ** 0.5)


def line(out: Path, name: str, scenario: Scenario) -> str:
    """A row of a scenario's table."""
    mean, std = METHODS[name].published(scenario)
    values, kept = accuracy(out, name, scenario), cell(out, name, scenario)
    published = f"| {name} | {mean:.2f} ± {std:.2f} |"
    if kept is None or len(values) < 2:
        return f"{published} not run | | | | |"
    difference, spread = values.mean() - mean, values.std(ddof=1)
    most = allowed(spread, std, len(values))
    return (
        f"{published} {values.mean():.2f} ± {spread:.2f} | {difference:+.2f} | {most:.2f} | "
        f"{'yes' if abs(difference) <= most else '**no**'} | {kept['seconds'] / len(values):.0f} s |"
    )


def tests(out: Path, base: str) -> list[str]:
    """Each row against plain training in the domain column, seed by seed, Holm-corrected."""
    plain = accuracy(out, base, "domain")
    found = [(name, accuracy(out, name, "domain")) for name in BETTER]
    found = [(name, values) for name, values in found if len(values) == len(plain) > 1]
    p_values = holm([paired_p((values - plain).tolist()) for _, values in found])
    return [
        f"| {name} | {base} | {(values - plain).mean():+.2f} | {p_value(p) if p is not None else ''} |"
        for (name, values), p in zip(found, p_values, strict=True)
    ]


def order(out: Path) -> list[str]:
    """Neighbours of the domain column's order, with their 95 % intervals."""
    measured = [(name, estimate(accuracy(out, name, "domain").tolist())) for name in ORDER]
    known = [(name, each.mean or 0.0, each.half_width) for name, each in measured if each.half_width is not None]
    lines = []
    for (low, a, wide_a), (high, b, wide_b) in pairwise(known):
        holds = a - wide_a <= b + wide_b
        both = f"{a:.2f} ± {wide_a:.2f} | {b:.2f} ± {wide_b:.2f}"
        lines.append(f"| {low} < {high} | {both} | {'yes' if holds else '**no**'} |")
    return lines


def table(out: Path) -> str:
    """Everything that was measured."""
    rule = "|---|---|---|---|"
    lines: list[str] = []
    for scenario in SIZES:
        lines += [
            f"\n{scenario.capitalize()}, percent, mean ± standard deviation:\n",
            "| row | published | measured | difference | allowed | within | a seed |",
            f"{rule}---|---|---|",
            *(line(out, name, scenario) for name in METHODS),
        ]
    if compared := [*tests(out, "plain, Adam"), *tests(out, "plain, SGD")]:
        lines += ["\nPaired t-tests, domain (p after Holm):\n", "| row | against | difference | p |", rule, *compared]
    if ordered := order(out):
        lines += ["\nOrder, domain (95 % intervals):\n", "| order | lower | higher | holds |", rule, *ordered]
    return "\n".join(lines)
