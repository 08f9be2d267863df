"""Full softmax without a [B, V] matrix: the cross-entropy and its gradient, one chunk of the catalogue at a time."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.problem import Head, Items
from incremental.core.types import Batch, Outputs
from incremental.domains import Count, checked

LEAST = float(jnp.finfo(jnp.float32).min)  # finite, so that a chunk without candidates makes no NaN


@checked
def chunked_softmax(*, chunk: Count = 4096) -> Head:
    """-log softmax(s)_y over the candidates, exactly; at most B × `chunk` scores are in memory at once.

    The backward pass computes each chunk's scores again: about a third more arithmetic than `full_softmax`.
    """

    def loss(items: Items, outputs: Outputs, batch: Batch) -> Array:
        candidates = jnp.ones(len(items.bias), bool) if batch.candidates is None else batch.candidates
        everyone = jnp.int32(len(batch.labels))
        return cross_entropy(
            chunk, len(batch.labels), outputs.hidden, items.table, items.bias, candidates, batch.labels, everyone
        )

    return Head(loss)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def cross_entropy(
    chunk: int,
    block: int,
    hidden: Array,
    table: Array,
    bias: Array,
    candidates: Array,
    labels: Array,
    rows: Array,
) -> Array:
    """[B]: log Σ_{j in candidates} exp(s_j) - s_y with s = hidden · table[j] + bias[j]; 0 from row `rows` on.

    hidden [B, D], table [V, D], bias [V], candidates [V] bool, labels [B] int32 in 0..V-1, rows [] int32. Blocks of
    `block` rows (B is a multiple of it) meet chunks of `chunk` columns; blocks beyond `rows` cost nothing.
    """
    return _forward(chunk, block, hidden, table, bias, candidates, labels, rows)[0]


def _columns(i: Array, chunk: int, table: Array, bias: Array, candidates: Array) -> tuple[Array, Array, Array, Array]:
    """The start of chunk i, its rows of the table and biases (-inf: no candidate), and which columns are its own.

    The last chunk reaches back into the one before it rather than beyond the table.
    """
    start = jnp.minimum(i * chunk, len(table) - chunk)
    rows, biases, among = (jax.lax.dynamic_slice_in_dim(each, start, chunk) for each in (table, bias, candidates))
    own = start + jnp.arange(chunk) >= i * chunk
    return start, rows, jnp.where(among & own, biases, -jnp.inf), own


def _forward(
    chunk: int, block: int, hidden: Array, table: Array, bias: Array, candidates: Array, labels: Array, rows: Array
) -> tuple[Array, Any]:
    chunk = min(chunk, len(table))
    chunks = -(-len(table) // chunk)

    def of_block(b: Array, normalisers: Array) -> Array:
        h = jax.lax.dynamic_slice_in_dim(hidden, b * block, block)

        def of_chunk(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            highest, total = carry
            _, columns, biases, _ = _columns(i, chunk, table, bias, candidates)
            scores = columns @ h.T + biases[:, None]
            new = jnp.maximum(highest, scores.max(0))
            return new, total * jnp.exp(highest - new) + jnp.exp(scores - new).sum(0)

        start = jnp.full(block, LEAST, hidden.dtype), jnp.zeros(block, hidden.dtype)
        highest, total = jax.lax.fori_loop(0, chunks, of_chunk, start)
        return jax.lax.dynamic_update_slice_in_dim(normalisers, highest + jnp.log(total), b * block, 0)

    blocks = (rows + block - 1) // block
    normalisers = jax.lax.fori_loop(0, blocks, of_block, jnp.zeros(len(hidden), hidden.dtype))
    own = (hidden * table[labels]).sum(1) + bias[labels]
    loss = jnp.where(jnp.arange(len(hidden)) < rows, normalisers - own, 0.0)
    return loss, (hidden, table, bias, candidates, labels, rows, normalisers)


def _backward(chunk: int, block: int, kept: Any, slope: Array) -> tuple[Any, ...]:
    hidden, table, bias, candidates, labels, rows, normalisers = kept
    chunk = min(chunk, len(table))
    chunks = -(-len(table) // chunk)
    slope = jnp.where(jnp.arange(len(hidden)) < rows, slope, 0.0)

    def of_block(b: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        d_hidden, d_table, d_bias = carry
        h, y, z, g = (jax.lax.dynamic_slice_in_dim(x, b * block, block) for x in (hidden, labels, normalisers, slope))

        def of_chunk(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            d_h, d_table, d_bias = carry
            start, columns, biases, own = _columns(i, chunk, table, bias, candidates)
            p = jnp.exp(columns @ h.T + biases[:, None] - z)
            label = ((start + jnp.arange(chunk))[:, None] == y) & own[:, None]
            d_scores = g * (p - label)

            def added(total: Array, part: Array) -> Array:
                before = jax.lax.dynamic_slice_in_dim(total, start, chunk)
                return jax.lax.dynamic_update_slice_in_dim(total, before + part, start, 0)

            return d_h + columns.T @ d_scores, added(d_table, d_scores @ h), added(d_bias, d_scores.sum(1))

        d_h, d_table, d_bias = jax.lax.fori_loop(0, chunks, of_chunk, (jnp.zeros_like(h.T), d_table, d_bias))
        return jax.lax.dynamic_update_slice_in_dim(d_hidden, d_h.T, b * block, 0), d_table, d_bias

    zeros = jnp.zeros_like(hidden), jnp.zeros_like(table), jnp.zeros_like(bias)
    gradients = jax.lax.fori_loop(0, (rows + block - 1) // block, of_block, zeros)
    return (*gradients, None, None, None)


cross_entropy.defvjp(_forward, _backward)
