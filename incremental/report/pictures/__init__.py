"""Pictures of a table.

Every function returns a ``matplotlib.figure.Figure`` (or None where nothing was measured), drawn without
pyplot, so that no window or global state is involved. A row has the same colour, line and marker in all of
them.
"""

from incremental.report.pictures.against_cost import quality_against_cost
from incremental.report.pictures.differences import draw_differences
from incremental.report.pictures.drawing import MANY, data_uri, styles, write
from incremental.report.pictures.heat_map import heat_map
from incremental.report.pictures.over_epochs import loss_curves, validation_curves
from incremental.report.pictures.over_time import quality_over_time
from incremental.report.pictures.sensitivity import sensitivity

__all__ = [
    "MANY",
    "data_uri",
    "draw_differences",
    "heat_map",
    "loss_curves",
    "quality_against_cost",
    "quality_over_time",
    "sensitivity",
    "styles",
    "validation_curves",
    "write",
]
