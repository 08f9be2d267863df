"""The page's pictures, each by its name: as files for a paper."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from incremental.errors import UserError
from incremental.report import pictures
from incremental.report.comparison import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(table: Table) -> "Iterator[tuple[str, Figure]]":
    """Name and picture of everything that was measured: what it shows, then the metric, the column and the row."""
    for column in table.columns:
        for what, draw in (("loss", pictures.loss_curves), ("validation", pictures.validation_curves)):
            if (figure := draw(table, column)) is not None:
                yield named(what, column), figure
        for metric in table.metrics:
            for what, of in (
                ("over-time", pictures.quality_over_time),
                ("against-cost", pictures.quality_against_cost),
                ("sensitivity", pictures.sensitivity),
            ):
                if (figure := of(table, metric, column)) is not None:
                    yield named(what, metric, column), figure
            for row in table.of(column):
                if (figure := pictures.heat_map(table, row, metric)) is not None:
                    yield named("matrix", metric, column, row.label), figure


def named(*parts: str) -> str:
    """A file's name from what is not empty, of letters that every system and LaTeX's \\includegraphics take.

    >>> named("matrix", "ndcg@10", "", "ewc weight=0.1")
    'matrix-ndcg-10-ewc-weight-0-1'
    """
    return "-".join(re.sub(r"\W+", "-", part).strip("-") for part in parts if part)


def write(table: Table, folder: Path, ending: str = "pdf") -> list[Path]:
    """Writes every picture into ``folder`` as pdf, svg or png; returns the files. A name that is there is replaced.

    Rows whose names differ in signs only, such as weight=1 and weight=-1, are numbered.
    """
    written: list[Path] = []
    taken: Counter[str] = Counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures(table):
            taken[name] += 1
            number = f"-{taken[name]}" * (taken[name] > 1)
            written.append(folder / f"{name}{number}.{ending}")
            pictures.write(figure, written[-1])
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from error
    return written
