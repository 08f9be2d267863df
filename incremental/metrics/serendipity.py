"""Serendipity: right, and not what a primitive recommender shows (Ge, Delgado-Battenfeld & Jannach 2010, RecSys)."""

from typing import Any

import numpy as np

from incremental.domains import Count, checked
from incremental.metrics.metric import Metric


@checked
def serendipity(*, k: Count) -> Metric:
    """[r < K] [q ≥ K] of each event, r the label's rank by the model, q its rank by training events before the test.

    Both from 0 among the candidates, ties counted as half; the primitive recommender is popularity, the same for every
    row of a table, and it leaves out nothing that a user had. Deviation: the source divides by the length of the list,
    which one right item makes a constant 1 / K; so recall@K - serendipity@K is what popularity would have found too.
    """

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any) -> Any:
        del recommended
        events = catalogue.events
        in_order = np.sort(events[catalogue.candidates])
        inside = rows.label < len(events)
        own = events[np.where(inside, rows.label, 0)]
        lower, upper = (np.searchsorted(in_order, own, side) for side in ("left", "right"))
        popularity = len(in_order) - upper + (upper - lower - 1) / 2
        return ((ranks < k) & inside & (popularity >= k)).astype(np.float64)

    return Metric(f"serendipity@{k}", measure, k)
