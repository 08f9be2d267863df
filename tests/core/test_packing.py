from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incremental.core.packing import SHARE, Tokens, by_tokens, packed, padded

B, L, D = 64, 32, 3
ROOM = -(-B // SHARE) * L  # 224 tokens
TABLE: Any = np.random.default_rng(0).normal(size=(50, D)).astype(np.float32)
# Sums of 216 and 224; the second fills its room to the last token.
FITTING = st.permutations([*[32] * 2, *[17] * 2, *[9] * 4, *[3] * 18, *[1] * 28, *[0] * 10])
FULL = [32] * 4 + [2] * 36 + [1] * 24
ANY = st.lists(st.integers(0, L), min_size=B, max_size=B)
LONG = [L] * B


def histories(lengths: Any) -> Any:
    items = np.random.default_rng(1).integers(1, 50, (len(lengths), L))
    return np.where(np.arange(L) >= L - np.asarray(lengths)[:, None], items, 0).astype(np.int32)


in_room = jax.jit(lambda history, lengths: packed(history, lengths, ROOM // L))


@settings(max_examples=15)
@given(FITTING)
def test_packed_tokens_are_the_histories_in_order(lengths: Any) -> None:
    history = histories(lengths)
    tokens = in_room(history, np.asarray(lengths, np.int32))
    item, place, row = (np.asarray(ids).ravel() for ids in tokens[:3])
    rows, places = np.nonzero(history)
    np.testing.assert_array_equal(item, np.pad(history[rows, places], (0, ROOM - len(rows))))
    np.testing.assert_array_equal(row[: len(rows)], rows)
    np.testing.assert_array_equal(place[: len(rows)], places)
    assert place.min() >= 0
    assert place.max() < L
    assert row.max() < B
    known = np.asarray(tokens.known)
    np.testing.assert_array_equal(known, np.asarray(lengths) > 0)
    np.testing.assert_array_equal(row[np.asarray(tokens.last)][known], np.arange(B)[known])
    np.testing.assert_array_equal(place[np.asarray(tokens.last)][known], L - 1)


@pytest.mark.parametrize("layout", [padded, lambda history: in_room(history, (history > 0).sum(1))])
def test_a_token_looks_at_all_of_its_own_past_and_at_nothing_else(layout: Any) -> None:
    history = histories(np.random.default_rng(2).permutation(FULL))

    @jax.jit
    def names(history: Any) -> Any:
        """Every token's: its history and place, as one number, padding is -1; and those of the tokens it looks at."""
        tokens = layout(history)
        name = jnp.where(tokens.item > 0, tokens.row * L + tokens.place, -1)
        return name, jnp.where(tokens.allowed(), (tokens.past(name + 1) - 1)[:, None, :], -1)

    name, seen = map(np.asarray, names(history))
    for own, others in zip(name.ravel(), seen.reshape(-1, seen.shape[-1]), strict=True):
        if own >= 0:
            row, place = divmod(own, L)
            first = L - (history[row] > 0).sum()
            assert sorted(others[others >= 0]) == [row * L + earlier for earlier in range(first, place + 1)]


def encode(tokens: Tokens, key: Any, table: Any) -> Any:
    """A mean over each token's past, and over that once more; depends on places, and on the draw where there is one."""
    x = jnp.where((tokens.item > 0)[..., None], table[tokens.item] * jnp.cos(tokens.place)[..., None], 0.0)
    for _ in range(2):
        allowed = tokens.allowed().astype(jnp.float32)
        x = jnp.tanh(jnp.einsum("nqk,nkd->nqd", allowed, tokens.past(x)) / jnp.maximum(allowed.sum(2), 1.0)[..., None])
    hidden = tokens.ends(x) * tokens.known[:, None]
    return hidden if key is None else hidden + jax.random.uniform(key)


@jax.jit
def both(history: Any, table: Any) -> Any:
    """Hidden vectors and a gradient, by tokens and of the padded layout."""

    def by(layout: Any, table: Any) -> Any:
        hidden = layout(lambda tokens, key: encode(tokens, key, table), history, None)
        return (hidden * jnp.arange(1, B + 1)[:, None]).sum(), hidden

    return [
        jax.grad(lambda table, layout=layout: by(layout, table), has_aux=True)(table)
        for layout in (by_tokens, lambda encode, history, key: encode(padded(history), key))
    ]


@settings(max_examples=15)
@given(st.one_of(FITTING, ANY))
def test_the_layout_changes_neither_hidden_nor_gradient(lengths: Any) -> None:
    (gradient, hidden), (expected_gradient, expected) = both(histories(lengths), TABLE)
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def tell(tokens: Tokens, key: Any) -> Any:
    """[B, 2]: the number of blocks that the batch was laid out in, and its draw."""
    return jnp.stack([jnp.full(len(tokens.known), float(len(tokens.item))), jax.random.uniform(key, (B,))], 1)


@jax.jit
def told_by_tokens(history: Any) -> Any:
    return by_tokens(tell, history, jax.random.key(0))


@pytest.mark.parametrize(
    ("lengths", "blocks"), [(FULL, ROOM // L), ([*FULL[:-1], 2], B), (LONG, B), ([0] * B, ROOM // L)]
)
def test_a_batch_that_does_not_fit_is_padded(lengths: list[int], blocks: int) -> None:
    told = told_by_tokens(histories(lengths))
    np.testing.assert_array_equal(told[:, 0], blocks)
    assert len(set(np.asarray(told[:, 1]))) == B


told_in_lanes = jax.jit(jax.vmap(told_by_tokens))


@pytest.mark.parametrize(("second", "blocks"), [(FULL[::-1], ROOM // L), (LONG, B)])
def test_lanes_choose_together(second: list[int], blocks: int) -> None:
    lanes = np.stack([histories(FULL), histories(second)])
    told = told_in_lanes(lanes)
    np.testing.assert_array_equal(told[:, :, 0], blocks)
    branches = jax.make_jaxpr(jax.vmap(lambda history: by_tokens(tell, history, jax.random.key(0))))(lanes)
    assert "cond[" in str(branches)  # under vmap a cond on a lane's own value becomes a select: both branches run


@pytest.mark.parametrize("shape", [(63, 32), (64, 31)])
def test_small_batches_are_padded(shape: tuple[int, int]) -> None:
    shapes = []

    def note(tokens: Tokens, key: Any) -> Any:
        del key
        shapes.append(tokens.item.shape)
        return jnp.zeros((len(tokens.known), 1))

    jax.eval_shape(lambda history: by_tokens(note, history, None), jax.ShapeDtypeStruct(shape, jnp.int32))
    assert shapes == [shape]
