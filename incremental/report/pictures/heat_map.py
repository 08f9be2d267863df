"""The matrix R of a row as a map."""

from typing import TYPE_CHECKING

import numpy as np

from incremental.metrics.continual import matrices
from incremental.report.comparison import Row, Table
from incremental.report.pictures.drawing import Array, empty

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_map(table: Table, row: Row, metric: str) -> "Figure | None":
    """The matrix R of a row, mean over the seeds that measured an entry; grey where none did.

    All rows of a column share one colour scale.
    """
    from matplotlib.ticker import MaxNLocator

    means = {other.label: _mean_matrix(other, metric) for other in table.of(row.column)}
    mean = means[row.label]
    if not np.isfinite(mean).any():
        return None
    values = np.concatenate([matrix[np.isfinite(matrix)] for matrix in means.values()])
    side = len(mean)
    figure, axes = empty(5.2, 4.4)
    axes.grid(False)
    axes.set_facecolor("#dddddd")
    image = axes.imshow(mean, cmap="cividis", vmin=values.min(), vmax=values.max())
    figure.colorbar(image, ax=axes, label=f"{table.title(metric)} on held-out parts")
    axes.set_title(row.label)
    axes.set_xlabel("evaluated on increment (0: base part)")
    axes.set_ylabel("trained until increment")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if side <= 10:
        middle = (values.min() + values.max()) / 2
        for (i, j), value in np.ndenumerate(mean):
            if np.isfinite(value):
                ink = "black" if value > middle else "white"
                text = f"{value:.3f}".removeprefix("0")
                axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=min(11, 64 / (side + 1)))
    return figure


def _mean_matrix(row: Row, metric: str) -> Array:
    """R [T, T], each entry the mean over the seeds that measured it, NaN where none did."""
    found = [matrices(run.evaluations, metric).R for run in row.runs]
    longest = max(map(len, found))
    stack = np.array([np.pad(R, (0, longest - len(R)), constant_values=np.nan) for R in found])
    count = np.isfinite(stack).sum(axis=0)
    return np.where(count > 0, np.nansum(stack, axis=0) / np.maximum(count, 1), np.nan)
