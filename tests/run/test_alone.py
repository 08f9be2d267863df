"""Parameters written are counted by their rows' checksums, so that nothing is copied for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.run.alone import checksums, parameters_written

PARAMS: dict[str, Any] = {
    "table": jnp.arange(12.0).reshape(4, 3) / 7,
    "wide": jnp.arange(74.0).reshape(2, 37) / 70,
    "bias": jnp.array([0.0, -1.5, 3e-38]),
    "scalar": jnp.float32(2.0),
    "half": jnp.ones((2, 2), jnp.bfloat16),
    "ids": jnp.arange(6, dtype=jnp.int32).reshape(2, 3),
    "known": jnp.array([True, False]),
}
ROW = {"table": 3, "wide": 37, "bias": 1, "scalar": 1, "half": 2, "ids": 3, "known": 1}
written = jax.jit(lambda before, after: parameters_written(checksums(before), checksums(after), after))


def test_nothing_changed_is_nothing_written() -> None:
    assert int(written(PARAMS, PARAMS)) == 0


@pytest.mark.parametrize("name", PARAMS)
def test_each_numbers_change_counts_its_row(name: str) -> None:
    leaf = PARAMS[name]
    for place in np.ndindex(leaf.shape):
        flipped = ~leaf[place] if leaf.dtype == bool else jnp.nextafter(leaf[place], jnp.asarray(9, leaf.dtype)) \
            if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf[place] + 1  # fmt: skip
        changed = {**PARAMS, name: leaf.at[place].set(flipped)}
        assert int(written(PARAMS, changed)) == ROW[name], place


def test_numbers_that_change_places_are_seen() -> None:
    """A plain sum of a row would not see it."""
    swapped = {**PARAMS, "table": PARAMS["table"][:, ::-1]}
    assert int(written(PARAMS, swapped)) == 12


@pytest.mark.parametrize("name", ["table", "wide"])
def test_a_checksum_is_the_sum_of_its_formula(name: str) -> None:
    bits = np.asarray(PARAMS[name]).view(np.uint32).astype(object)
    odd = [2654435761 * (2 * column + 1) for column in range(bits.shape[1])]
    expected = [sum(a * b for a, b in zip(row, odd, strict=True)) % 2**32 for row in bits]
    assert checksums({name: PARAMS[name]})[name].tolist() == expected
