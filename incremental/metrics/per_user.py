"""A ranking metric over users in place of events: each user counts once, however many events of theirs are tested."""

from typing import Any, Literal

import numpy as np

from incremental.domains import checked
from incremental.metrics.metric import Metric
from incremental.metrics.ranking import per_event


@checked
def per_user(*, of: str, target: Literal["mean", "last", "first"] = "mean") -> Metric:
    """1/W Σ_u m_u over the W users of a test; m_u is the mean of the metric `of` over the user's tested events, or its
    value at the last or the first of them. Named "users-ndcg@10", "last-ndcg@10", "first-ndcg@10".

    Where an increment is the whole test these are the targets "successive, mean over users", "last" and "first" of
    Gusak et al. (RecSys 2025, arXiv 2507.16289). NaN without events.
    """
    metric = per_event(of)

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any) -> float:
        del recommended, catalogue
        values = np.asarray(metric(ranks), np.float64)
        if not len(values):
            return float("nan")
        in_time = np.argsort(rows.event, kind="stable")
        values, user = values[in_time], rows.user[in_time]
        _, first, number, events = np.unique(user, return_index=True, return_inverse=True, return_counts=True)
        if target == "first":
            return float(values[first].mean())
        if target == "last":
            _, last = np.unique(user[::-1], return_index=True)
            return float(values[::-1][last].mean())
        return float((np.bincount(number, values) / events).mean())

    return Metric(f"{'users' if target == 'mean' else target}-{of}", measure, whole=True)
