"""Names beside points, each where it covers nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from incremental.report.pictures.drawing import MANY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Where a name may stand about its point, in typographic points: near places first.
_PLACES = [
    (8 * side, rise)
    for height in (0, 6, 12, 18, 24, 30, 36, 48)
    for side in (1, -1)
    for rise in dict.fromkeys((height, -height))
]
# Among many points a name farther off would be taken for another point's.
_NEAR = [place for place in _PLACES if abs(place[1]) <= 12]

MARK = 4  # half of a marker's width, in pixels


class Name(NamedTuple):
    """The name of the point (x, y) in data units; ``on_line``: the point is the end of a line across."""

    text: str
    x: float
    y: float
    colour: str
    on_line: bool


def name_points(figure: "Figure", axes: "Axes", names: Sequence[Name]) -> list[str]:
    """Name each point at the first place where its name covers no other name and no point.

    Returns the names that found no place; those are not drawn.
    """
    figure.draw_without_rendering()
    few = len(names) <= MANY
    marks = [axes.transData.transform((name.x, name.y)) for name in names]
    frame = axes.get_window_extent()
    taken: list[Bbox] = []
    left_out: list[str] = []

    def is_free(box: "Bbox") -> bool:
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        about = box.padded(MARK)
        return inside and not box.count_overlaps(taken) and not any(about.contains(*mark) for mark in marks)

    for name in names:
        for offset in _PLACES if few else _NEAR:
            drawn = _annotate(axes, name, offset, 9 if few else 8)
            box = drawn.get_window_extent().padded(2)
            if is_free(box):
                taken.append(box)
                break
            drawn.remove()
        else:
            left_out.append(name.text)
    return left_out


def _annotate(axes: "Axes", name: Name, offset: tuple[float, float], size: int) -> "Annotation":
    from matplotlib.patheffects import withStroke

    return axes.annotate(
        name.text,
        (name.x, name.y),
        offset,
        textcoords="offset points",
        parse_math=False,  # a name is no formula
        ha="left" if offset[0] > 0 else "right",
        # Beside the error bar, not on the dotted line.
        va="bottom" if name.on_line else "center",
        color=name.colour,
        fontsize=size,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],  # error bars and the front pass below it
    )
