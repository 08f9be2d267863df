from typing import Any

import jax
import numpy as np

from incremental.core import neighbours
from incremental.core.types import Batch, Catalogue, Data, Learner

NONE: Any = None
ITEMS: Any = np.zeros(6, bool)
USERS: Any = np.zeros(5, bool)
LEARNER = Learner(NONE, NONE, Catalogue(ITEMS, ITEMS, {"user": USERS}), NONE)


def data(pairs: list[tuple[int, int, int]]) -> Data:
    """(user, item, increment) of each example, then padding that says other things."""
    user, item, increment = np.array([*pairs, (1, 1, 9), (1, 1, 9)][:8], np.int32).T
    rows = Batch({}, item, NONE, np.arange(8) < 7, increment, user)  # type: ignore[arg-type]
    return Data(rows, np.int32(6), NONE, NONE, NONE)  # type: ignore[arg-type]


FIRST = data([(1, 2, 0), (1, 3, 0), (2, 3, 0), (1, 4, 0), (3, 3, 0), (1, 4, 0)])
SECOND = data([(1, 2, 0), (1, 5, 1), (3, 1, 1), (2, 3, 0), (3, 1, 1), (3, 2, 1)])  # a window: two came before


@jax.jit
def met(first: Data, second: Data) -> Any:
    old = neighbours.with_events(neighbours.nobody(LEARNER, 3), first)
    return old, neighbours.with_events(old, second, 0)


def test_the_latest_neighbours_stand_first_and_the_oldest_leave() -> None:
    old, new = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), met(FIRST, SECOND))
    assert old.users.latest == [[0, 0, 0], [4, 4, 3], [3, 0, 0], [3, 0, 0], [0, 0, 0]]
    assert old.users.degree == [0, 4, 1, 1, 0]
    assert old.items.latest == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [3, 2, 1], [1, 1, 0], [0, 0, 0]]
    assert new.users.latest == [[0, 0, 0], [5, 4, 4], [3, 0, 0], [2, 1, 1], [0, 0, 0]]
    assert new.users.degree == [0, 5, 1, 4, 0]
    assert new.items.latest == [[0, 0, 0], [3, 3, 0], [3, 1, 0], [3, 2, 1], [1, 1, 0], [1, 0, 0]]
    assert new.items.degree == [0, 2, 2, 3, 2, 1]
