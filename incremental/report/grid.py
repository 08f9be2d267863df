"""The table as cells, which the formats render."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from incremental.errors import UserError
from incremental.report.comparison import TIMES, Row, Table
from incremental.report.factors import short
from incremental.report.numbers import NOTHING, interval, p_value, seconds, size, whole

# What explains the first metric in the narrow formats; the CSV has every measure.
EXPLAINED_BY = {
    "standard_error": "s.e. of sample",
    "slope": "slope",
    "learning_accuracy": "learning acc.",
    "forgetting": "forgetting",
    "learning_average": "newest (LA)",
    "retained_average": "past (RA)",
    "harmonic_mean": "H-mean",
    "forward_transfer": "fwd transfer",
}


# What a row costs, by its measure: title and unit.
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds_per_update": ("s/update", seconds),
    "waited_per_update": ("waiting/update", seconds),
    "wall_per_update": ("wall/update", seconds),
    "examples": ("examples", whole),
    "parameters_written": ("params written", whole),
    "memory_bytes": ("memory", size),
}

APART = "†"  # behind seconds of other lanes than the baseline's


class Cell(NamedTuple):
    """Text of one cell; ``best`` marks the significantly best row of its column, ``row`` has the runs behind it."""

    text: str
    best: bool = False
    row: Row | None = None


class Head(NamedTuple):
    """A column's title; ``of`` is the column factors' value that it belongs to."""

    title: str
    of: str = ""

    def __str__(self) -> str:
        return f"{self.of}: {self.title}" if self.of else self.title


class Grid(NamedTuple):
    """The table as cells: ``header`` [columns], ``rows`` [rows][columns]; the first column is the label."""

    header: list[Head]
    rows: list[list[Cell]]

    @property
    def spans(self) -> list[tuple[str, int]]:
        """What stands above the header: the values of the column factors, and how many columns each spans."""
        return [(of, len(list(heads))) for of, heads in groupby(head.of for head in self.header)]


class Render(NamedTuple):
    """A column: its title, the text of a row, and the metric that it is the quality in, or None."""

    title: str
    text: Callable[[Row], str]
    metric: str | None = None


def grid(table: Table, show: Sequence[str] = ()) -> Grid:
    """One column: as :func:`detailed`. Several: each metric with its p, and the cost of an update, for each column.

    ``show`` names what stands in a column in place of that.
    """
    if len(table.columns) == 1:
        return detailed(table, table.columns[0], show)
    columns: list[tuple[Head, list[Cell]]] = []
    for column in table.columns:
        renders = _shown(table, show) or [*_metrics(table), _cost(table, "seconds_per_update")]
        by_label = {row.label: row for row in table.of(column)}
        columns += _cells([by_label.get(label) for label in table.labels], renders, column)
    return _grid(table, table.labels, columns)


def detailed(table: Table, column: str, show: Sequence[str] = ()) -> Grid:
    """A column by itself: each metric with its p, what explains the first metric, and every cost; or ``show``."""
    rows = table.of(column)
    renders = _shown(table, show) or [
        _seeds(table),
        *_metrics(table),
        *(_measure(table, table.metrics[0], measure) for measure in EXPLAINED_BY),
        *(_cost(table, measure) for measure in COSTS),
    ]
    return _grid(table, [row.label for row in rows], _cells(rows, renders, ""))


def _shown(table: Table, names: Sequence[str]) -> list[Render]:
    """The columns of these names: ``seeds``, a metric, ``p``, a measure of the first metric, or a cost."""
    first = table.metrics[0]
    measures = {name for row in table.rows for name in row.quality[first]} - {"prequential"}
    costs = {name for row in table.rows for name in row.cost}
    made: list[Render] = []
    for name in names:
        if name == "seeds":
            made.append(_seeds(table))
        elif name in table.metrics:
            made.append(_measure(table, name, "prequential"))
        elif name == "p":
            made += [_p(table, metric) for metric in table.metrics]
        elif name in measures:
            made.append(_measure(table, first, name))
        elif name in costs:
            made.append(_cost(table, name))
        else:
            there = ["seeds", *table.metrics, "p", *sorted(measures), *sorted(costs)]
            raise UserError(f"--show {name}: no such column; there is {', '.join(there)} (another metric: --metric)")
    return made


def _grid(table: Table, labels: Sequence[str], columns: Sequence[tuple[Head, list[Cell]]]) -> Grid:
    """Cells with the labels before them; columns without a number are left out."""
    kept = [(head, cells) for head, cells in columns if any(cell.text != NOTHING for cell in cells)]
    named = list(table.row_factors) in (["row"], ["name"])
    title = table.title("strategy") if named else ", ".join(short(table.row_factors).values())
    names = [Cell(label) for label in labels]
    lines = zip(names, *(cells for _, cells in kept), strict=True)
    return Grid([Head(title), *(head for head, _ in kept)], [list(line) for line in lines])


def _cells(rows: Sequence[Row | None], renders: Sequence[Render], column: str) -> list[tuple[Head, list[Cell]]]:
    return [
        (
            Head(title, column),
            [Cell(NOTHING) if row is None else Cell(text(row), metric in row.best, row) for row in rows],
        )
        for title, text, metric in renders
    ]


def _seeds(table: Table) -> Render:
    return Render(table.title("seeds"), lambda row: str(len(row.runs)))


def _metrics(table: Table) -> list[Render]:
    return [one for metric in table.metrics for one in (_measure(table, metric, "prequential"), _p(table, metric))]


def _measure(table: Table, metric: str, measure: str) -> Render:
    quality = measure == "prequential"
    title = table.title(metric) if quality else table.titles.get(measure, EXPLAINED_BY.get(measure, measure))
    return Render(title, lambda row: interval(row.quality[metric].get(measure)), metric if quality else None)


def _p(table: Table, metric: str) -> Render:
    # With one metric in each of several columns its name is nothing new.
    alone = len(table.columns) > 1 and len(table.metrics) == 1
    title = table.title("p") if alone else f"{table.title('p')} ({table.title(metric)})"

    def text(row: Row) -> str:
        if row.label == table.baseline:
            return "baseline" if len(table.of(row.column)) > 1 else NOTHING
        p = row.comparisons[metric].p_holm
        return NOTHING if p is None else p_value(p)

    return Render(title, text)


def _cost(table: Table, measure: str) -> Render:
    """Seconds are marked where they are not comparable; those of a row's own runs may not be either: then no mean."""
    title, unit = COSTS.get(measure, (measure, seconds if measure in TIMES else whole))

    def text(row: Row) -> str:
        value = row.cost.get(measure)
        number = NOTHING if value is None or value.mean is None else unit(value.mean)
        if measure in row.apart:
            return APART if number == NOTHING else f"{number} {APART}"
        return number

    return Render(table.titles.get(measure, title), text)
