from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.core.types import Batch, Memory
from incremental.memory import buffer, reservoir

B = 8
KINDS = (np.int32, np.float32, np.bool_, np.int32)
SCALARS: list[Any] = [jax.ShapeDtypeStruct((), kind) for kind in KINDS]
EXAMPLE = Batch(
    {"user": jax.ShapeDtypeStruct((), np.int32)},
    *SCALARS,
)


def rows(first: int, valid: int) -> Batch:
    """`valid` rows labelled from `first` on, their places in the batch shuffled among padding rows labelled -1."""
    where = np.sort(np.random.default_rng(first).permutation(B)[:valid])
    labels = np.full(B, -1, np.int32)
    labels[where] = np.arange(first, first + valid)
    fields: Any = {"user": 10 * labels}, labels, np.ones(B, np.float32), labels >= 0, labels
    return Batch(*fields)


def inserted(valid: list[int], capacity: int, key: Any) -> Memory:
    memory, first = buffer.empty(EXAMPLE, capacity), 1
    for i, number in enumerate(valid):
        memory = reservoir.insert(memory, rows(first, number), jax.random.fold_in(key, i))
        first += number
    return memory


def slot_by_slot(valid: list[int], capacity: int, key: Any) -> list[int]:
    """Vitter's algorithm R, one row at a time."""
    slots = [0] * capacity
    n, first = 0, 1
    for i, number in enumerate(valid):
        batch: Any = rows(first, number)
        numbers = n + np.cumsum(batch.valid) - 1
        draws = jax.random.randint(jax.random.fold_in(key, i), (B,), 0, np.maximum(numbers, 0) + 1)
        for label, real, draw in zip(batch.labels, batch.valid, np.asarray(draws), strict=True):
            if real:
                slot = n if n < capacity else int(draw)
                if slot < capacity:
                    slots[slot] = int(label)
                n += 1
        first += number
    return slots


UNEQUAL = [5, 2, 8, 1, 4]  # 20 rows


@pytest.fixture(scope="module")
def many() -> Memory:
    """A memory of 4 rows for each of many keys."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    run = jax.jit(jax.vmap(lambda key: inserted(UNEQUAL, 4, key)))
    memory: Memory = jax.tree.map(np.asarray, run(keys))
    return memory


def test_every_row_inserted_so_far_is_equally_likely_to_be_kept(many: Memory) -> None:
    n, c = sum(UNEQUAL), 4
    counts = np.bincount(many.rows.labels.ravel(), minlength=n + 1)
    assert counts[0] == 0
    expected = many.rows.labels.size / n
    # Sampling without replacement spreads less than the multinomial.
    statistic = ((counts[1:] - expected) ** 2).sum() / (expected * (1 - c / n)) * (n - 1) / n
    assert 1e-4 < stats.chi2(n - 1).sf(statistic) < 1 - 1e-4


def test_each_pair_of_rows_is_equally_likely(many: Memory) -> None:
    n, runs = sum(UNEQUAL), len(many.rows.labels)
    labels = np.asarray(many.rows.labels)
    together = np.zeros((n + 1, n + 1))
    for a in range(4):
        for b in range(4):
            if a != b:
                np.add.at(together, (labels[:, a], labels[:, b]), 1)
    assert (np.diag(together) == 0).all()  # no row twice
    chance = (4 * 3) / (n * (n - 1))
    deviation = np.abs(together[1:, 1:] - runs * chance)[~np.eye(n, dtype=bool)]
    assert deviation.max() < 4.7 * np.sqrt(runs * chance * (1 - chance))


def test_a_row_is_kept_with_all_its_fields(many: Memory) -> None:
    labels = np.asarray(many.rows.labels)
    np.testing.assert_array_equal(many.rows.inputs["user"], 10 * labels)
    np.testing.assert_array_equal(many.rows.increment, labels)
    assert np.asarray(many.rows.valid).all()
    assert (np.asarray(many.inserted) == sum(UNEQUAL)).all()


@pytest.fixture(scope="module")
def insert() -> Any:
    return jax.jit(lambda memory, rows, key: reservoir.insert(memory, rows, key))


def test_slots_fill_in_order_while_there_is_room(insert: Any) -> None:
    memory, first = buffer.empty(EXAMPLE, 6), 1
    for number in (2, 0, 3):
        memory = insert(memory, rows(first, number), jax.random.key(first))
        first += number
        filled = np.arange(6) < first - 1
        np.testing.assert_array_equal(memory.rows.labels, np.where(filled, np.arange(1, 7), 0))
        np.testing.assert_array_equal(memory.rows.valid, filled)


@pytest.mark.parametrize("seed", range(8))
def test_batches_act_as_row_by_row_whichever_slots_collide(seed: int) -> None:
    key = jax.random.key(seed)
    for capacity in (1, 3):
        memory = COLLIDING[capacity](key)
        assert memory.rows.labels.tolist() == slot_by_slot([8, 7, 8], capacity, key)


COLLIDING = {c: jax.jit(lambda key, c=c: inserted([8, 7, 8], c, key)) for c in (1, 3)}


def test_a_memory_larger_than_the_stream_keeps_everything(insert: Any) -> None:
    memory = buffer.empty(EXAMPLE, 6)
    memory = insert(memory, rows(1, 6), jax.random.key(0))
    assert memory.rows.labels.tolist() == [1, 2, 3, 4, 5, 6]


def test_padding_rows_are_never_inserted(insert: Any) -> None:
    memory = insert(buffer.empty(EXAMPLE, 6), rows(1, 0), jax.random.key(0))
    assert int(memory.inserted) == 0
    assert not memory.rows.valid.any()


def test_a_memory_without_slots_stays_empty() -> None:
    memory = jax.jit(lambda key: inserted([3], 0, key))(jax.random.key(0))
    assert memory.rows.labels.shape == (0,)


@pytest.fixture(scope="module")
def sample() -> Any:
    return jax.jit(lambda memory, key: buffer.sample(memory, 4000, key))


def test_samples_are_uniform_over_the_filled_slots_only(insert: Any, sample: Any) -> None:
    memory = insert(buffer.empty(EXAMPLE, 6), rows(1, 4), jax.random.key(0))
    drawn = sample(memory, jax.random.key(1))
    counts = np.bincount(drawn.labels, minlength=7)
    assert counts[0] == counts[5] == counts[6] == 0
    assert stats.chisquare(counts[1:5]).pvalue > 1e-4
    assert drawn.valid.all()
    np.testing.assert_array_equal(drawn.inputs["user"], 10 * np.asarray(drawn.labels))


def test_samples_of_an_empty_memory_are_all_invalid(sample: Any) -> None:
    assert not sample(buffer.empty(EXAMPLE, 6), jax.random.key(1)).valid.any()
