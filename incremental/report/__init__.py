"""Read finished runs and compare them: tables, statistics and pictures.

``print(report.text(report.table(report.read_runs(["runs"]).finished)))`` is the table of the command
``incremental-report``.
"""

from incremental.report.comparison import Table
from incremental.report.runs import Run, Runs, read_runs
from incremental.report.tables import table, text

__all__ = ["Run", "Runs", "Table", "read_runs", "table", "text"]
