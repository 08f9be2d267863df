from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Data
from incremental.errors import UserError
from incremental.models.frequent_directions import frequent_directions

SIZES = Sizes(item=10, user=80)
E, SKETCH, RANK = 256, 4, 2  # of a sketch of 4, whose last row is 0, a direction is left out
NONE: Any = None
PROGRAM = frequent_directions(sketch=SKETCH, rank=RANK).program(next_item(8), SIZES, ())
UPDATE = jax.jit(lambda state, data: PROGRAM.run_epoch(PROGRAM.begin(state, data), data)[0])


def data(rows: Any, t: int) -> Data:
    """Users 1, 2, … with these counts of items 1, 2, …; in no order, with padding."""
    pairs = np.argwhere(rows)
    pairs = np.repeat(pairs, rows[tuple(pairs.T)], 0) + 1
    assert len(pairs) <= E
    pairs = np.random.default_rng(t).permutation(np.pad(pairs, [(0, E - len(pairs)), (0, 0)]))
    users, items = pairs.T.astype(np.int32)
    events: list[Any] = [np.int32(0), np.int32(t), items, {"user": users}]
    return Data(Batch(NONE, NONE, NONE, NONE, NONE), *events)


def trained(increments: list[Any]) -> Any:
    state = jax.jit(PROGRAM.init)(jax.random.key(0))
    for t, rows in enumerate(increments):
        state = UPDATE(state, data(rows, t))
    return state


def sketch(state: Any) -> Any:
    b = np.asarray(state.learner.params["sketch"], np.float64)
    assert (b[:, 0] == 0).all()  # padding
    return b[:, 1:]


def within_bound(increments: list[Any]) -> None:
    a = np.concatenate(increments).astype(np.float64)
    b = sketch(trained(increments))
    b = np.pad(b, [(0, 0), (0, a.shape[1] - b.shape[1])])
    error = np.linalg.norm(a.T @ a - b.T @ b, 2)
    values = np.linalg.svd(a)[1] ** 2
    for k in range(SKETCH):
        assert error <= values[k:].sum() / (SKETCH - k) + 1e-3
    assert np.linalg.eigvalsh(a.T @ a - b.T @ b).min() > -1e-3  # nothing is made up


def test_the_error_stays_within_the_bound() -> None:
    rng = np.random.default_rng(0)
    within_bound([rng.poisson(0.35, (60, 9)), rng.poisson(0.6, (20, 9))])


def test_the_error_stays_within_the_bound_where_cutting_alone_would_forget_a_direction() -> None:
    """Four heavy rows fill the sketch; light rows for a further item come a few at a time, and add up."""
    rows = np.zeros((64, 9), int)
    rows[np.arange(4), np.arange(4)] = 4
    rows[4:, 5] = 1
    cut = 60.0  # the error if each block's light rows were dropped
    assert cut > (4 * 16 + 60) / SKETCH
    within_bound([rows])


def test_fewer_independent_rows_than_the_sketch_has_are_kept_exactly() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.poisson(1.0, (SKETCH - 1, 9))
    increments = [kinds[rng.integers(0, SKETCH - 1, 11)] for _ in range(2)]
    a, b = np.concatenate(increments), sketch(trained(increments))
    np.testing.assert_allclose(b.T @ b, a.T @ a, atol=1e-2, rtol=1e-4)


def test_a_history_is_projected_on_the_leading_directions() -> None:
    rng = np.random.default_rng(2)
    state = trained([rng.poisson(0.4, (50, 9))])
    b = np.asarray(state.learner.params["sketch"], np.float64)
    v = np.linalg.svd(b)[2][:RANK].T
    histories = np.array([[0, 0, 4], [2, 2, 9], [0, 0, 0]], np.int32)
    scores = np.asarray(jax.jit(PROGRAM.scores)(state, {"history": histories}))
    assert (scores[:, 0] == -np.inf).all()
    eye = np.eye(10)
    for row, r in ((0, eye[4]), (1, 2 * eye[2] + eye[9])):
        np.testing.assert_allclose(scores[row, 1:], (r @ v @ v.T)[1:], atol=1e-4)
    np.testing.assert_allclose(scores[2, 1:], np.asarray(state.learner.catalogue.events)[1:])  # by popularity


def test_directions_that_no_row_gave_score_nothing() -> None:
    rows = np.zeros((6, 9), int)
    rows[:, 3] = 2
    state = trained([rows])
    scores = np.asarray(jax.jit(PROGRAM.scores)(state, {"history": np.array([[4], [5]], np.int32)}))
    np.testing.assert_allclose(scores[:, 4], [1.0, 0.0], atol=1e-5)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="rank=0: expected a whole number >= 1"):
        frequent_directions(rank=0)
    with pytest.raises(UserError, match="expected rank < sketch, got rank=8 and sketch=8"):
        frequent_directions(rank=8, sketch=8)
