from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import Items
from incremental.core.quadratic import fisher, penalty, refuse
from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs, Problem
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax

N, D, V = 6, 3, 5
NONE: Any = None
SEEN: Any = np.array([0, 1, 1, 0, 1], bool)
RNG = np.random.default_rng(0)
X: Any = RNG.normal(size=(N, D)).astype(np.float32)
LABELS: Any = np.array([1, 4, 2, 1, 2, 4], np.int32)
PARAMS = {"W": RNG.normal(size=(D, V)).astype(np.float32), "b": RNG.normal(size=V).astype(np.float32)}


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    assert key is None  # no dropout
    return Outputs(inputs["x"], inputs["x"] @ params["W"] + params["b"])


REGRESSION = Problem(
    init=lambda key: PARAMS,  # noqa: ARG005
    apply=apply,
    loss=lambda params, outputs, batch: full_softmax().loss(Items(params["W"].T, params["b"]), outputs, batch),
    example=NONE,
    tables={},
    strategy=None,
    features=NONE,
)


def learner(params: Any) -> Learner:
    return Learner(params, (), Catalogue(SEEN, NONE, NONE), NONE)


def data(size: Any) -> Data:
    """The first `size` rows count; the others are padding that must not be read."""
    real = jnp.arange(N) < size
    x = jnp.where(real[:, None], X, jnp.nan)
    rows = Batch({"x": x}, jnp.asarray(LABELS), jnp.ones(N), real, jnp.zeros(N, jnp.int32))
    return Data(rows, size, jnp.int32(0), jnp.zeros(1, jnp.int32), {"user": jnp.zeros(1, jnp.int32)})


def squares(rows: Any) -> dict[str, Any]:
    """[n] single-example gradients of softmax regression, squared, in closed form: x (p - 1_y)."""
    scores = np.float64(X[rows]) @ PARAMS["W"] + PARAMS["b"]
    p = np.exp(scores) * SEEN
    error = p / p.sum(1, keepdims=True) - np.eye(V)[LABELS[rows]]
    return {"W": (X[rows][:, :, None] * error[:, None, :]) ** 2, "b": error**2}


@pytest.mark.parametrize("samples", [1, 8, 13])
def test_fisher_of_one_example_is_its_squared_gradient(samples: int) -> None:
    estimate = jax.jit(lambda size, key: fisher(REGRESSION, learner(PARAMS), data(size), key, samples))
    found = estimate(np.int32(1), jax.random.key(0))
    for name, expected in squares([0]).items():
        np.testing.assert_allclose(found[name], expected[0], rtol=1e-4, atol=1e-7)


def test_fisher_is_the_mean_of_squared_gradients_over_the_increments_rows() -> None:
    samples, size = 4096, 4
    estimate = jax.jit(lambda size, key: fisher(REGRESSION, learner(PARAMS), data(size), key, samples))
    found = estimate(np.int32(size), jax.random.key(0))
    for name, each in squares(np.arange(size)).items():
        error = each.std(0) / np.sqrt(samples)
        assert (np.abs(found[name] - each.mean(0)) <= 4 * error + 1e-6).all()


def test_items_not_yet_seen_have_no_fisher() -> None:
    found = jax.jit(lambda key: fisher(REGRESSION, learner(PARAMS), data(jnp.int32(N)), key, 64))(jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(found["b"])[~SEEN], 0.0)
    assert (np.asarray(found["b"])[SEEN] > 0).all()


@pytest.fixture(scope="module")
def pulled() -> Any:
    return jax.jit(jax.value_and_grad(penalty))


def test_penalty_and_its_gradient_are_the_quadratic_forms(pulled: Any) -> None:
    theta, anchor = PARAMS, jax.tree.map(lambda leaf: leaf - 0.5 * np.sign(leaf), PARAMS)
    importance = jax.tree.map(np.abs, PARAMS)
    value, gradient = pulled(theta, anchor, importance)
    expected = sum(
        float((f * (p - a) ** 2).sum()) for p, a, f in zip(*map(leaves, (theta, anchor, importance)), strict=True)
    )
    assert float(value) == pytest.approx(0.5 * expected, rel=1e-5)
    for name in PARAMS:
        by_hand = importance[name] * (theta[name] - anchor[name])
        np.testing.assert_allclose(gradient[name], by_hand, rtol=1e-5)


def leaves(tree: Any) -> list[Any]:
    return [tree[name] for name in sorted(tree)]


def test_penalty_at_the_anchor_is_zero_and_so_is_its_pull(pulled: Any) -> None:
    value, gradient = pulled(PARAMS, PARAMS, jax.tree.map(np.abs, PARAMS))
    assert float(value) == 0.0
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0.0), gradient)


def chances(params: Any) -> Any:
    """The model's softmax over the candidates for the first row, [V]."""
    p = np.exp(np.float64(X[0]) @ params["W"] + params["b"]) * SEEN
    return p / p.sum()


def test_predicted_labels_are_the_best_candidates() -> None:
    # The label scores low, and an item that is no candidate the highest.
    params = {"W": PARAMS["W"], "b": PARAMS["b"] + np.float32(5.0) * np.array([2, -1, 0, 0, 0], np.float32)}
    p = chances(params)
    assert p.argmax() != LABELS[0]
    found = jax.jit(lambda key: fisher(REGRESSION, learner(params), data(jnp.int32(1)), key, 8, "predicted"))
    error = p - np.eye(V)[p.argmax()]
    np.testing.assert_allclose(found(jax.random.key(0))["b"], error**2, rtol=1e-4, atol=1e-7)


def test_sampled_labels_give_the_fisher_information() -> None:
    samples = 4096
    estimate = jax.jit(lambda key: fisher(REGRESSION, learner(PARAMS), data(jnp.int32(1)), key, samples, "sampled"))
    found = np.asarray(estimate(jax.random.key(0))["b"])
    p = chances(PARAMS)
    np.testing.assert_array_equal(found[~SEEN], 0.0)
    # Of the softmax, E_y[(p - 1_y)²] = p (1 - p).
    spread = np.sqrt(p * (1 - p) * np.abs((1 - p) ** 2 - p**2) ** 2 / samples)
    assert (np.abs(found - p * (1 - p)) <= 4 * spread + 1e-6).all()


def test_labels_that_there_are_not_are_refused() -> None:
    with pytest.raises(UserError, match="labels='real': expected observed, predicted, sampled"):
        refuse("mine", "real")
