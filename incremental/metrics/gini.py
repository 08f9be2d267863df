"""Gini index: how unequally what is recommended falls on the items (Shani & Gunawardana 2011, Recommender Systems
Handbook)."""

from typing import Any

import numpy as np

from incremental.domains import Count, checked
from incremental.metrics.metric import Metric


@checked
def gini(*, k: Count) -> Metric:
    """1/(n-1) Σ_j (2j - n - 1) c_j / Σ c over the n candidates, c_1 ≤ … ≤ c_n how often each is among a first K.

    0: all equally often; 1: always one. Normalised by n - 1, so that 1 is reached; with n in its place other libraries'
    numbers are (n-1)/n times these. NaN where nothing is recommended, or there is one candidate.
    """

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any) -> float:
        del ranks, rows
        counts = np.sort(recommended[k][catalogue.candidates]).astype(np.float64)
        n = len(counts)
        if n < 2 or not counts.any():
            return float("nan")
        return float((2 * np.arange(1, n + 1) - n - 1) @ counts / ((n - 1) * counts.sum()))

    return Metric(f"gini@{k}", measure, k)
