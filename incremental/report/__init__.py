"""Read finished runs and compare them: tables, statistics and pictures.

``print(report.table(report.read_runs(["runs"]).finished))`` is the table of the command
``incremental-report``.
"""

from incremental.report.comparison import Table, table
from incremental.report.runs import Run, Runs, read_runs

__all__ = ["Run", "Runs", "Table", "read_runs", "table"]
