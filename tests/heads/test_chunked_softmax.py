import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs
from incremental.errors import UserError
from incremental.heads.chunked_softmax import chunked_softmax, cross_entropy
from incremental.heads.full_softmax import full_softmax

B, D, V = 24, 5, 103
RNG = np.random.default_rng(0)
SEEN: Any = RNG.random(V) < 0.7
LABELS: Any = RNG.choice(np.flatnonzero(SEEN), B).astype(np.int32)
HIDDEN, TABLE, BIAS, SLOPE = (RNG.normal(size=shape).astype(np.float32) for shape in ((B, D), (V, D), V, B))
NONE: Any = None


@functools.cache
def compiled(chunk: int | None) -> Any:
    """One program a kind of candidates; without a chunk, of the full softmax."""
    head = full_softmax() if chunk is None else chunked_softmax(chunk=chunk)

    @jax.jit
    def both(hidden: Any, table: Any, bias: Any, candidates: Any) -> Any:
        def total(*given: Any) -> Any:
            hidden, table, bias = given
            outputs = Outputs(hidden, hidden @ table.T + bias)
            rows = head.loss(Items(table, bias), outputs, Batch({}, LABELS, NONE, NONE, NONE, candidates=candidates))
            return (SLOPE * rows).sum(), rows

        gradients, rows = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(hidden, table, bias)
        return rows, gradients

    return both


def value_and_gradients(chunk: int | None, candidates: Any, scale: float = 1.0) -> Any:
    """The rows' losses, and the gradient of a sum with unequal weights by hidden vectors, table and biases."""
    return compiled(chunk)(HIDDEN * np.float32(scale), TABLE, BIAS, candidates)


@pytest.mark.parametrize("candidates", [SEEN, None], ids=["seen", "all"])
@pytest.mark.parametrize("chunk", [16, 103, 4096])  # 103 is no multiple of 16: the last chunk reaches back
def test_it_equals_the_full_softmax_in_value_and_gradient(chunk: int, candidates: Any) -> None:
    found = value_and_gradients(chunk, candidates)
    full = value_and_gradients(None, candidates)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), found, full)


def test_large_scores_stay_finite() -> None:
    found = value_and_gradients(16, SEEN, scale=1e3)
    full = value_and_gradients(None, SEEN, scale=1e3)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2), found, full)


def test_rows_beyond_a_number_cost_nothing_and_say_nothing() -> None:
    def rows(hidden: Any, number: Any) -> Any:
        return cross_entropy(16, 8, hidden, TABLE, BIAS, SEEN, LABELS, number)

    @jax.jit
    def of(hidden: Any, number: Any) -> Any:
        gradient = jax.grad(lambda hidden: rows(hidden, number).sum())(hidden)
        return rows(hidden, number), rows(hidden, B), gradient

    some, every, gradient = map(np.asarray, of(HIDDEN, np.int32(11)))
    np.testing.assert_allclose(some[:11], every[:11], rtol=1e-6)
    np.testing.assert_array_equal(some[11:], 0.0)
    np.testing.assert_array_equal(gradient[11:], 0.0)
    assert np.abs(gradient[:11]).min() > 0


def temporary_bytes(head: Head, size: int) -> int:
    """Of a compiled value and gradient at `size` items, beside arguments and results."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 8), (size, 8), (size,))]

    def total(hidden: Any, table: Any, bias: Any) -> Any:
        outputs = Outputs(hidden, hidden @ table.T + bias)
        batch = Batch({}, jnp.zeros(64, jnp.int32), NONE, NONE, NONE, candidates=jnp.ones(size, bool))
        return head.loss(Items(table, bias), outputs, batch).sum()

    compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).lower(*shapes).compile()
    analysis: Any = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes)


def test_no_matrix_of_batch_times_catalogue_is_in_memory() -> None:
    size = 40_000
    matrix = 4 * 64 * size
    assert temporary_bytes(full_softmax(), size) >= matrix
    assert temporary_bytes(chunked_softmax(chunk=512), size) < matrix / 4


def test_an_impossible_chunk_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="chunk=0: expected a whole number >= 1"):
        chunked_softmax(chunk=0)
