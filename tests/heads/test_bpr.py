from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import Items
from incremental.core.types import Batch, Catalogue, Learner, Outputs, with_negatives
from incremental.heads.bpr import bpr

B, D, V, N = 3, 4, 8, 16
SEEN: Any = np.array([0, 1, 1, 1, 0, 1, 1, 0], bool)
LABELS: Any = np.array([2, 5, 6], np.int32)
RNG = np.random.default_rng(2)
HIDDEN: Any = RNG.normal(size=(B, D)).astype(np.float32)
TABLE: Any = RNG.normal(size=(V, D)).astype(np.float32)
BIAS: Any = RNG.normal(size=V).astype(np.float32)
SCORES: Any = np.float64(HIDDEN) @ TABLE.T + BIAS
ROWS: Any = (LABELS, np.ones(B, np.float32), np.ones(B, bool), np.zeros(B, np.int32))
BATCH = Batch({}, *ROWS)._replace(candidates=SEEN)
NONE: Any = None


def log_sigmoid(x: Any) -> Any:
    return -np.log1p(np.exp(-x))


def expected(row: int, negatives: Any) -> float:
    """The loss of one row with these negatives, written out."""
    own = SCORES[row, LABELS[row]]
    others = [SCORES[row, j] for j in negatives if j != LABELS[row]]
    return float(-np.mean(log_sigmoid(own - np.array(others))))


@jax.jit
def loss(batch: Batch) -> Any:
    hidden, table, bias = jnp.asarray(HIDDEN), jnp.asarray(TABLE), jnp.asarray(BIAS)
    return bpr().loss(Items(table, bias), Outputs(hidden, hidden @ table.T + bias), batch)


def test_loss_is_the_mean_over_negatives_that_are_not_the_label() -> None:
    negatives: Any = np.array([3, 5, 1, 1], np.int32)  # 5 is the second row's label
    rows = loss(BATCH._replace(negatives=negatives))
    np.testing.assert_allclose(rows, [expected(row, negatives) for row in range(B)], rtol=1e-5)


@pytest.mark.parametrize("number", [1, 3])
def test_of_each_rows_own_negatives_too(number: int) -> None:
    negatives: Any = np.array([[3, 1, 1], [5, 1, 2], [1, 1, 3]], np.int32)[:, :number]  # 5 is the second row's label
    rows = loss(BATCH._replace(negatives=negatives))
    truth = [0.0 if number == 1 and row == 1 else expected(row, negatives[row]) for row in range(B)]
    np.testing.assert_allclose(rows, truth, rtol=1e-5, atol=1e-7)


def test_the_gradient_with_one_negative_is_the_formulas() -> None:
    negatives: Any = np.array([[3], [5], [1]], np.int32)  # 5 is the second row's label

    @jax.jit
    def slopes(hidden: Any, table: Any, bias: Any) -> Any:
        batch = BATCH._replace(negatives=negatives)
        return jax.grad(lambda *of: bpr().loss(Items(*of[1:]), Outputs(of[0], NONE), batch).sum(), (0, 1, 2))(
            hidden, table, bias
        )

    of_hidden, of_table, of_bias = slopes(HIDDEN, TABLE, BIAS)
    hidden, table, bias = (np.zeros(of.shape) for of in (HIDDEN, TABLE, BIAS))
    for row, (label, other) in enumerate(zip(LABELS, negatives[:, 0], strict=True)):
        slope = -1 / (1 + np.exp(SCORES[row, label] - SCORES[row, other]))  # σ(m) - 1
        hidden[row] += (label != other) * slope * (TABLE[label] - TABLE[other])
        for item, sign in ((label, 1), (other, -1)):
            table[item] += sign * (label != other) * slope * HIDDEN[row]
            bias[item] += sign * (label != other) * slope
    for found, truth in ((of_hidden, hidden), (of_table, table), (of_bias, bias)):
        np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


def test_rows_that_do_not_share_draw_their_own_and_appended_ones_have_them_again() -> None:
    strategy = bpr(negatives=2, shared=False).strategy
    assert strategy is not None
    learner = Learner({}, (), Catalogue(SEEN, SEEN.astype(np.float32), {}), NONE)
    many: Any = 3 * V
    labels: Any = np.zeros(many + 2, np.int32)

    @jax.jit
    def both(learner: Learner, one: Any, other: Any) -> tuple[Batch, Batch]:
        state, _ = strategy.begin(strategy.init(learner), learner, NONE, one)
        drawn = strategy.batch(state, BATCH._replace(labels=labels[:many]), other)
        return drawn, with_negatives(drawn._replace(labels=labels))

    drawn, longer = both(learner, jax.random.key(0), jax.random.key(1))
    assert drawn.negatives is not None
    assert drawn.log_q is not None
    assert drawn.negatives.shape == drawn.log_q.shape == (many, 2)
    assert len(np.unique(drawn.negatives)) == SEEN.sum()  # all candidates, for there are 48 draws
    np.testing.assert_allclose(drawn.log_q, np.log(2 / SEEN.sum()), rtol=1e-5)
    assert longer.negatives is not None
    np.testing.assert_array_equal(longer.negatives, np.concatenate([drawn.negatives, drawn.negatives[:2]]))


def test_a_row_whose_negatives_are_all_its_label_has_none() -> None:
    hits: Any = np.full(4, 5, np.int32)
    rows = loss(BATCH._replace(negatives=hits))
    assert float(rows[1]) == pytest.approx(0.0, abs=1e-6)


def test_exact_form_is_the_mean_over_all_other_candidates() -> None:
    rows = loss(BATCH)
    np.testing.assert_allclose(rows, [expected(row, np.flatnonzero(SEEN)) for row in range(B)], rtol=1e-5)


def test_expectation_over_uniform_draws_is_the_exact_form() -> None:
    strategy = bpr(negatives=N).strategy
    assert strategy is not None
    events: Any = np.float32(SEEN * np.arange(1, V + 1))
    learner = Learner({}, (), Catalogue(SEEN, events, {}), NONE)

    @jax.jit
    def losses(keys: Any) -> Any:
        state, _ = strategy.begin(strategy.init(learner), learner, NONE, keys[0])
        return jax.vmap(lambda key: loss(strategy.batch(state, BATCH, key)))(keys)

    drawn: Any = np.float64(losses(jax.random.split(jax.random.key(0), 4096)))
    error = drawn.std(0) / np.sqrt(len(drawn))
    truth = np.array([expected(row, np.flatnonzero(SEEN)) for row in range(B)])
    assert (error < 0.02 * truth).all()
    assert (np.abs(drawn.mean(0) - truth) < 4 * error).all()
