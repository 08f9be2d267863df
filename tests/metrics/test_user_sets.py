"""Two users by hand: their items are sets, their means the metric."""

import math
from typing import Any

import numpy as np
import pytest

from incremental.data.features import Examples
from incremental.metrics.metric import Catalogue
from incremental.metrics.user_sets import user_sets

RANKS: Any = np.array([0.0, 1.0, np.inf, 2.0, 30.0], np.float32)
USERS: Any = np.array([7, 3, 7, 7, 3], np.int32)  # ranks of 7: 0, inf, 2; of 3: 1, 30
ITEMS: Any = np.array([4, 4, 9, 1, 2], np.int32)


def value(of: str, ranks: Any = RANKS, users: Any = USERS, items: Any = ITEMS) -> Any:
    none: Any = np.zeros(len(users), np.int32)
    rows = Examples(none, users, none.reshape(len(users), 1), items[: len(users)], none)
    metric = user_sets(of=of)
    assert metric.name == f"sets-{of}"
    return metric.measure(ranks, {}, Catalogue([], none, none.astype(bool), none.astype(bool)), rows)


@pytest.mark.parametrize(
    ("of", "users"),
    [
        ("recall@2", (1 / 3, 1 / 2)),
        ("recall@3", (2 / 3, 1 / 2)),
        ("hit@1", (1.0, 0.0)),
        ("mrr@2", (1.0, 1 / 2)),
        ("ndcg@1", (1.0, 0.0)),
        # ideals: of three items at K = 3, and of two
        ("ndcg@3", (1.5 / (1.5 + 1 / math.log2(3)), 1 / math.log2(3) / (1 + 1 / math.log2(3)))),
    ],
)
def test_a_set_is_the_users_and_the_mean_over_users(of: str, users: tuple[float, float]) -> None:
    assert value(of) == pytest.approx(sum(users) / 2)


@pytest.mark.parametrize("of", ["recall@2", "hit@2", "mrr@2", "ndcg@2"])
def test_an_item_of_several_events_is_in_the_set_once(of: str) -> None:
    again = [0, 1, 2, 0, 3, 4, 0, 2]  # user 7 has item 4 three times and item 9 twice
    assert value(of, RANKS[again], USERS[again], ITEMS[again]) == value(of)
    assert value(of, RANKS[[0, 0]], USERS[[0, 0]], ITEMS[[0, 0]]) == 1.0


def test_without_events_there_is_no_value() -> None:
    assert math.isnan(value("recall@10", RANKS[:0], USERS[:0]))
