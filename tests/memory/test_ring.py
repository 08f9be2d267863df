from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.types import Batch, Memory
from incremental.memory import buffer, ring

B = 8
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch({"user": jax.ShapeDtypeStruct((), np.int32)}, *SCALARS)
UNEQUAL = [5, 2, 8, 0, 1, 4]  # 20 rows
insert = jax.jit(ring.insert)


def rows(first: int, valid: int) -> Batch:
    """`valid` rows labelled from `first` on, their places in the batch shuffled among padding rows labelled -1."""
    where = np.sort(np.random.default_rng(first).permutation(B)[:valid])
    labels = np.full(B, -1, np.int32)
    labels[where] = np.arange(first, first + valid)
    fields: Any = {"user": 10 * labels}, labels, np.ones(B, np.float32), labels >= 0, labels
    return Batch(*fields)


def after(capacity: int, batches: int) -> tuple[Memory, int]:
    """The memory after the first `batches` batches, and the rows that these held."""
    memory, offered = buffer.empty(EXAMPLE, capacity), 0
    for number in UNEQUAL[:batches]:
        memory = insert(memory, rows(1 + offered, number))
        offered += number
    return jax.tree.map(np.asarray, memory), offered


@pytest.mark.parametrize("capacity", [3, 8, 50])  # less than a batch, and more than all
def test_exactly_the_most_recent_rows_are_kept(capacity: int) -> None:
    for batches in range(len(UNEQUAL) + 1):
        memory, offered = after(capacity, batches)
        expected = list(range(max(1, offered - capacity + 1), offered + 1))
        assert sorted(memory.rows.labels[memory.rows.valid]) == expected
        assert memory.rows.valid.sum() == min(capacity, offered)
        assert memory.inserted == offered


def test_each_row_has_its_slot_and_all_its_fields() -> None:
    memory, _ = after(8, len(UNEQUAL))
    np.testing.assert_array_equal((memory.rows.labels - 1) % 8, np.arange(8))
    np.testing.assert_array_equal(memory.rows.inputs["user"], 10 * memory.rows.labels)
    np.testing.assert_array_equal(memory.rows.increment, memory.rows.labels)
