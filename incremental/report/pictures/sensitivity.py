"""Sensitivity: quality against the value of a hyper-parameter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from incremental.report.comparison import Table
from incremental.report.pictures.drawing import MANY, WIDTH, empty, handles, legend, styles
from incremental.report.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# From this ratio of the largest to the smallest value on, the axis is logarithmic.
DECADE = 10.0


def sensitivity(table: Table, metric: str, column: str = "") -> "Figure | None":
    """Prequential mean against the values of ``table.sensitivity``: a line for each of the other factors' labels.

    With the 95 % interval as a band up to 12 lines. A row without the hyper-parameter is a
    level line across. The axis is logarithmic where the values span a decade, linear about a zero among them.
    """
    key = table.sensitivity
    if key is None:
        return None
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    levels: dict[str, Estimate] = {}
    for row in table.of(column):
        quality = row.quality[metric].get("prequential")
        if quality is None or quality.mean is None:
            continue
        if key in row.factors:
            lines.setdefault(row.line, []).append((float(str(row.factors[key])), quality))
        else:
            levels[row.line] = quality
    if not lines:
        return None
    names = list(dict.fromkeys(row.line for row in table.rows))
    style = styles(names)
    figure, axes = empty(WIDTH, 3.8)
    for name, points in lines.items():
        x, estimates = zip(*sorted(points, key=lambda pair: pair[0]), strict=True)
        mean = np.array([estimate.mean for estimate in estimates])
        half = np.array([estimate.half_width or 0.0 for estimate in estimates])
        look = style[name]
        if len(lines) <= MANY:
            axes.fill_between(x, mean - half, mean + half, color=look.colour, alpha=0.15, linewidth=0)
        axes.plot(x, mean, look.line, color=look.colour, marker=look.marker, markersize=4.5, label=name)
    for name, level in levels.items():
        axes.axhline(level.mean or 0.0, color=style[name].colour, linestyle=style[name].line, linewidth=0.9, label=name)
    _scale(axes, sorted({value for points in lines.values() for value, _ in points}))
    axes.set_xlabel(key)
    axes.set_ylabel(f"{table.title(metric)}, mean over increments")
    legend(figure, handles(axes), names)
    return figure


def _scale(axes: "Axes", values: Sequence[float]) -> None:
    """A logarithmic axis where ``values`` span a decade: with a linear part where zero or less is among them."""
    positive = [value for value in values if value > 0]
    if len(positive) > 1 and positive[-1] >= DECADE * positive[0]:
        if values[0] > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=positive[0])
    if len(values) <= 10:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
