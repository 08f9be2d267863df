"""The table as cells, which the formats render."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from incremental.report.comparison import TIMES, Row, Table
from incremental.report.factors import short
from incremental.report.numbers import NOTHING, interval, p_value, seconds, size, whole

# What explains the first metric in the narrow formats; the CSV has every measure.
EXPLAINED_BY = {
    "slope": "slope",
    "learning_accuracy": "learning acc.",
    "forgetting": "forgetting",
    "forward_transfer": "fwd transfer",
    "intransigence": "intransigence",
}


# What a row costs, by its measure: title and unit.
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds_per_update": ("s/update", seconds),
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


Render = Callable[[Row], str]


def grid(table: Table) -> Grid:
    """One column: as :func:`detailed`. Several: each metric with its p, and the cost of an update, for each column."""
    if len(table.columns) == 1:
        return detailed(table, table.columns[0])
    columns: list[tuple[Head, list[Cell]]] = []
    for column in table.columns:
        renders = [*_metrics(table), ("s/update", None, _cost("seconds_per_update"))]
        by_label = {row.label: row for row in table.of(column)}
        columns += _cells([by_label.get(label) for label in table.labels], renders, column)
    return _grid(table, table.labels, columns)


def detailed(table: Table, column: str) -> Grid:
    """A column by itself: each metric with its p, what explains the first metric, and every cost."""
    rows = table.of(column)
    renders: list[tuple[str, str | None, Render]] = [("seeds", None, lambda row: str(len(row.runs)))]
    renders += _metrics(table)
    for measure, title in EXPLAINED_BY.items():
        renders.append((title, None, _measure(table.metrics[0], measure)))
    renders += [(title, None, _cost(measure)) for measure, (title, _) in COSTS.items()]
    return _grid(table, [row.label for row in rows], _cells(rows, renders, ""))


def _grid(table: Table, labels: Sequence[str], columns: Sequence[tuple[Head, list[Cell]]]) -> Grid:
    """Cells with the labels before them; columns without a number are left out."""
    kept = [(head, cells) for head, cells in columns if any(cell.text != NOTHING for cell in cells)]
    named = list(table.row_factors) in (["row"], ["name"])
    title = "strategy" if named else ", ".join(short(table.row_factors).values())
    names = [Cell(label) for label in labels]
    lines = zip(names, *(cells for _, cells in kept), strict=True)
    return Grid([Head(title), *(head for head, _ in kept)], [list(line) for line in lines])


def _cells(
    rows: Sequence[Row | None], renders: Sequence[tuple[str, str | None, Render]], column: str
) -> list[tuple[Head, list[Cell]]]:
    """``renders`` are (title, the metric that the column is the quality in or None, text of a row)."""
    return [
        (
            Head(title, column),
            [Cell(NOTHING) if row is None else Cell(text(row), metric in row.best, row) for row in rows],
        )
        for title, metric, text in renders
    ]


def _metrics(table: Table) -> list[tuple[str, str | None, Render]]:
    found: list[tuple[str, str | None, Render]] = []
    for metric in table.metrics:
        found.append((metric, metric, _measure(metric, "prequential")))
        # With one metric in each of several columns its name is nothing new.
        found.append(
            (f"p ({metric})" if len(table.columns) == 1 or len(table.metrics) > 1 else "p", None, _p(table, metric))
        )
    return found


def _measure(metric: str, measure: str) -> Render:
    return lambda row: interval(row.quality[metric].get(measure))


def _p(table: Table, metric: str) -> Render:
    def text(row: Row) -> str:
        if row.label == table.baseline:
            return "baseline" if len(table.of(row.column)) > 1 else NOTHING
        p = row.comparisons[metric].p_holm
        return NOTHING if p is None else p_value(p)

    return text


def _cost(measure: str) -> Render:
    """Seconds are marked where they are not comparable; those of a row's own runs may not be either: then no mean."""
    unit = COSTS[measure][1]

    def text(row: Row) -> str:
        value = row.cost.get(measure)
        number = NOTHING if value is None or value.mean is None else unit(value.mean)
        if measure in TIMES and row.apart:
            return APART if number == NOTHING else f"{number} {APART}"
        return number

    return text
