"""The public face: a table from runs, and a table as text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from incremental.report import formats
from incremental.report.comparison import Table, compare
from incremental.report.notes import notes
from incremental.report.runs import Run

Format = Literal["terminal", "markdown", "latex", "csv"]


def table(
    runs: Sequence[Run],
    *,
    metrics: Sequence[str] = (),
    baseline: str | None = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    sensitivity: str | None = None,
    after: int = 0,
    labels: Mapping[str, str] | None = None,
) -> Table:
    """Compare ``runs`` by their prequential ``metrics`` (by default ndcg@10, or else the first there is).

    ``rows`` and ``columns`` are dotted keys of the runs' configurations: a row, and a column, for each combination
    of their values (by default a row for each ``row``, or for each ``name`` where runs of one row share a seed).
    ``sensitivity`` is the key of a number: it becomes a row factor, and the page draws the metrics against it.
    Increments up to ``after`` are left out of the qualities: those that something was chosen on.

    Rows are ordered by the mean of the first metric, highest first. Each is tested against ``baseline`` (by
    default finetune, or else the row of the first run) by a paired t-test over the seeds both have, with Holm's
    correction over the rows of a metric and column. ``text`` makes it readable. ``labels`` are other names for rows,
    columns, metrics and measures, new name by old one.

    >>> runs = [
    ...     Run(row, seed, {"ndcg@10": {"prequential": value}})
    ...     for row, values in {"finetune": [0.10, 0.12], "replay": [0.20, 0.24]}.items()
    ...     for seed, value in enumerate(values)
    ... ]
    >>> best = table(runs).rows[0]
    >>> best.label, round(best.quality["ndcg@10"]["prequential"].mean, 2), best.comparisons["ndcg@10"].pairs
    ('replay', 0.22, 2)

    With the keys of the configuration as factors:

    >>> sweep = [
    ...     Run("ewc", 0, {"ndcg@10": {"prequential": value}}, config={"strategies": {"anchor": {"weight": weight}}})
    ...     for weight, value in {0.1: 0.11, 1.0: 0.13, 10.0: 0.12}.items()
    ... ]
    >>> [row.label for row in table(sweep, rows=["row", "strategies.anchor.weight"]).rows]
    ['ewc weight=1', 'ewc weight=10', 'ewc weight=0.1']
    >>> [row.label for row in table(sweep, sensitivity="strategies.anchor.weight").rows]  # by value
    ['ewc weight=0.1', 'ewc weight=1', 'ewc weight=10']
    """
    made = compare(
        runs,
        metrics=metrics,
        baseline=baseline,
        rows=rows,
        columns=columns,
        sensitivity=sensitivity,
        after=after,
        labels=labels or {},
    )
    return replace(made, notes=notes(made))


def text(
    made: Table,
    style: Format = "terminal",
    *,
    show: Sequence[str] = (),
    width: int | None = None,
    bold: bool = False,
) -> str:
    """The table as text, its notes with it; ``print(text(table(runs)))``.

    ``show`` are the columns, in their order: metrics, ``p``, ``seeds`` and measures by their names in the CSV, such as
    ``slope`` or ``seconds_per_update`` (by default those of docs/reports.md). ``width`` (letters) and ``bold`` are of
    the terminal's format.
    """
    if show:
        made = replace(made, notes=notes(made, show))
    if style == "terminal":
        return formats.terminal(made, show=show, width=width, styled=bold)
    render = {"markdown": formats.markdown, "latex": formats.latex, "csv": formats.csv_table}[style]
    return render(made, show=show)
