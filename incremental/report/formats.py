"""The table as text: terminal, Markdown, LaTeX (booktabs), and CSV with the raw numbers."""

import csv
import io
import re
from collections.abc import Sequence

from incremental.report.comparison import Row, Table
from incremental.report.grid import Cell, Grid, grid
from incremental.report.settings import shown


def terminal(table: Table, *, show: Sequence[str] = (), width: int | None = None, styled: bool = False) -> str:
    """A table by rich, its notes below. ``width`` None is as wide as it needs; ``styled`` allows bold.

    A table that is wider than ``width`` comes in parts, each with the rows' names: folded numbers cannot be read.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    layout = grid(table, show)
    several = len(layout.spans) > 1
    titles = [Text(f"{head.of}\n{head.title}" if several else head.title) for head in layout.header]
    rows = [[Text(_starred(cell), style="bold" if cell.best else "") for cell in row] for row in layout.rows]
    widths = [
        max(line.cell_len for text in (title, *cells) for line in text.split("\n", allow_blank=True))
        for title, *cells in zip(titles, *rows, strict=True)
    ]
    out = io.StringIO()
    console = Console(
        file=out,
        width=width or 10_000,
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
        emoji=False,
    )
    for places in _parts(widths, console.width):
        drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for place in places:
            drawn.add_column(titles[place], justify="right" if place else "left", vertical="bottom", overflow="fold")
        for row in rows:
            drawn.add_row(*(row[place] for place in places))
        console.print(drawn)
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    return text.strip("\n") + "\n\n" + "\n".join(table.notes) + "\n"


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns of each part of a table; the first one, with the names, is in all.

    >>> _parts([8, 5, 15, 8, 15], 40)
    [[0, 1, 2], [0, 3, 4]]
    """
    parts = [[0]]
    for place in range(1, len(widths)):
        needed = sum(widths[one] + 3 for one in (*parts[-1], place)) - 1  # three blanks between, one at each edge
        if needed > room and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(place)
    return parts


_MARKED = re.compile(r"[|*`]|<(?=[a-zA-Z/!?])|\[(?=[^\]]*\]\()")  # a mark, HTML, a link


def markdown(table: Table, *, show: Sequence[str] = ()) -> str:
    """A GitHub table, numbers aligned right, the notes below as a list."""
    return markdown_grid(grid(table, show)) + "\n" + "".join(f"- {note}\n" for note in table.notes)


def markdown_grid(layout: Grid) -> str:
    """The cells as a GitHub table, marked ones in bold."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    def plain(text: object) -> str:
        return _MARKED.sub(r"\\\g<0>", str(text))

    body = [[f"**{plain(cell.text)}**" if cell.best else plain(cell.text) for cell in row] for row in layout.rows]
    rule = "|---|" + "---:|" * (len(layout.header) - 1) + "\n"
    return line(list(map(plain, layout.header))) + rule + "".join(map(line, body))


def latex(table: Table, *, show: Sequence[str] = ()) -> str:
    r"""A ``tabular`` for ``\usepackage{booktabs}``, the notes above it as comments."""
    layout = grid(table, show)

    def line(cells: Sequence[str]) -> str:
        # Behind the end of a line a bracket would be a length, and a star a command's variant.
        return "{}" * cells[0].startswith(("[", "*")) + " & ".join(cells) + " \\\\\n"

    body = [
        [f"\\textbf{{{_escaped(cell.text)}}}" if cell.best else _escaped(cell.text) for cell in row]
        for row in layout.rows
    ]
    return (
        "".join(f"% {note}\n" for note in table.notes)
        + f"\\begin{{tabular}}{{l{'r' * (len(layout.header) - 1)}}}\n\\toprule\n"
        + _spans(layout)
        + line([_escaped(head.title) for head in layout.header])
        + "\\midrule\n"
        + "".join(map(line, body))
        + "\\bottomrule\n\\end{tabular}\n"
    )


def _spans(layout: Grid) -> str:
    """The values of the column factors above the header, each over its columns."""
    if len(layout.spans) == 1:
        return ""
    start, heads, rules = 1, [], []
    for of, length in layout.spans:
        heads.append(f"\\multicolumn{{{length}}}{{c}}{{{_escaped(of)}}}" if of else "")
        if of:
            rules.append(f"\\cmidrule(lr){{{start}-{start + length - 1}}}")
        start += length
    return " & ".join(heads) + " \\\\\n" + " ".join(rules) + "\n"


CSV_COLUMNS = ["metric", "measure", "mean", "half_width", "n", "difference", "p", "p_holm", "pairs", "lanes", "runs"]


def csv_table(table: Table, *, show: Sequence[str] = ()) -> str:
    """One line a number, unrounded, empty where not measured; tests are on the ``prequential`` lines.

    The factors come first. ``metric`` is "cost" for costs. ``difference``, ``p``, ``p_holm`` and ``pairs`` are
    against the baseline. ``lanes`` say how many runs shared the seconds, and ``runs`` are the directories behind the
    number; several are apart by ";". With ``show`` only the numbers of these columns are there, in the table's order.
    """
    if show:
        grid(table, show)  # says which names there are
    factors = [*table.row_factors, *table.column_factors]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*factors, *CSV_COLUMNS])
    for row in table.rows:
        own = [shown(row.factors[key]) if key in row.factors else None for key in factors]
        runs = [";".join(map(str, row.lanes)), _directories(row)]
        for metric, measures in row.quality.items():
            for measure, value in measures.items():
                if show and (metric if measure == "prequential" else measure) not in show:
                    continue
                tested = row.comparisons.get(metric) if measure == "prequential" else None
                test = [None] * 4 if tested is None else tested[:4]
                writer.writerow([*own, table.title(metric), table.title(measure), *value, *test, *runs])
        for measure, value in row.cost.items():
            if show and measure not in show:
                continue
            writer.writerow([*own, "cost", table.title(measure), *value, *[None] * 4, *runs])
    return out.getvalue()


def _directories(row: Row) -> str:
    return ";".join(str(run.directory or run.name) for run in row.runs)


def _starred(cell: Cell) -> str:
    return cell.text + "*" if cell.best else cell.text


_LATEX = {
    **{char: "\\" + char for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"\textdagger{}",
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
