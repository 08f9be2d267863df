"""The front of quality against cost: the rows that no other row beats in both (Pareto 1906)."""

from collections.abc import Sequence
from typing import NamedTuple

from incremental.report.comparison import TIMES, Row, is_bound
from incremental.report.direction import is_quality
from incremental.report.runs import Run
from incremental.report.statistics import Estimate


class Point(NamedTuple):
    """A row's mean cost (seconds an increment) and its quality with the half-width of its interval."""

    row: Row
    cost: float
    quality: float
    half_width: float


def point(row: Row, metric: str) -> Point | None:
    """Where ``row`` stands; None where one of the two was not measured, or its seconds are of other lanes."""
    nothing = Estimate(None, None, 0)
    quality = row.quality[metric].get("prequential", nothing)
    costs = [cost for run in row.runs if (cost := _seconds(run)) is not None]
    if quality.mean is None or not costs or TIMES[0] in row.apart:
        return None
    return Point(row, sum(costs) / len(costs), quality.mean, quality.half_width or 0.0)


def _seconds(run: Run) -> float | None:
    """Seconds an increment, one without an update included: a policy that updates seldom is cheap by that."""
    cost, updates = run.cost.get("seconds_per_update"), run.cost.get("updates")
    if cost is None or updates is None or not run.increments:
        return cost  # an update at every increment
    return cost * updates / run.increments


def front(rows: Sequence[Row], metric: str) -> list[Point]:
    """The points without another that is as cheap and as good, and one of the two more; cheapest first.

    By the means, without a test; bounds are no competitors. Empty where more of ``metric`` is not better, or
    fewer than two rows were measured.
    """
    points = [found for row in rows if not is_bound(row.runs[0]) and (found := point(row, metric)) is not None]
    if len(points) < 2 or not is_quality(metric):
        return []

    def beaten(one: Point) -> bool:
        return any(
            other.cost <= one.cost
            and other.quality >= one.quality
            and (other.cost, other.quality) != (one.cost, one.quality)
            for other in points
        )

    return sorted((one for one in points if not beaten(one)), key=lambda one: (one.cost, one.quality))
