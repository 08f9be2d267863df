from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.types import Batch
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.bert4rec import bert4rec
from incremental.strategies.cloze import cloze
from incremental.testing import check_strategy
from tests.applies import trace

L, ROWS = 4, 12_000
NONE: Any = None
HISTORIES = np.array([[1, 2, 3, 4], [0, 0, 6, 7], [0, 0, 0, 9], [11, 12, 13, 14], [0, 15, 16, 17]], np.int32)
LABELS = np.array([5, 8, 10, 15, 18], np.int32)
SEQUENCES = [[2, 3, 4, 5], [6, 7, 8], [9, 10], [12, 13, 14, 15], [15, 16, 17, 18]]  # the last L events
VALID = np.array([True, True, True, False, True])


@pytest.fixture(scope="module")
def joined() -> Batch:
    """A batch of five examples, one of them padding, and its examples with holes."""
    number = len(LABELS)
    weight, increment = np.array([1, 2, 3, 4, 0.5], np.float32), np.full(number, 3, np.int32)
    fields: list[Any] = [LABELS, weight, VALID, increment, np.arange(number, dtype=np.int32)]
    new = Batch({"history": HISTORIES}, *fields)._replace(own=number)
    strategy = cloze(NONE, rows=ROWS, weight=0.5)

    @jax.jit
    def appended(rows: Any, key: Any) -> Any:
        return strategy.batch((), new._replace(**rows), key)._replace(own=None)

    rows = {name: getattr(new, name) for name in ("inputs", "labels", "weight", "valid", "increment", "owner")}
    found: Batch = jax.tree.map(np.asarray, appended(rows, jax.random.key(0)))
    return found


def test_the_batchs_own_rows_stay_as_they_are(joined: Batch) -> None:
    np.testing.assert_array_equal(joined.inputs["history"][:5], HISTORIES)
    np.testing.assert_array_equal(joined.labels[:5], LABELS)
    assert len(joined.labels) == 5 + ROWS


def test_a_hole_is_one_item_between_others_and_examples_come_by_their_weights(joined: Batch) -> None:
    met: dict[tuple[int, int], int] = {}
    for row in range(5, 5 + ROWS):
        source = int(joined.owner[row])
        items = [int(i) for i in joined.inputs["history"][row]]
        assert joined.weight[row] == 0.5
        assert joined.increment[row] == 3
        assert joined.valid[row]
        assert source not in (2, 3)  # two items only; padding
        sequence = SEQUENCES[source]
        place = sequence.index(int(joined.labels[row]))
        assert 0 < place < len(sequence) - 1
        holed = [0 if i == place else item for i, item in enumerate(sequence)]
        assert items == [0] * (L - len(sequence)) + holed
        met[source, place] = met.get((source, place), 0) + 1
    chances = {(0, 1): 1 / 7, (0, 2): 1 / 7, (1, 1): 4 / 7, (4, 1): 1 / 14, (4, 2): 1 / 14}  # weights 1, 2 and 0.5
    assert set(met) == set(chances)
    for what, chance in chances.items():
        assert abs(met[what] / ROWS - chance) < 4.5 * np.sqrt(chance * (1 - chance) / ROWS), what


def test_the_laws_of_strategies() -> None:
    model = bert4rec(width=4, heads=1, blocks=1, dropout=0.0, masked=0.0)
    check_strategy(cloze, off={"weight": 0.0}, arguments={"rows": 4}, model=model)


def test_a_model_without_a_mask_is_refused() -> None:
    with pytest.raises(UserError, match=r"strategies\.cloze: the model has no mask .*choose model=bert4rec"):
        trace(cloze, "sasrec", full_softmax, name="cloze")
