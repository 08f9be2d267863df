"""Where a study has several columns, the first thing to read: how far each row is from the baseline in each of them."""

from incremental.report.comparison import SIGNIFICANT, Row, Table, prequential
from incremental.report.grid import Cell, Grid, Head
from incremental.report.numbers import NOTHING


def differences(table: Table, metric: str) -> Grid:
    """Rows by columns: the mean difference to the baseline over the seeds of both; the baseline's line is its mean.

    Cells of significant differences are marked, up or down.
    """
    lines = []
    for label in table.labels:
        own = {row.column: row for row in table.rows if row.label == label}
        lines.append([Cell(label), *(_cell(own.get(column), metric, table.baseline) for column in table.columns)])
    return Grid([Head(f"{table.title(metric)}, difference to {table.baseline}"), *map(Head, table.columns)], lines)


def explained(table: Table, metric: str) -> str:
    """What the table of differences shows."""
    return (
        f"Difference in {table.title(metric)} to {table.baseline}, whose line is its mean; bold and * where "
        f"significant, up or down (paired t-test over the seeds, p < {SIGNIFICANT} after Holm's correction over the "
        "rows of a column)."
    )


def _cell(row: Row | None, metric: str, baseline: str) -> Cell:
    if row is None:
        return Cell(NOTHING)
    if row.label == baseline:
        mean = prequential(row, metric)
        return Cell(NOTHING if mean is None else f"{mean:.4f}", row=row)
    tested = row.comparisons[metric]
    text = NOTHING if tested.difference is None else f"{tested.difference:+.4f}"
    return Cell(text, tested.p_holm is not None and tested.p_holm < SIGNIFICANT, row)
