"""Quality over time: the prequential curve of each row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from incremental.metrics.continual import matrices
from incremental.report.comparison import Row, Table
from incremental.report.pictures.drawing import COLOURS, MANY, WIDTH, Array, empty, handles, legend, panels_of, styles
from incremental.report.statistics import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 180.0  # points of type times letters that a panel of three has room for
Curve = Sequence[Estimate]  # [increments]
Curves = Mapping[str, Curve]

ACROSS = 3  # panels in a line


def quality_over_time(table: Table, metric: str, column: str = "") -> "Figure | None":
    """Mean of the prequential curve over seeds for each row, with the 95 % interval as a band.

    More than 12 rows have a panel each, in which the baseline is black and the other rows are grey.
    """
    curves = {row.label: _curve(row, metric) for row in table.of(column)}
    measured = {label: curve for label, curve in curves.items() if any(point.n for point in curve)}
    if not measured:
        return None
    return (_together if len(curves) <= MANY else _apart)(table, measured, metric)


def _together(table: Table, curves: Curves, metric: str) -> "Figure":
    figure, axes = empty(WIDTH, 3.6)
    for label, (colour, line, marker) in styles(table.labels).items():
        if label in curves:
            x, mean = _band(axes, curves[label], colour)
            axes.plot(x, mean, line, color=colour, marker=marker, markersize=4.5, label=label)
    _increments(axes)
    axes.set_xlabel("increment (tested before training on it)")
    axes.set_ylabel(table.title(metric))
    legend(figure, handles(axes), table.labels)
    return figure


def _apart(table: Table, curves: Curves, metric: str) -> "Figure":
    """Small multiples, three in a line. The scale is that of the means: a wide band is cut off."""
    lines = -(-len(curves) // ACROSS)
    figure, panels = panels_of(ACROSS, lines, WIDTH, 1.25 * lines + 0.4)
    means = {label: _mean(curve) for label, curve in curves.items()}
    everything = np.concatenate(list(means.values()))
    low, high = np.nanmin(everything), np.nanmax(everything)
    for axes in panels[len(curves) :]:
        axes.remove()
    for axes in panels[len(curves) - ACROSS : len(curves)]:
        axes.tick_params(labelbottom=True)
    for (label, curve), axes in zip(curves.items(), panels, strict=False):
        for other, mean in means.items():
            if other not in (label, table.baseline):
                axes.plot(np.arange(1, len(mean) + 1), mean, color="#dddddd", linewidth=0.6)
        if table.baseline in means:
            mean = means[table.baseline]
            axes.plot(np.arange(1, len(mean) + 1), mean, color="black", linewidth=0.9)
        colour = "black" if label == table.baseline else COLOURS[0]
        x, mean = _band(axes, curve, colour)
        axes.plot(x, mean, color=colour, linewidth=1.8)
        axes.set_title(label, fontsize=min(9.0, TITLE / len(label)), pad=2)  # no wider than the panel
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        _increments(axes)
        axes.tick_params(labelsize=8)
    figure.supxlabel("increment (tested before training on it)", fontsize=9)
    figure.supylabel(table.title(metric), fontsize=9)
    return figure


def _band(axes: "Axes", curve: Curve, colour: str) -> tuple[Array, Array]:
    """Draws the band, and returns the increments and the means that belong on it."""
    x, mean = np.arange(1.0, len(curve) + 1), _mean(curve)
    half = np.array([point.half_width or 0.0 for point in curve])
    axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    return x, mean


def _increments(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _mean(curve: Curve) -> Array:
    return np.array([np.nan if point.mean is None else point.mean for point in curve])


def _curve(row: Row, metric: str) -> Curve:
    """The prequential curve: at each increment an estimate over the seeds that measured it."""
    curves = [matrices(run.evaluations, metric).prequential for run in row.runs]
    return [
        estimate([float(curve[i]) for curve in curves if i < len(curve) and np.isfinite(curve[i])])
        for i in range(max(map(len, curves)))
    ]
