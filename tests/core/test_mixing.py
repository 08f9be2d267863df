from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from incremental.core.mixing import mixed, uniform

KEYS, NUMBER, PARTS = 256, 4096, 16


@pytest.fixture(scope="module")
def draws() -> Any:
    """[KEYS, NUMBER], of keys that follow one another as a run's steps do."""
    return np.asarray(
        jax.jit(jax.vmap(lambda i: uniform(jax.random.fold_in(jax.random.key(0), i), NUMBER)))(np.arange(KEYS))
    )


numbers = jax.jit(uniform, static_argnums=1)
mix = jax.jit(mixed)


def even(counts: Any) -> bool:
    return bool(stats.chisquare(counts.reshape(-1)).pvalue > 1e-5)


def test_draws_are_uniform_over_a_key_and_over_a_place(draws: Any) -> None:
    assert ((draws >= 0) & (draws < 1)).all()
    assert stats.kstest(draws.reshape(-1)[::7], "uniform").pvalue > 1e-5
    part = (draws * PARTS).astype(int)
    places = np.stack([np.bincount(part[:, i], minlength=PARTS) for i in range(NUMBER)])
    keys = np.stack([np.bincount(row, minlength=PARTS) for row in part])
    for counts in (places, keys):
        chi = ((counts - counts.sum(1, keepdims=True) / PARTS) ** 2).sum(1) / (counts.sum(1) / PARTS)
        assert stats.kstest(chi, "chi2", args=(PARTS - 1,)).pvalue > 1e-5
    fine = (draws * 2.0**24).astype(int)
    assert even(np.bincount(fine.reshape(-1) % 256, minlength=256))  # the least bits too


@pytest.mark.parametrize(
    ("keys", "places"), [(0, 1), (0, 2), (0, 64), (0, NUMBER // 2), (1, 0), (1, 1), (16, 0), (1, -1)]
)
def test_draws_of_two_places_or_keys_say_nothing_of_one_another(draws: Any, keys: int, places: int) -> None:
    part = (draws * PARTS).astype(int)
    pairs = part * PARTS + np.roll(part, (keys, places), (0, 1))
    assert even(np.bincount(pairs.reshape(-1), minlength=PARTS**2))


def test_a_draw_hangs_on_key_and_place_only(draws: Any) -> None:
    key = jax.random.fold_in(jax.random.key(0), 3)
    np.testing.assert_array_equal(numbers(key, 100), draws[3, :100])


def test_mixing_is_one_to_one_and_a_changed_bit_changes_half_of_all() -> None:
    words: Any = np.random.default_rng(0).integers(0, 2**32, 1 << 14, dtype=np.uint32)
    assert len(np.unique(mix(words))) == len(np.unique(words))
    for bit in range(32):
        changed = np.unpackbits((np.asarray(mix(words)) ^ np.asarray(mix(words ^ np.uint32(1 << bit)))).view(np.uint8))
        share = changed.reshape(-1, 32).mean(0)
        assert np.abs(share - 0.5).max() < 0.05


@pytest.mark.parametrize("first", [0, 1])
def test_keys_of_near_first_words_have_nothing_in_common(first: int) -> None:
    """Neither the same numbers nor the same ones some places on."""
    words: Any = np.array([[7, 9], [7 + first, 10]], np.uint32)
    one, other = (np.asarray(numbers(jax.random.wrap_key_data(each), NUMBER)) for each in words)
    assert np.isin(one, other).sum() < 10  # by chance about one


def test_all_words_of_a_key_count_whatever_its_kind() -> None:
    keys = [jax.random.wrap_key_data(jnp.array(data, jnp.uint32), impl="rbg") for data in ([1, 2, 3, 4], [1, 2, 3, 5])]
    one, other = (np.asarray(numbers(key, 100)) for key in keys)
    assert (one != other).mean() > 0.9
