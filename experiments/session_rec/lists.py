"""The authors' recommendation lists: what they are compared with, and the metrics of both."""

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

METRICS = ("hr@5", "hr@10", "hr@20", "mrr@20")
LENGTH = 50


class Asked(NamedTuple):
    """One prediction: a session's clicks so far, the next one, and the list that the authors gave."""

    prefix: list[str]
    target: str
    items: list[str]  # the first has the highest score
    scores: np.ndarray  # [50] float64, divided by the list's maximum


Scores = Callable[[Sequence[list[str]]], list[Mapping[str, float]]]
"""prefixes -> of each the scores by item, items without one left out"""


class Compared(NamedTuple):
    """One method's lists beside a model's scores."""

    lists: int
    equal: int  # lists with no score that differs by more than the tolerance
    largest: float  # difference of a score


def read(folder: Path, method: str) -> list[Asked]:
    """The method's predictions, in the order of the file."""
    clicks = pl.read_csv(folder / "test.csv", columns=["session", "item"], schema_overrides={"item": pl.String})
    sessions = {own: rows["item"].to_list() for (own,), rows in clicks.group_by(["session"], maintain_order=True)}
    lists = pl.read_parquet(folder / "lists.parquet").filter(pl.col("method") == method.lower())
    found = []
    for (session, place), rows in lists.group_by(["session", "position"], maintain_order=True):
        rows, own = rows.sort("rank"), sessions[session]
        items = rows["item"].cast(pl.String).to_list()
        found.append(Asked(own[: place + 1], own[place + 1], items, rows["score"].to_numpy()))
    return found


def compared(asked: Sequence[Asked], scores: Sequence[Mapping[str, float]], tolerance: float) -> Compared:
    """How far each listed item's score is from the model's, and the list of scores from the model's 50 highest: items
    of equal scores may stand in any order, and any of them may be the last ones. Scores are divided by the maximum."""
    differences = []
    for one, own in zip(asked, scores, strict=True):
        most = max(own.values(), default=0.0) or 1.0
        listed = np.array([own.get(item, 0.0) for item in one.items]) / most
        highest = np.sort([*own.values(), *[0.0] * LENGTH])[::-1][: len(one.items)] / most
        differences.append(max(np.abs(listed - one.scores).max(), np.abs(highest - one.scores).max()))
    return Compared(len(asked), int((np.array(differences) <= tolerance).sum()), float(max(differences)))


def in_list(one: Asked) -> float:
    """The target's rank in the list, from 1; inf: it is not there."""
    return one.items.index(one.target) + 1 if one.target in one.items else np.inf


def half(scores: Mapping[str, float], target: str) -> float:
    """The target's rank, from 1, other equal scores counted as half; inf: it has none above 0, as most items."""
    own = scores.get(target, 0.0)
    if own <= 0.0:
        return np.inf
    values = np.array([*scores.values()])
    return float(1 + (values > own).sum() + 0.5 * ((values == own).sum() - 1))


def metrics(ranks: Sequence[float]) -> dict[str, float]:
    """hr@K: the share of ranks ≤ K; mrr@20: the mean of 1 / rank, 0 beyond 20."""
    found = np.array(ranks, float)
    rates = {name: float((found <= int(name.partition("@")[2])).mean()) for name in METRICS[:3]}
    return {**rates, "mrr@20": float(np.where(found <= 20, 1 / found, 0.0).mean())}


@cache
def published() -> Mapping[tuple[str, str], dict[str, float]]:
    """(method, rule) -> the metrics."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8") as file:
        return {
            (line["method"], line["rule"]): {name: float(line[name]) for name in METRICS}
            for line in csv.DictReader(file)
        }
