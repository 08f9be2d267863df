from typing import Any

import jax
import numpy as np

from incremental.core.ids import Ids, nobody, rows_of, trained
from incremental.core.spec import Sizes
from incremental.core.steps import count_arrivals, empty_catalogue
from incremental.core.types import Catalogue, Data, Learner, Problem

NONE: Any = None
TABLES = {"item/embedding": "item", "bias": "item", "user/embedding": "user"}
PROBLEM = Problem(NONE, NONE, NONE, NONE, TABLES, None, NONE)
ITEMS: Any = np.array([0, 1, 1, 0], bool)
USERS: Any = np.array([0, 1, 0], bool)
PARAMS: Any = {
    "item": {"embedding": np.ones((4, 2), np.float32)},
    "bias": np.ones(4, np.float32),
    "user": {"embedding": np.ones((3, 2), np.float32)},
    "dense": {"kernel": np.ones((2, 5), np.float32)},
}


def test_tables_are_masked_by_row_and_all_else_as_a_whole() -> None:
    for others in (False, True):
        masks = rows_of(PROBLEM, PARAMS, Ids(ITEMS, {"user": USERS}), others=others)
        kept = jax.tree.map(lambda leaf, mask: np.asarray(leaf * mask), PARAMS, masks)
        np.testing.assert_array_equal(kept["item"]["embedding"], np.repeat(ITEMS[:, None], 2, 1))
        np.testing.assert_array_equal(kept["bias"], ITEMS)
        np.testing.assert_array_equal(kept["user"]["embedding"], np.repeat(USERS[:, None], 2, 1))
        np.testing.assert_array_equal(kept["dense"]["kernel"], float(others))


def test_the_sets_are_the_catalogues_and_nothing() -> None:
    learner = Learner(PARAMS, (), Catalogue(ITEMS, ITEMS, {"user": USERS}), NONE)
    np.testing.assert_array_equal(trained(learner).labels, ITEMS)
    np.testing.assert_array_equal(trained(learner).others["user"], USERS)
    assert not any(np.any(ids) for ids in jax.tree.leaves(nobody(learner)))


def test_a_candidate_without_an_event_is_not_trained() -> None:
    """With data.unseen_items=known every item is a candidate, so that all are `seen` from the base part on."""
    of_all: Any = np.arange(4) > 0
    items: Any = np.array([2, 0], np.int32)
    users: Any = np.array([1, 0], np.int32)
    data = Data(NONE, NONE, NONE, items, {"user": users}, listed=of_all)

    @jax.jit
    def counted(data: Data) -> Any:
        catalogue = count_arrivals(empty_catalogue(Sizes(item=4, user=3)), data)
        return catalogue.seen, trained(Learner(PARAMS, (), catalogue, NONE)).labels

    seen, labels = counted(data)
    np.testing.assert_array_equal(seen, [False, True, True, True])
    np.testing.assert_array_equal(labels, [False, False, True, False])


def test_the_rows_of_the_labels_are_those_of_their_kind_whatever_it_is() -> None:
    tables = {"item/embedding": "item", "bias": "click", "user/embedding": "user"}
    problem = PROBLEM._replace(tables=tables, labels="click")
    own = Ids(np.array([0, 0, 0, 1], bool), {"item": ITEMS, "user": USERS})  # type: ignore[arg-type]
    masks = rows_of(problem, PARAMS, own, others=False)
    np.testing.assert_array_equal(masks["bias"], own.labels)
    np.testing.assert_array_equal(masks["item"]["embedding"][:, 0], ITEMS)
