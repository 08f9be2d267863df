from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import Items
from incremental.core.types import Batch, Catalogue, Learner, Outputs, Step
from incremental.errors import UserError
from incremental.heads.in_batch_softmax import Gaps, counted, in_batch_softmax, streaming

V = 6
NONE: Any = None
EVENTS: Any = np.array([0, 10, 30, 0, 40, 20], np.float32)
LEARNER = Learner({}, (), Catalogue(EVENTS > 0, EVENTS, NONE), NONE)


def batch_of(labels: Any, valid: Any = None) -> Batch:
    labels = labels if isinstance(labels, jax.Array) else np.asarray(labels, np.int32)
    valid = np.ones(labels.shape, bool) if valid is None else np.asarray(valid)
    return Batch({}, labels, NONE, valid, NONE)


def step_of(batch: Batch) -> Step:
    return Step(NONE, batch, *[NONE] * 6)


def test_counted_is_the_expected_number_in_the_batch() -> None:
    strategy = counted()

    @jax.jit
    def drawn(batch: Batch) -> Batch:
        state, _ = strategy.begin(strategy.init(LEARNER), LEARNER, NONE, NONE)
        return strategy.batch(state, batch, NONE)

    found = drawn(batch_of([2, 4, 4, 0], [True, True, True, False]))
    np.testing.assert_array_equal(found.negatives, [2, 4, 4, 0])
    np.testing.assert_allclose(np.asarray(found.log_q)[:3], np.log(3 * np.array([0.3, 0.4, 0.4])), rtol=1e-5)
    assert np.asarray(found.log_q)[3] == np.inf  # padding


def test_gap_estimate_is_yis_recursion() -> None:
    """Item 1 in steps 2, 3 and 7, item 2 in the first only, twice."""
    strategy = streaming(0.25)
    state = jax.jit(lambda: strategy.begin(strategy.init(LEARNER), LEARNER, NONE, NONE)[0])()
    record = jax.jit(strategy.record)
    for labels in ([2, 2], [1, 4], [1, 1], [4, 5], [4, 5], [4, 5], [1, 5]):
        state = record(state, step_of(batch_of(labels)), NONE)
    assert int(state.step) == 7
    first = 2.0
    second, gap = 0.75 * first + 0.25 * 1, np.asarray(state.gap)
    np.testing.assert_allclose(gap[1], 0.75 * second + 0.25 * 4, rtol=1e-6)
    np.testing.assert_allclose(gap[2], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(gap[[0, 3]], 0.0)


def test_padding_leaves_the_estimate_alone() -> None:
    strategy = streaming(0.25)
    record = jax.jit(lambda batch: strategy.record(strategy.init(LEARNER), step_of(batch), NONE))
    gap = np.asarray(record(batch_of([2, 4], [True, False])).gap)
    assert gap[4] == 0.0 < gap[2]


def test_an_item_that_is_new_counts_from_the_increment_that_brought_it() -> None:
    strategy = streaming(0.25)

    @jax.jit
    def later(state: Gaps, batch: Batch, labels: Batch) -> Any:
        begun = strategy.begin(state, LEARNER, NONE, NONE)[0]
        state = begun._replace(step=begun.step + 6)
        return begun.last, strategy.batch(state, batch, NONE).log_q, strategy.record(state, step_of(labels), NONE).gap

    state: Any = Gaps(np.float32([0, 3, 0, 0, 0, 0]), np.zeros(V, np.int32), np.int32(100))  # type: ignore[arg-type]
    last, log_q, gap = map(np.asarray, later(state, batch_of([1, 2]), batch_of([2, 2])))
    assert last[1] == 0
    np.testing.assert_allclose(log_q, -np.log([3.0, 7.0]), rtol=1e-5)
    np.testing.assert_allclose(gap[2], 7.0)


SHARE: Any = np.array([0.0, 0.08, 0.17, 0.25, 0.5])
ROWS = 4


def test_denominator_of_the_streaming_correction_is_estimated_without_bias() -> None:
    """Each distinct item of a batch divided by its chance to be there at all, the estimate converged."""
    strategy = streaming(0.02)
    chance = 1 - (1 - SHARE) ** ROWS
    scores: Any = jnp.array([0.0, 1.0, 0.3, -0.5, 0.2])
    draws = np.random.default_rng(0).choice(5, (12_000, ROWS), p=SHARE).astype(np.int32)

    def one(state: Gaps, labels: Any) -> Any:
        batch = strategy.batch(state, batch_of(labels), NONE)
        estimate = jnp.exp(scores[batch.negatives] - batch.log_q).sum()
        return strategy.record(state, step_of(batch_of(labels)), NONE), estimate

    start: Any = Gaps(np.zeros(5, np.float32), np.zeros(5, np.int32), np.int32(0))  # type: ignore[arg-type]
    state, estimates = jax.jit(lambda start, draws: jax.lax.scan(one, start, draws))(start, draws)
    np.testing.assert_allclose(1 / np.asarray(state.gap)[1:], chance[1:], rtol=0.3)
    truth = np.exp(np.asarray(scores))[1:].sum()
    assert np.asarray(estimates)[500:].mean() == pytest.approx(truth, rel=0.05)


def test_other_rows_labels_are_the_negatives_and_the_own_one_is_none() -> None:
    head = in_batch_softmax(frequency="counted")
    strategy = head.strategy
    assert strategy is not None
    rng = np.random.default_rng(0)
    hidden, table, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (V, 4), V))
    scores = np.float64(hidden) @ table.T + bias

    @jax.jit
    def loss(batch: Batch) -> Any:
        state, _ = strategy.begin(strategy.init(LEARNER), LEARNER, NONE, NONE)
        batch = strategy.batch(state, batch, NONE)
        return head.loss(Items(jnp.asarray(table), jnp.asarray(bias)), Outputs(jnp.asarray(hidden), NONE), batch)

    corrected = np.exp(scores - np.log(3 * np.maximum(EVENTS, 1) / EVENTS.sum()))
    own = np.exp(scores[np.arange(3), [2, 4, 2]])
    others = [corrected[0, 4], 2 * corrected[1, 2], corrected[2, 4]]
    np.testing.assert_allclose(loss(batch_of([2, 4, 2])), np.log(own + others) - np.log(own), rtol=1e-5)


def test_an_unknown_estimate_is_refused() -> None:
    with pytest.raises(UserError, match=r"head\.frequency='gaps'.*streaming or counted"):
        in_batch_softmax(frequency="gaps")  # type: ignore[arg-type]
