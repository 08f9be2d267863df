"""Quality against cost, with the front."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from incremental.report.comparison import Table
from incremental.report.front import Point, front, point
from incremental.report.pictures.drawing import MANY, WIDTH, empty, handles, legend, styles
from incremental.report.pictures.naming import Name, name_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAME = 1.001  # costs that differ by a smaller factor are one: an axis between them would show rounding errors


def quality_against_cost(table: Table, metric: str, column: str = "") -> "Figure | None":
    """Prequential mean against seconds an increment (logarithmic), with the front; up to 12 rows have their intervals.

    A row whose updates cost nothing has no place on a logarithmic axis: it is a dotted line across. A row whose seconds
    are of other lanes than the baseline's is left out. The front is stepped: at each cost, the best quality to be had
    for it. Rows are named where there is room, those of the front and the baseline first; where some are not, a legend
    has them.
    """
    points = [found for row in table.of(column) if (found := point(row, metric)) is not None]
    if not any(one.cost for one in points):
        return None
    best = front(table.of(column), metric)
    figure, axes = empty(WIDTH, 4.2 if len(points) <= MANY else 7.0)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.12)
    costs = [one.cost for one in points if one.cost]
    if max(costs) < SAME * min(costs):
        axes.set_xlim(min(costs) / 2, max(costs) * 2)
    style = styles(table.labels)
    # Level lines last: of some single costs alone the logarithmic axis has no width to draw them across.
    for one in sorted(points, key=lambda one: not one.cost):
        colour, _, marker = style[one.row.label]
        if one.cost:
            axes.errorbar(
                one.cost,
                one.quality,
                one.half_width if len(points) <= MANY else None,
                color=colour,
                marker=marker,
                capsize=3,
                linestyle="",
                label=one.row.label,
            )
        else:
            axes.axhline(one.quality, color=colour, linestyle=":", label=one.row.label)
    axes.set_xlabel("seconds an increment, log scale (dotted line: no update cost)")
    axes.set_ylabel(f"{table.title(metric)}, mean over increments")
    _draw_front(axes, best)
    first = [one for one in points if one in best or one.row.label == table.baseline]
    _plain_ticks(axes)
    names = [
        # A row without cost is named at the left end of its line.
        Name(
            one.row.label,
            one.cost or axes.get_xlim()[0],
            one.quality,
            style[one.row.label].colour,
            on_line=not one.cost,
        )
        for one in [*first, *(one for one in points if one not in first)]
    ]
    if left_out := name_points(figure, axes, names):
        legend(figure, handles(axes), [label for label in table.labels if label in left_out])
    return figure


def _plain_ticks(axes: "Axes") -> None:
    """0.5, 1, 2 in place of powers of ten; over more than three decades only 0.1, 1, 10."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    left, right = axes.get_xlim()
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axes.xaxis.set_minor_formatter(plain if right < 1000 * left else NullFormatter())


def _draw_front(axes: "Axes", best: Sequence[Point]) -> None:
    """A grey stair through the front, from the left edge to the right one."""
    if len(best) < 2:
        return
    left, right = axes.get_xlim()
    x = [one.cost or left for one in best]
    y = [one.quality for one in best]
    axes.step([*x, right], [*y, y[-1]], where="post", color="#999999", linewidth=5, alpha=0.35, zorder=0)
    axes.set_xlim(left, right)
