"""Exposure of new items: what share of the recommendations they get (after Singh & Joachims 2018, arXiv 1802.07281)."""

from typing import Any

from incremental.domains import Count, checked
from incremental.metrics.metric import Metric


@checked
def new_item_exposure(*, k: Count) -> Metric:
    """Σ_{i new} c_i / Σ_i c_i, c_i how often item i is among the first K of an event of increment t.

    New are items without a training event (where data.unseen_items makes them candidates) and those whose first one is
    of increment t - 1, if that is not the base part: what the last update brought. NaN where no candidate is new, or
    nothing is recommended. Deviation: all K places weigh the same, where the source discounts them by 1 / log2.
    """

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any) -> float:
        del ranks, rows
        shown, new = recommended[k], catalogue.new & catalogue.candidates
        return float(shown[new].sum() / shown.sum()) if new.any() and shown.any() else float("nan")

    return Metric(f"new_item_exposure@{k}", measure, k)
