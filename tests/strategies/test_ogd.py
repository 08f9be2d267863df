from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs, Problem
from incremental.errors import UserError
from incremental.strategies.ogd import SPANNED, Directions, ogd
from incremental.testing import check_strategy

P, DIRECTIONS, SAMPLES = 6, 4, 12
NONE: Any = None


def single(values: Any) -> Any:
    return np.asarray(values, np.float32)


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    del key
    theta = jnp.concatenate([params["a"], params["b"].ravel()])
    return Outputs(inputs["g"], inputs["g"] @ theta[:, None])


# An example's loss is g · θ, so its gradient is g whatever θ is.
LINEAR = Problem(NONE, apply, lambda _params, outputs, _batch: outputs.scores[:, 0], NONE, {}, None, NONE)
STRATEGY = ogd(LINEAR, directions=DIRECTIONS, samples=SAMPLES)


def tree(flat: Any) -> Any:
    flat = np.asarray(flat, np.float32)
    return {"a": flat[:2], "b": flat[2:].reshape(2, 2)}


def flat(tree: Any) -> Any:
    return np.concatenate([np.asarray(tree["a"]), np.asarray(tree["b"]).ravel()])


def basis(state: Directions) -> Any:
    """[directions, P]"""
    params: Any = state.basis
    return np.concatenate([params["a"], np.asarray(params["b"]).reshape(DIRECTIONS, -1)], 1)


def learner() -> Learner:
    return Learner(tree(np.ones(P)), (), Catalogue(NONE, NONE, NONE), NONE)


@jax.jit
def ended(state: Any, gradients: Any, key: Any) -> Any:
    """After an increment whose examples have these gradients; the last row is padding."""
    size = jnp.int32(len(gradients) - 1)
    return STRATEGY.end(state, learner(), Data(Batch({"g": gradients}, *[NONE] * 4), size, NONE, NONE, NONE), key)[0]


@jax.jit
def projected(state: Any, updates: Any) -> Any:
    return STRATEGY.updates(state, updates, NONE)


def examples(*gradients: Any) -> Any:
    return single([*gradients, np.full(P, 100.0)])  # padding, which would take part visibly


def empty() -> Any:
    return jax.jit(STRATEGY.init)(learner())


@pytest.fixture(scope="module")
def gradients() -> Any:
    return np.random.default_rng(0).normal(size=(3, P))


def test_the_basis_is_orthonormal_and_spans_the_gradients(gradients: Any) -> None:
    nearly = gradients[0] + 0.01 * gradients[2]
    state = ended(empty(), examples(gradients[0], gradients[1], nearly), jax.random.key(0))
    q = basis(state)
    assert int(state.used) == 3
    assert int(state.left_out) == 0
    np.testing.assert_allclose(q @ q.T, np.diag([1.0, 1.0, 1.0, 0.0]), atol=1e-5)
    for g in (gradients[0], gradients[1], gradients[2]):
        np.testing.assert_allclose(q.T @ (q @ g), g, atol=1e-2)


def test_the_basis_is_orthonormal_to_rounding_where_gradients_nearly_agree(gradients: Any) -> None:
    """One pass of Gram-Schmidt leaves rounding of the gradient's size, which is hundreds of times what is left."""
    nearly = gradients[0] + 3 * SPANNED * gradients[2]
    state = ended(empty(), examples(gradients[0], gradients[1], nearly), jax.random.key(0))
    q = np.asarray(basis(state), np.float64)
    assert int(state.used) == 3
    np.testing.assert_allclose(q @ q.T, np.diag([1.0, 1.0, 1.0, 0.0]), atol=1e-6)


def test_an_update_leaves_past_losses_as_they_are(gradients: Any) -> None:
    state = ended(empty(), examples(gradients[0]), jax.random.key(0))
    state = ended(state, examples(gradients[1], 3 * gradients[0]), jax.random.key(1))
    assert int(state.used) == 2
    update = np.random.default_rng(1).normal(size=P)
    new = flat(projected(state, tree(update)))
    np.testing.assert_allclose(gradients[:2] @ new, 0.0, atol=1e-5)
    # It is the nearest such update: what it lost lies in the span.
    span = gradients[:2].T
    np.testing.assert_allclose(new, update - span @ np.linalg.lstsq(span, update, rcond=None)[0], atol=1e-5)


def test_under_adam_projected_updates_do_not_leak_where_projected_gradients_do(gradients: Any) -> None:
    state = ended(empty(), examples(gradients[0]), jax.random.key(0))
    tx = optax.adam(0.1)

    def step(carry: Any, g: Any, on_updates: bool) -> Any:
        opt_state, total = carry
        grads = {"a": g[:2], "b": g[2:].reshape(2, 2)}
        grads = grads if on_updates else STRATEGY.updates(state, grads, NONE)
        updates, opt_state = tx.update(grads, opt_state)
        updates = STRATEGY.updates(state, updates, NONE) if on_updates else updates
        return (opt_state, jax.tree.map(jnp.add, total, updates)), None

    moved = []
    stream = single(np.random.default_rng(2).normal(size=(20, P)))
    for on_updates in (True, False):
        start = (tx.init(tree(np.zeros(P))), tree(np.zeros(P)))
        (_, total), _ = jax.jit(lambda c, s, on=on_updates: jax.lax.scan(lambda c, g: step(c, g, on), c, s))(
            start, stream
        )
        moved.append(abs(flat(total) @ gradients[0]))
    assert moved[0] < 1e-5
    assert moved[1] > 1e-2


def test_gradients_without_room_are_counted_and_left_out() -> None:
    axes = np.eye(P)
    state = ended(empty(), examples(*axes[:3]), jax.random.key(3))
    assert int(state.used) == 3  # all three are among the draws
    state = ended(state, examples(axes[3], axes[3], axes[0]), jax.random.key(0))
    assert (int(state.used), int(state.left_out)) == (4, 0)
    state = ended(state, examples(axes[4]), jax.random.key(0))
    assert (int(state.used), int(state.left_out)) == (4, SAMPLES)
    assert int(STRATEGY.report(state)["left_out"]) == SAMPLES
    np.testing.assert_allclose(flat(projected(state, tree(np.ones(P)))), [0, 0, 0, 0, 1, 1], atol=1e-6)


def test_without_a_past_increment_nothing_changes(gradients: Any) -> None:
    np.testing.assert_array_equal(flat(projected(empty(), tree(gradients[0]))), np.float32(gradients[0]))


@pytest.mark.parametrize("wrong", [{"directions": 0}, {"samples": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"ogd: (directions|samples)=0: expected a whole number >= 1"):
        ogd(LINEAR, **wrong)


def test_the_laws_of_strategies() -> None:
    check_strategy(ogd, kind="projection", arguments={"directions": 16, "samples": 4})
