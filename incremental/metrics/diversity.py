"""Diversity: how unlike one another the items of a list are (Smyth & McClave 2001; Ziegler et al. 2005)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from incremental.domains import Count, checked
from incremental.metrics.metric import Metric


@checked
def diversity(*, k: Count, of: str | None = None) -> Metric:
    """1/(n(n-1)) Σ_{i≠j} d(i, j) of each event, over the n of its first K items of which something is known.

    d = 1 - cosine of their text vectors (`data.text`); with `of`, a kind of ids such as category, d = 1 where the
    items' differ, else 0. Intra-list distance: 0 all alike. NaN where n < 2.
    """

    def measure(ranks: Any, recommended: Any, catalogue: Any, rows: Any, given: Mapping[str, Any]) -> Any:
        del ranks, recommended, catalogue, rows
        alike, n = (by_text if of is None else by_field)(given["lists"], given[of or "text"])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n > 1, 1 - alike / (n * (n - 1)), np.nan)

    return Metric(f"diversity@{k}" + (f".{of}" if of else ""), measure, k, ("lists", of or "text"))


def by_text(lists: Any, text: Any) -> tuple[Any, Any]:
    """[N] Σ_{i≠j} cosine, and how many items have a vector: of unit vectors v, |Σ v|² - n."""
    length = np.linalg.norm(text, axis=1, keepdims=True)
    unit = np.divide(text, length, out=np.zeros(text.shape), where=length > 0)
    has = length[:, 0] > 0
    total, n = np.zeros((len(lists), text.shape[1])), np.zeros(len(lists))
    for items in lists.T:  # not [N, K, F] at once
        total += unit[items]
        n += has[items]
    return (total**2).sum(1) - n, n


def by_field(lists: Any, ids: Any) -> tuple[Any, Any]:
    """[N] the ordered pairs of one id, and how many items have an id."""
    own = ids[lists]
    pairs = sum(((own == one[:, None]) & (own > 0)).sum(1) for one in own.T)
    n = (own > 0).sum(1)
    return pairs - n, n
