"""Ranking metrics of a user's items of one test as one relevant set, averaged over users."""

from typing import Any

import numpy as np

from incremental.domains import checked
from incremental.metrics.metric import Metric
from incremental.metrics.ranking import parse


@checked
def user_sets(*, of: str) -> Metric:
    """1/W Σ_u m_u over the W users of a test, R_u the items of u's tested events; named "sets-ndcg@10" and so on.

    An item is in R_u once, however many events have it. r are the ranks of R_u from 0: recall@K = |{r < K}| / |R_u|;
    hit@K = [min r < K]; mrr@K = [min r < K] / (min r + 1); ndcg@K = Σ_{r < K} 1 / log2(r + 2) / Σ_{j < min(K, |R_u|)}
    1 / log2(j + 2) (Järvelin & Kekäläinen 2002). The ranks are those of one list where nothing changes within the test:
    the model reads no history, and `data.exclude_seen=earlier` (or false). NaN without events.
    """
    kind, k = parse(of)

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any) -> float:
        del recommended, catalogue
        if not len(ranks):
            return float("nan")
        pairs = rows.user.astype(np.int64) * (int(rows.label.max()) + 1) + rows.label
        once = np.sort(np.unique(pairs, return_index=True)[1])  # in the events' order
        ranks = np.asarray(ranks, np.float64)[once]
        users, user, number = np.unique(rows.user[once], return_inverse=True, return_counts=True)
        hit = ranks < k
        if kind == "recall":
            value = np.bincount(user, hit) / number
        elif kind == "ndcg":
            gains = np.where(hit, 1.0 / np.log2(np.where(hit, ranks, 0.0) + 2.0), 0.0)
            ideal = np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))
            value = np.bincount(user, gains) / ideal[np.minimum(number, k) - 1]
        else:
            best = np.full(len(users), np.inf)
            np.minimum.at(best, user, ranks)
            value = (best < k) / (np.where(best < k, best, 0.0) + 1.0 if kind == "mrr" else 1.0)
        return float(value.mean())

    return Metric(f"sets-{of}", measure, whole=True)
