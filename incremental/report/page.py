"""One self-contained HTML page: the table, its notes, the pictures inside, and the runs behind every number."""

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from incremental.report import pictures
from incremental.report.comparison import Row, Table
from incremental.report.differences import differences, explained
from incremental.report.direction import is_quality
from incremental.report.grid import Cell, Grid, detailed, grid
from incremental.report.numbers import NOTHING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(table: Table, *, title: str = "Update strategies compared", notes: Sequence[str] = ()) -> str:
    """The page as text; it refers to no other file. ``notes`` come after the table's own."""
    import jinja2

    source = resources.files("incremental.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    place = {id(row): f"runs-{number}" for number, row in enumerate(table.rows)}

    def anchor(cell: Cell) -> str | None:
        return None if cell.row is None else place[id(cell.row)]

    return template.render(
        title=title,
        grid=grid(table),
        differences=[
            (differences(table, metric), explained(table, metric)) for metric in table.metrics if len(table.columns) > 1
        ],
        anchor=anchor,
        notes=[*table.notes, *notes],
        curves=[
            (column, _address(pictures.loss_curves(table, column)), _address(pictures.validation_curves(table, column)))
            for column in table.columns
        ],
        parts=[_part(table, metric, column) for column in table.columns for metric in table.metrics],
        metrics=[*map(table.title, table.metrics)],
        runs=[(place[id(row)], _name(row), _runs(row, table.metrics)) for row in table.rows],
    )


def _part(table: Table, metric: str, column: str) -> dict[str, Any]:
    """A metric in a column: its pictures as ``data:`` addresses, None or left out where nothing was measured.

    With several columns the details of each stand above its first metric.
    """
    maps = [(row.label, _address(pictures.heat_map(table, row, metric))) for row in table.of(column)]
    first = len(table.columns) > 1 and metric == table.metrics[0]
    details: Grid | None = detailed(table, column) if first else None
    return {
        "name": f"{table.title(metric)}, {column}" if column else table.title(metric),
        "details": details,
        "many": len(table.of(column)) > pictures.MANY,
        "more_is_better": is_quality(metric),
        "over_time": _address(pictures.quality_over_time(table, metric, column)),
        "against_cost": _address(pictures.quality_against_cost(table, metric, column)),
        "sensitivity": _address(pictures.sensitivity(table, metric, column)),
        "maps": [(label, address) for label, address in maps if address is not None],
    }


def _address(figure: "Figure | None") -> str | None:
    return None if figure is None else pictures.data_uri(figure)


def _name(row: Row) -> str:
    return f"{row.label} ({row.column})" if row.column else row.label


def _runs(row: Row, metrics: Sequence[str]) -> list[tuple[int, list[str], str]]:
    """Seed, the metrics and the directory of each run."""

    def value(number: float | None) -> str:
        return NOTHING if number is None else f"{number:.4f}"

    return [
        (
            run.seed,
            [value(run.metrics.get(metric, {}).get("prequential")) for metric in metrics],
            str(run.directory or run.name or NOTHING),
        )
        for run in row.runs
    ]
