from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.core.lengths import by_length

B, L, D = 64, 32, 3
CUTS = [32] * 4 + [8] * 12 + [5] * 16 + [3] * 32  # L, L/4, L/7 and L/11, rounded up, by 1 : 3 : 4 : 8
TABLE: Any = np.random.default_rng(0).normal(size=(50, D)).astype(np.float32)


def histories(lengths: Any) -> Any:
    items = np.random.default_rng(1).integers(1, 50, (len(lengths), L))
    return np.where(np.arange(L) >= L - np.asarray(lengths)[:, None], items, 0).astype(np.int32)


def encode(history: Any, key: Any, table: Any) -> Any:
    """Depends on every item and its place from the right; and tells the length that it was given, and a draw."""
    del key
    place = jnp.arange(history.shape[1], 0, -1)[:, None]
    x = jnp.where((history > 0)[..., None], table[history] * jnp.cos(place), 0.0)
    return jnp.tanh(x.sum(1) + 0.1 * (x**2).sum(1))


@jax.jit
def both(history: Any, table: Any) -> Any:
    def by(encoded: Any, table: Any) -> Any:
        hidden = encoded(lambda history, key: encode(history, key, table), history, None)
        return (hidden * jnp.arange(1, B + 1)[:, None]).sum(), hidden

    grouped = jax.grad(lambda table: by(by_length, table), has_aux=True)(table)
    whole = jax.grad(lambda table: by(lambda encode, history, key: encode(history, key), table), has_aux=True)(table)
    return grouped, whole


@jax.jit
def seen_lengths(history: Any) -> Any:
    """The length at which each row was encoded, and its group's draw."""

    def tell(history: Any, key: Any) -> Any:
        draw = jax.random.uniform(key)
        return jnp.stack([jnp.full(len(history), history.shape[1], jnp.float32), jnp.full(len(history), draw)], 1)

    return by_length(tell, history, jax.random.key(0))


FITTING = st.permutations([*[32] * 4, *[8] * 6, *[6] * 6, *[5] * 10, *[4] * 6, *[3] * 8, *[2] * 8, *[1] * 8, *[0] * 8])
ANY = st.lists(st.integers(0, L), min_size=B, max_size=B)


@settings(max_examples=15)
@given(st.one_of(FITTING, ANY))
def test_grouping_changes_neither_hidden_nor_gradient(lengths: Any) -> None:
    (gradient, hidden), (expected_gradient, expected) = both(histories(lengths), TABLE)
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(FITTING)
def test_rows_that_fit_are_encoded_at_their_groups_length(lengths: Any) -> None:
    length, draw = np.asarray(seen_lengths(histories(lengths))).T
    assert sorted(length, reverse=True) == CUTS
    assert (np.asarray(lengths) <= length).all()
    assert len(set(draw)) == 4  # no two groups share their dropout


@pytest.mark.parametrize("lengths", [[9] * 5 + [1] * 59, [6] * 17 + [1] * 47, [4] * 33 + [1] * 31])
def test_a_batch_that_does_not_fit_is_encoded_whole(lengths: list[int]) -> None:
    np.testing.assert_array_equal(np.asarray(seen_lengths(histories(lengths)))[:, 0], L)


@pytest.mark.parametrize("shape", [(63, 32), (64, 31)])
def test_small_batches_are_not_cut(shape: tuple[int, int]) -> None:
    shapes = []

    def tell(history: Any, key: Any) -> Any:
        del key
        shapes.append(history.shape)
        return jnp.zeros((len(history), 1))

    jax.eval_shape(lambda history: by_length(tell, history, None), jax.ShapeDtypeStruct(shape, jnp.int32))
    assert shapes == [shape]
