"""What the pictures share: a row's style, the empty axes, the legend, and the figure as a file or an address."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Okabe & Ito's palette, told apart with any colour vision; without its yellow, which is faint on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
LINES = ["-", "--", ":", "-."]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h"]

# More rows than this are drawn so that they do not cover each other: apart, without intervals, with smaller names.
MANY = 12

WIDTH = 5.6  # inches: whole on a phone, with letters that can be read


class Style(NamedTuple):
    """How a row is drawn."""

    colour: str
    line: str
    marker: str


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """A style for each label, unlike any other's up to 77: there are 7 colours and 11 markers."""
    return {
        label: Style(
            COLOURS[place % len(COLOURS)],
            LINES[place // len(COLOURS) % len(LINES)],
            MARKERS[place % len(MARKERS)],
        )
        for place, label in enumerate(labels)
    }


def empty(width: float, height: float) -> "tuple[Figure, Axes]":
    """A figure, in inches, with one pair of axes."""
    figure, (axes,) = panels_of(1, 1, width, height)
    return figure, axes


def panels_of(across: int, down: int, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    """A figure, in inches, with ``across`` times ``down`` axes, line by line, which share their scales."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def handles(axes: "Axes") -> "dict[str, Artist]":
    """What was drawn under each label, also one that begins with "_", which matplotlib leaves out."""
    artists: list[Any] = [*axes.get_children(), *axes.containers]
    return {str(one.get_label()): one for one in artists}


def legend(
    figure: "Figure", drawn: "Mapping[str, Artist]", labels: Sequence[str], side: Literal["lower", "upper"] = "lower"
) -> None:
    """Names what was drawn, as far as it is one of ``labels``, on a side of the axes; the figure grows by as much."""
    shown = [label for label in labels if label in drawn]
    if not shown:
        return
    columns = max(1, min(len(shown), int(WIDTH / (0.55 + 0.075 * max(map(len, shown))))))
    lines = -(-len(shown) // columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.18 * lines + 0.1)
    figure.legend(
        [drawn[label] for label in shown],
        shown,
        loc="outside lower center" if side == "lower" else "outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        columnspacing=1.2,
        labelspacing=0.3,
    )


def as_written(figure: "Figure") -> None:
    """Shows the dollars of names as they are, and not what they would enclose as a formula; ticks keep theirs."""
    from matplotlib.text import Text

    found: list[Any] = figure.findobj(Text)
    for text in found:
        if "$" in text.get_text() and "\\mathdefault" not in text.get_text():
            text.set_parse_math(False)


def write(figure: "Figure", path: Path) -> None:
    """The figure as a file, the same bytes for the same figure; the ending says how: pdf, svg or png (300 dpi)."""
    import matplotlib

    as_written(figure)
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.hashsalt": "incremental", "pdf.fonttype": 42}):
        figure.savefig(path, metadata=undated[path.suffix[1:]], dpi=300)


def data_uri(figure: "Figure") -> str:
    """The figure as an SVG in a ``data:`` address, the same bytes for the same figure."""
    import matplotlib

    as_written(figure)
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "incremental"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode("ascii")
