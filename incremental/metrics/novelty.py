"""Novelty: how little what is recommended was known before (Zhou et al. 2010, PNAS 107(10))."""

from typing import Any

import numpy as np

from incremental.domains import Count, checked
from incremental.metrics.metric import Metric


@checked
def novelty(*, k: Count) -> Metric:
    """1/n Σ -log2 p(i) over the n recommended items, the first K of each event; p(i) = events(i) / Σ_j events(j).

    Mean self-information in bits, of the training events before the test. An item without one counts as if it had one.
    NaN where nothing is recommended.
    """

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any) -> float:
        del ranks, rows
        shown, events = recommended[k], catalogue.events
        share = np.maximum(events, 1) / max(events.sum(), 1)
        return float(shown @ -np.log2(share) / shown.sum()) if shown.any() else float("nan")

    return Metric(f"novelty@{k}", measure, k)
