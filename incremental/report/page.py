"""One self-contained HTML page: the table, its notes, and the pictures inside."""

from collections.abc import Sequence
from importlib import resources

from incremental.report import formats, pictures
from incremental.report.comparison import Table


def page(table: Table, *, title: str = "Update strategies compared", notes: Sequence[str] = ()) -> str:
    """The page as text; it refers to no other file. ``notes`` come after the table's own."""
    import jinja2

    source = resources.files("incremental.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    return template.render(
        title=title,
        grid=formats.grid(table),
        notes=[*table.notes, *notes],
        metrics=[_metric(table, metric) for metric in table.metrics],
        runs=[f"{row.label}, seed {run.seed}: {run.directory or run.name}" for row in table.rows for run in row.runs],
    )


def _metric(table: Table, metric: str) -> dict[str, object]:
    """The pictures of a metric as ``data:`` addresses; None, or left out, where nothing was measured."""
    over_time = pictures.quality_over_time(table, metric)
    against_cost = pictures.quality_against_cost(table, metric)
    maps = [(row.label, pictures.heat_map(table, row, metric)) for row in table.rows]
    return {
        "name": metric,
        "over_time": over_time and pictures.data_uri(over_time),
        "against_cost": against_cost and pictures.data_uri(against_cost),
        "maps": [(label, pictures.data_uri(figure)) for label, figure in maps if figure is not None],
    }
