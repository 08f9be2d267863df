"""The table as text: terminal, Markdown, LaTeX (booktabs), and CSV with the raw numbers."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from incremental.report.comparison import Row, Table
from incremental.report.statistics import Estimate

NOTHING = "–"

# What explains the first metric in the narrow formats; the CSV has every measure.
EXPLAINED_BY = {
    "slope": "slope",
    "learning_accuracy": "learning acc.",
    "forgetting": "forgetting",
    "forward_transfer": "fwd transfer",
    "intransigence": "intransigence",
}


class Cell(NamedTuple):
    """Text of one cell; ``best`` marks the significantly best row of its column."""

    text: str
    best: bool = False


class Grid(NamedTuple):
    """The table as cells: ``header`` [columns], ``rows`` [rows][columns]; the first column is the label."""

    header: list[str]
    rows: list[list[Cell]]


def grid(table: Table) -> Grid:
    """Each metric with its p, what explains the first metric, and cost; empty columns are left out."""
    columns: list[tuple[str, Callable[[Row], Cell]]] = [("strategy", lambda row: Cell(row.label))]
    columns.append(("seeds", lambda row: Cell(str(len(row.runs)))))
    for metric in table.metrics:
        columns.append((metric, _quality(table, metric)))
        columns.append((f"p ({metric})", _p(table, metric)))
    for measure, title in EXPLAINED_BY.items():
        columns.append((title, _measure(table.metrics[0], measure)))
    columns.append(("s/update", _cost("seconds_per_update", seconds)))
    columns.append(("examples", _cost("examples", whole)))
    columns.append(("params written", _cost("parameters_written", whole)))
    columns.append(("memory", _cost("memory_bytes", size)))
    cells = {title: [render(row) for row in table.rows] for title, render in columns}
    kept = {title: column for title, column in cells.items() if any(cell.text != NOTHING for cell in column)}
    return Grid(list(kept), [list(row) for row in zip(*kept.values(), strict=True)])


def terminal(table: Table, *, width: int | None = None, styled: bool = False) -> str:
    """A table by rich, its notes below. ``width`` None is as wide as it needs; ``styled`` allows bold."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    layout = grid(table)
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(layout.header):
        drawn.add_column(Text(title), justify="left" if place == 0 else "right", overflow="fold")
    for row in layout.rows:
        drawn.add_row(*(Text(_starred(cell), style="bold" if cell.best else "") for cell in row))
    out = io.StringIO()
    console = Console(
        file=out,
        width=width or 10_000,
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
        emoji=False,
    )
    console.print(drawn)
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    return text.strip("\n") + "\n\n" + "\n".join(table.notes) + "\n"


def markdown(table: Table) -> str:
    """A GitHub table, numbers aligned right, the notes below as a list."""
    layout = grid(table)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |\n"

    body = [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in layout.rows]
    rule = "|---|" + "---:|" * (len(layout.header) - 1) + "\n"
    notes = "".join(f"- {note}\n" for note in table.notes)
    return line(layout.header) + rule + "".join(map(line, body)) + "\n" + notes


def latex(table: Table) -> str:
    r"""A ``tabular`` for ``\usepackage{booktabs}``, the notes above it as comments."""
    layout = grid(table)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + " \\\\\n"

    body = [
        [f"\\textbf{{{_escaped(cell.text)}}}" if cell.best else _escaped(cell.text) for cell in row]
        for row in layout.rows
    ]
    return (
        "".join(f"% {note}\n" for note in table.notes)
        + f"\\begin{{tabular}}{{l{'r' * (len(layout.header) - 1)}}}\n\\toprule\n"
        + line([_escaped(title) for title in layout.header])
        + "\\midrule\n"
        + "".join(map(line, body))
        + "\\bottomrule\n\\end{tabular}\n"
    )


CSV_COLUMNS = ["row", "metric", "measure", "mean", "half_width", "n", "difference", "p", "p_holm", "pairs"]


def csv_table(table: Table) -> str:
    """One line a number, unrounded, empty where not measured; tests are on the ``prequential`` lines.

    ``metric`` is "cost" for costs. ``difference``, ``p``, ``p_holm`` and ``pairs`` are against the baseline.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows:
        for metric, measures in row.quality.items():
            for measure, value in measures.items():
                tested = row.comparisons.get(metric) if measure == "prequential" else None
                test = [None] * 4 if tested is None else tested[:4]
                writer.writerow([row.label, metric, measure, *value, *test])
        for measure, value in row.cost.items():
            writer.writerow([row.label, "cost", measure, *value, *[None] * 4])
    return out.getvalue()


def seconds(value: float) -> str:
    """Seconds to three digits.

    >>> seconds(0.012345), seconds(12.3456), seconds(1234.5), seconds(0.0)
    ('0.0123', '12.3', '1,234', '0')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def whole(value: float) -> str:
    """A count, with thousands apart.

    >>> whole(1234567.0)
    '1,234,567'
    """
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in powers of 1024.

    >>> size(0), size(1536), size(5 * 2**20)
    ('0 B', '1.5 KiB', '5.0 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def p_value(p: float) -> str:
    """A p-value to three decimals.

    >>> p_value(0.0004), p_value(0.0312)
    ('<0.001', '0.031')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _quality(table: Table, metric: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.quality[metric].get("prequential")
        return Cell(_estimate(value), best=table.best.get(metric) == row.label)

    return cell


def _p(table: Table, metric: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        if row.label == table.baseline:
            return Cell("baseline" if len(table.rows) > 1 else NOTHING)
        p = row.comparisons[metric].p_holm
        return Cell(NOTHING if p is None else p_value(p))

    return cell


def _measure(metric: str, measure: str) -> Callable[[Row], Cell]:
    return lambda row: Cell(_estimate(row.quality[metric].get(measure)))


def _cost(name: str, unit: Callable[[float], str]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.cost.get(name)
        return Cell(NOTHING if value is None or value.mean is None else unit(value.mean))

    return cell


def _estimate(value: Estimate | None) -> str:
    if value is None or value.mean is None:
        return NOTHING
    mean = f"{value.mean:.4f}".replace("-0.0000", "0.0000")
    return mean if value.half_width is None else f"{mean} ± {value.half_width:.4f}"


def _starred(cell: Cell) -> str:
    return cell.text + "*" if cell.best else cell.text


_LATEX = {
    **{char: "\\" + char for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}


def _escaped(text: str) -> str:
    """Special characters for LaTeX, and a minus sign where a number starts with a hyphen."""
    if text.startswith("-"):
        return "$-$" + _escaped(text[1:])
    return "".join(_LATEX.get(char, char) for char in text)
