"""The differences to the baseline as a coloured table: rows by columns."""

from typing import TYPE_CHECKING

import numpy as np

from incremental.report.comparison import Row, Table, is_bound
from incremental.report.differences import differences

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BELOW, ABOVE = "#B34700", "#0063A6"


def draw_differences(axes: "Axes", table: Table, metric: str) -> None:
    """The cells of `differences`: orange below the baseline, blue above it, significant ones bold with a *.

    The colours end at the largest difference of a row that is no bound.
    """
    from matplotlib.colors import LinearSegmentedColormap

    cells = [line[1:] for line in differences(table, metric).rows]
    values = np.array([[_difference(cell.row, metric) for cell in line] for line in cells])
    bound = np.array([[cell.row is not None and is_bound(cell.row.runs[0]) for cell in line] for line in cells])
    most = float(np.max(np.abs(values), initial=1e-4, where=np.isfinite(values) & ~bound))
    axes.grid(False)
    axes.set_facecolor("#eeeeee")
    colours = LinearSegmentedColormap.from_list("differences", [BELOW, "#ffffff", ABOVE])
    axes.imshow(values, cmap=colours, vmin=-most, vmax=most, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        cell = cells[y][x]
        axes.text(
            x,
            y,
            cell.text.replace("-", "\N{MINUS SIGN}") + "*" * cell.best,
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold" if cell.best else "normal",
            color="white" if abs(value) > 0.7 * most else "black",
        )
    axes.set_xticks(range(len(table.columns)), table.columns)
    axes.set_yticks(range(len(table.labels)), table.labels)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _difference(row: Row | None, metric: str) -> float:
    """NaN for the baseline itself, and where there is none."""
    tested = None if row is None else row.comparisons.get(metric)
    return np.nan if tested is None or tested.difference is None else tested.difference
