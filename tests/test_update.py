from typing import Any

import pytest

from incremental.errors import UserError
from incremental.update import update


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (0, [[0], [], [], []]),
        (1, [[0], [1], [2], [3]]),
        (2, [[0], [0, 1], [1, 2], [2, 3]]),
        (99, [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
        ("all", [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
    ],
)
def test_an_update_reads_the_last_increments_of_its_window(window: Any, expected: list[list[int]]) -> None:
    assert [list(update(window=window).increments(t)) for t in range(4)] == expected


def test_only_a_fresh_start_is_afresh() -> None:
    assert update(window="all", start="afresh").afresh
    assert not update(window="all").afresh
    assert not update(window=2, start="continue").afresh


def test_a_negative_window_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r'update\.window=-1: expected 0 .* or "all"'):
        update(window=-1)


def test_a_model_that_is_never_updated_cannot_start_afresh() -> None:
    with pytest.raises(UserError, match=r"update\.start=afresh with update\.window=0"):
        update(window=0, start="afresh")
