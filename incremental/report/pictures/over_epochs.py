"""Loss curves: what training's numbers did, epoch by epoch, over the whole stream."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from incremental.report.comparison import Row, Table
from incremental.report.pictures.drawing import COLOURS, WIDTH, legend, panels_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 180.0  # points of type times letters that a panel of three has room for
ACROSS = 3  # panels in a line
LOSS, DATA, TERM = "loss", "term/data", "term/"
Place = tuple[int, int]  # increment and epoch
Curve = dict[Place, float]
Curves = dict[str, list[Curve]]  # of each column of epochs.csv, one a seed


def loss_curves(table: Table, column: str = "") -> "Figure | None":
    """Each row's training loss and its terms, a panel a row; None where no row was trained by epochs.

    A line a seed: seeds stop at epochs of their own, so that a mean would jump where one is over. Epochs are counted
    over the stream, the base part's included; a dotted line begins an increment. A row that took its base part from
    another has none of its epochs: its panel is empty as far as the others' base parts go, and increment 1 begins at
    one place in all.
    """
    rows = {row.label: _curves(row) for row in table.of(column)}
    for curves in rows.values():
        if not any(name.startswith(TERM) for name in curves.keys() - {DATA}):
            curves.pop(DATA, None)  # the loss has no other term: it is the loss
    terms = sorted({name for curves in rows.values() for name in curves if name.startswith(TERM)} - {DATA})
    return _panels(rows, [LOSS, *([DATA, *terms] if terms else [])], "training loss")


def validation_curves(table: Table, column: str = "") -> "Figure | None":
    """Each row's validation value, as :func:`loss_curves`; None where no row has one."""
    return _panels({row.label: _curves(row) for row in table.of(column)}, ["validation"], "validation value")


def _panels(rows: Mapping[str, Curves], names: Sequence[str], title: str) -> "Figure | None":
    from matplotlib.ticker import MaxNLocator

    rows = {label: curves for label, curves in rows.items() if any(name in curves for name in names)}
    if not rows:
        return None
    lines, across = -(-len(rows) // ACROSS), min(len(rows), ACROSS)
    figure, panels = panels_of(across, lines, WIDTH, (1.5 if lines > 1 else 2.2) * lines + 0.5)
    for axes in panels[len(rows) :]:
        axes.remove()
    for axes in panels[max(len(rows) - across, 0) : len(rows)]:
        axes.tick_params(labelbottom=True)
    shown: dict[str, Artist] = {}
    base = {place for curves in rows.values() for place in _places(curves) if place[0] == 0}
    for (label, curves), axes in zip(rows.items(), panels, strict=False):
        shown |= _panel(axes, curves, names, base)
        axes.set_title(label, fontsize=min(9.0, TITLE / len(label)), pad=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.tick_params(labelsize=8)
    figure.supxlabel("epoch, over the whole stream (dotted: an increment begins)", fontsize=9)
    figure.supylabel(title, fontsize=9)
    if len(shown) > 1:
        legend(figure, shown, [*shown], "upper")
    return figure


def _places(curves: Curves) -> set[Place]:
    """A row's epochs, those too that were not validated (`training.check_every`)."""
    return {place for seeds in curves.values() for curve in seeds for place in curve}


def _panel(axes: "Axes", curves: Curves, names: Sequence[str], base: set[Place]) -> "dict[str, Artist]":
    """Draws a row's lines, with room for the epochs of all rows' base parts; returns one of each name."""
    places = sorted(base | _places(curves))
    at = {place: float(number) for number, place in enumerate(places, 1)}
    for increment, epoch in places:
        if epoch == 1 and increment:
            axes.axvline(at[increment, epoch] - 0.5, color="#bbbbbb", linestyle=":", linewidth=0.7, zorder=0)
    shown: dict[str, Artist] = {}
    for number, name in enumerate(names):
        colour = COLOURS[(number - 1) % len(COLOURS)] if number else "black"
        for curve in curves.get(name, []):
            label = "data" if name == DATA else name.removeprefix(TERM)
            for increment in sorted({place[0] for place in curve}):  # a line does not cross: there other data begin
                own = [place for place in sorted(curve) if place[0] == increment]
                marker = "." if len(own) == 1 else None
                x, y = [at[place] for place in own], [curve[place] for place in own]
                (line,) = axes.plot(x, y, marker=marker, color=colour, linewidth=0.9)
                shown[label] = line
    return shown


def _curves(row: Row) -> Curves:
    """The columns of epochs.csv of the row's seeds."""
    found: Curves = {}
    for run in row.runs:
        for name in dict.fromkeys(name for epoch in run.epochs for name in epoch if name not in ("increment", "epoch")):
            curve = {(int(one["increment"]), int(one["epoch"])): one[name] for one in run.epochs if name in one}
            found.setdefault(name, []).append(curve)
    return found
