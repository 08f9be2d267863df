"""Calibration: whether a list has the user's interests in their proportions (Steck 2018, RecSys)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from incremental.domains import Count, checked
from incremental.metrics.metric import Metric

SMOOTHING = 0.01  # α: a category of the past that the list lacks costs much, and not infinitely much


@checked
def calibration(*, k: Count, of: str) -> Metric:
    """Σ_c p(c) ln(p(c) / q̃(c)) of each event, q̃ = (1 - α) q + α p, α = 0.01; 0 is calibrated, less is better.

    p: the shares of the categories among the user's last L events; q: those among the first K items. `of` is the kind
    of ids that says an item's category, one an item; items without one count for neither. NaN where the past or the
    list has no category. Deviation: the source weighs items by time or rank at choice; here all weigh the same.
    """

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any, given: Mapping[str, Any]) -> Any:
        del ranks, recommended, catalogue, rows
        past, shown = given[of][given["past"]], given[of][given["lists"]]
        n, m = (past > 0).sum(1), (shown > 0).sum(1)
        total = np.zeros(len(past))
        with np.errstate(invalid="ignore", divide="ignore"):
            for own in past.T:  # each event of the past has 1/n of its category's term
                p = (past == own[:, None]).sum(1) / n
                q = (shown == own[:, None]).sum(1) / m
                total += np.where(own > 0, np.log(p / ((1 - SMOOTHING) * q + SMOOTHING * p)), 0.0) / n
        return np.where((n > 0) & (m > 0), total, np.nan)

    return Metric(f"calibration@{k}.{of}", measure, k, ("lists", "past", of))
