"""Pictures of a table: quality over time, quality against cost, and the matrix R of each row.

Every function returns a ``matplotlib.figure.Figure`` (or None where nothing was measured), drawn without
pyplot, so that no window or global state is involved. A row has the same colour, line and marker in all of
them.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from incremental.metrics.continual import matrices
from incremental.report.comparison import Row, Table
from incremental.report.statistics import estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Okabe & Ito's palette, told apart with any colour vision; without its yellow, which is faint on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
LINES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h"]

Array = NDArray[np.float64]


class Style(NamedTuple):
    """How a row is drawn."""

    colour: str
    line: str
    marker: str


def styles(table: Table) -> dict[str, Style]:
    """A style for each row, unlike any other's up to 28 rows."""
    return {
        row.label: Style(
            COLOURS[place % len(COLOURS)],
            LINES[place // len(COLOURS) % len(LINES)],
            MARKERS[place % len(MARKERS)],
        )
        for place, row in enumerate(table.rows)
    }


def quality_over_time(table: Table, metric: str) -> "Figure | None":
    """Mean of the prequential curve over seeds for each row, with the 95 % interval as a band."""
    from matplotlib.ticker import MaxNLocator

    curves = {row.label: _curves(row, metric) for row in table.rows}
    if not any(np.isfinite(curve).any() for curve in curves.values()):
        return None
    figure, axes = _axes(6.6, 3.8)
    for label, style in styles(table).items():
        seeds = [estimate(column[np.isfinite(column)].tolist()) for column in curves[label].T]
        mean = np.array([np.nan if point.mean is None else point.mean for point in seeds])
        half = np.array([point.half_width or 0.0 for point in seeds])
        x = np.arange(1, len(mean) + 1)
        axes.fill_between(x, mean - half, mean + half, color=style.colour, alpha=0.15, linewidth=0)
        axes.plot(x, mean, style.line, color=style.colour, marker=style.marker, markersize=4.5, label=label)
    axes.set_xlabel("increment (tested before training on it)")
    axes.set_ylabel(metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def quality_against_cost(table: Table, metric: str) -> "Figure | None":
    """Prequential mean against seconds an update (logarithmic), with intervals of the quality.

    A row whose updates cost nothing has no place on a logarithmic axis: it is a dotted line across.
    """
    points = [_point(row, metric) for row in table.rows]
    if not any(point.cost for point in points if point is not None):
        return None
    figure, axes = _axes(6.6, 4.2)
    axes.set_xscale("log")
    labels = []
    for point, style in zip(points, styles(table).values(), strict=True):
        if point is None:
            continue
        if point.cost:
            axes.errorbar(
                point.cost,
                point.quality,
                point.half_width,
                color=style.colour,
                marker=style.marker,
                capsize=3,
            )
        else:
            axes.axhline(point.quality, color=style.colour, linestyle=":")
        labels.append((point, style.colour))
    axes.set_xlabel("seconds an update, log scale (dotted line: no update cost)")
    axes.set_ylabel(f"{metric}, mean over increments")
    axes.margins(x=0.15, y=0.12)
    _label(figure, axes, labels)
    return figure


def heat_map(table: Table, row: Row, metric: str) -> "Figure | None":
    """The matrix R of a row, mean over the seeds that measured an entry; grey where none did.

    All rows of the table share one colour scale.
    """
    from matplotlib.ticker import MaxNLocator

    means = {other.label: _mean_matrix(other, metric) for other in table.rows}
    mean = means[row.label]
    if not np.isfinite(mean).any():
        return None
    values = np.concatenate([matrix[np.isfinite(matrix)] for matrix in means.values()])
    side = len(mean)
    figure, axes = _axes(5.2, 4.4)
    axes.grid(False)
    axes.set_facecolor("#dddddd")
    image = axes.imshow(mean, cmap="cividis", vmin=values.min(), vmax=values.max())
    figure.colorbar(image, ax=axes, label=f"{metric} on held-out parts")
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


def data_uri(figure: "Figure") -> str:
    """The figure as an SVG in a ``data:`` address, the same bytes for the same figure."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "incremental"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode("ascii")


class _Point(NamedTuple):
    label: str
    cost: float
    quality: float
    half_width: float


def _point(row: Row, metric: str) -> _Point | None:
    quality = row.quality[metric].get("prequential")
    cost = row.cost.get("seconds_per_update")
    if quality is None or quality.mean is None or cost is None or cost.mean is None:
        return None
    return _Point(row.label, cost.mean, quality.mean, quality.half_width or 0.0)


def _curves(row: Row, metric: str) -> Array:
    """Prequential curves [seeds, increments], NaN where not measured."""
    curves = [matrices(run.evaluations, metric).prequential for run in row.runs]
    return np.array([_padded(curve, max(map(len, curves))) for curve in curves])


def _mean_matrix(row: Row, metric: str) -> Array:
    """R [T, T], each entry the mean over the seeds that measured it, NaN where none did."""
    found = [matrices(run.evaluations, metric).R for run in row.runs]
    stack = np.array([_padded(R, max(map(len, found))) for R in found])
    count = np.isfinite(stack).sum(axis=0)
    return np.where(count > 0, np.nansum(stack, axis=0) / np.maximum(count, 1), np.nan)


def _padded(array: Array, length: int) -> Array:
    """``array`` with NaN up to ``length`` along each axis."""
    return np.pad(array, [(0, length - n) for n in array.shape], constant_values=np.nan)


def _axes(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


# Where a label may stand about its point, in typographic points: near places first.
_PLACES = [
    (8 * side, rise)
    for height in (0, 6, 12, 18, 24, 30, 36, 48)
    for side in (1, -1)
    for rise in dict.fromkeys((height, -height))
]


def _label(figure: "Figure", axes: "Axes", labels: Sequence[tuple[_Point, str]]) -> None:
    """Name each point at the first place where its name covers no other name and no point."""
    figure.draw_without_rendering()
    marks = [axes.transData.transform(_place(axes, point)) for point, _ in labels]
    taken: list[Bbox] = []
    for point, colour in labels:
        names = [_annotate(axes, point, offset, colour) for offset in _PLACES]
        boxes = [name.get_window_extent().padded(2) for name in names]
        free = [place for place, box in enumerate(boxes) if _is_free(box, taken, marks, axes)]
        chosen = free[0] if free else 0
        for name in names[:chosen] + names[chosen + 1 :]:
            name.remove()
        taken.append(boxes[chosen])


def _place(axes: "Axes", point: _Point) -> tuple[float, float]:
    """Where the point is, in data units; a row without cost is named at the left end of its line."""
    return point.cost or axes.get_xlim()[0], point.quality


def _annotate(axes: "Axes", point: _Point, offset: tuple[float, float], colour: str) -> "Annotation":
    return axes.annotate(
        point.label,
        _place(axes, point),
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        # Beside the error bar, not on the dotted line.
        va="center" if point.cost else "bottom",
        color=colour,
        fontsize=9,
    )


def _is_free(box: "Bbox", taken: Sequence["Bbox"], marks: Sequence[Array], axes: "Axes") -> bool:
    frame = axes.get_window_extent()
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return inside and not box.count_overlaps(list(taken)) and not any(box.contains(*mark) for mark in marks)
