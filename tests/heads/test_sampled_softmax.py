from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import Items
from incremental.core.types import Batch, Catalogue, Learner, Outputs
from incremental.heads.sampled_softmax import sampled_softmax

B, D, V = 3, 4, 9
SEEN: Any = np.array([0, 1, 1, 1, 0, 1, 1, 1, 0], bool)
EVENTS: Any = np.array([0, 1, 9, 3, 0, 30, 2, 5, 0], np.float32)
LABELS: Any = np.array([2, 5, 7], np.int32)
DRAWS = 4096
NONE: Any = None


class Case:
    """A catalogue, and losses of a batch with given or drawn negatives."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.hidden = rng.normal(size=(B, D)).astype(np.float32)
        self.table = rng.normal(size=(V, D)).astype(np.float32)
        self.bias = rng.normal(size=V).astype(np.float32)
        self.scores = np.float64(self.hidden) @ self.table.T + self.bias
        self.full = np.log((np.exp(self.scores) * SEEN).sum(1)) - self.scores[np.arange(B), LABELS]
        self.batch = Batch({}, LABELS, NONE, NONE, NONE, candidates=SEEN)
        self.learner = Learner({}, (), Catalogue(SEEN, EVENTS, {}), NONE)
        self.loss = jax.jit(lambda hidden, batch: self.rows(hidden, batch))

    def rows(self, hidden: Any, batch: Batch, table: Any = None) -> Any:
        table = jnp.asarray(self.table) if table is None else table
        outputs = Outputs(hidden, hidden @ table.T + self.bias)
        return sampled_softmax().loss(Items(table, jnp.asarray(self.bias)), outputs, batch)

    def drawn(self, number: int, hidden: Any, key: Any) -> Any:
        """The losses [B] with `number` negatives that the head's own strategy draws."""
        strategy = sampled_softmax(negatives=number).strategy
        assert strategy is not None
        state, _ = strategy.begin(strategy.init(self.learner), self.learner, NONE, key)
        return self.rows(hidden, strategy.batch(state, self.batch, key))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_loss_is_the_corrected_formula(case: Case) -> None:
    negatives: Any = np.array([3, 5, 1, 1], np.int32)
    log_q: Any = np.array([-0.5, 0.3, -1.0, -1.0], np.float32)
    loss = case.loss(case.hidden, case.batch._replace(negatives=negatives, log_q=log_q))
    own = case.scores[np.arange(B), LABELS]
    terms = np.exp(case.scores[:, negatives] - log_q)
    terms[1, 1] = 0.0  # item 5 is the second row's label
    np.testing.assert_allclose(loss, np.log(np.exp(own) + terms.sum(1)) - own, rtol=1e-5)


def test_accidental_hits_do_not_count(case: Case) -> None:
    hits: Any = np.repeat(LABELS[:1], 4)
    log_q: Any = np.zeros(4, np.float32)
    batch = case.batch._replace(negatives=hits, log_q=log_q)
    assert float(case.loss(case.hidden, batch)[0]) == pytest.approx(0.0, abs=1e-6)


def test_without_drawn_negatives_it_is_the_full_softmax(case: Case) -> None:
    np.testing.assert_allclose(case.loss(case.hidden, case.batch), case.full, rtol=1e-5)


def test_denominator_is_estimated_without_bias(case: Case) -> None:
    keys = jax.random.split(jax.random.key(0), DRAWS)
    losses = jax.jit(jax.vmap(lambda key: case.drawn(3, case.hidden, key)))(keys)
    estimates = np.exp(np.float64(losses) + case.scores[np.arange(B), LABELS])
    truth = (np.exp(case.scores) * SEEN).sum(1)
    error = estimates.std(0) / np.sqrt(DRAWS)
    assert (error < 0.05 * truth).all()
    assert (np.abs(estimates.mean(0) - truth) < 4 * error).all()


def test_loss_and_gradient_converge_to_the_full_softmax_as_more_are_drawn(case: Case) -> None:
    def both(hidden: Any) -> Any:
        rows = case.drawn(1 << 15, hidden, jax.random.key(1))
        return rows.sum(), rows

    gradient, loss = jax.jit(jax.grad(both, has_aux=True))(case.hidden)
    weights = np.exp(case.scores) * SEEN
    expected = (weights / weights.sum(1, keepdims=True) - np.eye(V)[LABELS]) @ case.table
    np.testing.assert_allclose(loss, case.full, atol=0.03)
    np.testing.assert_allclose(gradient, expected, atol=0.05)


def test_gradient_is_that_of_the_refined_correction(case: Case) -> None:
    """Khrylchenko et al. 2025: weight 1 - p(y) held fixed, the label outside the sum."""
    negatives: Any = np.array([3, 5, 1, 1], np.int32)
    log_q: Any = np.array([-0.5, 0.3, -1.0, -1.0], np.float32)
    batch = case.batch._replace(negatives=negatives, log_q=log_q)
    tiled: Any = {"negatives": np.tile(negatives, (B, 1)), "log_q": np.tile(log_q, (B, 1))}
    own = batch._replace(**tiled)

    def refined(hidden: Any, table: Any) -> Any:
        scores = hidden @ table.T + case.bias
        own = scores[jnp.arange(B), LABELS]
        hits = negatives[None] == LABELS[:, None]
        others = jax.nn.logsumexp(jnp.where(hits, -jnp.inf, scores[:, negatives] - log_q), axis=1)
        weight = jax.lax.stop_gradient(1 - jnp.exp(own) / (jnp.exp(own) + jnp.exp(others)))
        return (weight * (others - own)).sum()

    @jax.jit
    def slopes(hidden: Any, table: Any) -> Any:
        """Of the formula, and of the loss with negatives that rows share and that each has of its own."""
        losses = refined, *(lambda h, t, batch=batch: case.rows(h, batch, t).sum() for batch in (batch, own))
        return [jax.grad(loss, (0, 1))(hidden, table) for loss in losses]

    truth, *found = slopes(case.hidden, case.table)
    for each in found:
        for slope, expected in zip(each, truth, strict=True):
            np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)
