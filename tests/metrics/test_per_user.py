"""Means over users, by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from incremental.metrics.per_user import per_user

RANKS = np.array([0.0, 2.0, np.inf, 0.0, 2.0], np.float32)  # ndcg@10: 1, 1/2, 0, 1, 1/2
ROWS = SimpleNamespace(event=np.array([4, 1, 7, 9, 3]), user=np.array([5, 5, 8, 5, 2]))
# User 5 has events 1, 4, 9 with 1/2, 1, 1; user 8 event 7 with 0; user 2 event 3 with 1/2.


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        ("mean", "users-ndcg@10", (2.5 / 3 + 0 + 0.5) / 3),
        ("last", "last-ndcg@10", (1 + 0 + 0.5) / 3),
        ("first", "first-ndcg@10", (0.5 + 0 + 0.5) / 3),
    ],
)
def test_each_user_counts_once(target: str, name: str, value: float) -> None:
    metric = per_user(of="ndcg@10", target=target)  # type: ignore[arg-type]
    assert metric.name == name
    assert metric.measure(RANKS, {}, None, ROWS) == pytest.approx(value)


def test_nothing_is_said_of_no_events() -> None:
    nothing = SimpleNamespace(event=np.zeros(0, int), user=np.zeros(0, int))
    assert math.isnan(per_user(of="recall@5").measure(RANKS[:0], {}, None, nothing))
