"""A batch of histories as one run of tokens, so that attention costs their own lengths, with the same mathematics.

Histories are laid out one behind the other, without their padding, and cut into blocks of L tokens. A history is at
most L long, so a token finds all of its past in its own block and the one before. A tenth of the padded B · L tokens
holds most batches of sessions; one that does not fit is computed with its padding, a history a block.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

LEAST_ROWS, LEAST_LENGTH = 64, 32  # below these, packing and compiling cost more than they save
SHARE = 10  # room is made for B · L / SHARE tokens


class Tokens(NamedTuple):
    """n blocks of L tokens, of b histories."""

    item: Array  # [n, L] int32, 0 = padding
    place: Array  # [n, L] int32 in 0..L-1: a history's last event is at L-1
    row: Array  # [n, L] int32 in 0..b-1: the history that a token is of
    known: Array  # [b] bool, False = an empty history
    last: Array | None  # [b] int32: where in [n · L] a history ends; None: each has its own block, and ends with it
    nth: Array  # [n, L] int32 in 0..L-1: a history's first event is at 0

    def past(self, x: Array) -> Array:
        """x [n, L, ...] -> [n, k, ...]: what a block's tokens may look at, themselves at the end; k is L or 2 L."""
        if self.last is None:
            return x
        return jnp.concatenate([jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]]), x], 1)

    def allowed(self) -> Array:
        """[n, L, k] bool: a token looks at the tokens of its own history up to itself."""
        row, place, item = (self.past(ids)[:, None, :] for ids in (self.row, self.place, self.item))
        return (row == self.row[:, :, None]) & (place <= self.place[:, :, None]) & (item > 0)

    def ends(self, x: Array) -> Array:
        """x [n, L, D] (or [n, 1, D], where each history has its own block) -> [b, D]: at the histories' ends."""
        return x[:, -1] if self.last is None else x.reshape(-1, x.shape[-1])[self.last]


def lengths_of(history: Array) -> Array:
    """[b] int32 of [b, L] int32, left-padded with 0: L less the first item's place, 0 for an empty history."""
    length = history.shape[1]
    return length - jnp.where(history > 0, jnp.arange(length), length).min(1)


def padded(history: Array) -> Tokens:
    """[b, L] int32, left-padded with 0: a block each."""
    row, place = jnp.indices(history.shape, jnp.int32)
    nth = jnp.maximum(place - (history.shape[1] - lengths_of(history))[:, None], 0)
    return Tokens(history, place, row, history[:, -1] > 0, None, nth)


def packed(history: Array, lengths: Array, blocks: int, within: Array | None = None) -> Tokens:
    """[b, L] int32, left-padded with 0, and their lengths [b]: one behind the other in `blocks` · L tokens at most.

    `within` [b] int32 is the history, behind it or itself, that each is a prefix of: only those that are in no other
    are laid out, and the others end inside them. None: each is laid out.
    """
    rows, length = history.shape
    whole = jnp.arange(rows) if within is None else within
    own = jnp.where(whole == jnp.arange(rows), lengths, 0)
    ends = jnp.cumsum(own)
    token = jnp.arange(blocks * length)
    # Behind the last token padding, as if of the last row.
    row = jnp.minimum((ends <= token[:, None]).sum(1, dtype=jnp.int32), rows - 1)
    place = jnp.minimum(length - ends[row] + token, length - 1)
    nth = jnp.maximum(place - length + own[row], 0)
    item = jnp.where(token < ends[-1], history[row, place], 0)
    item, place, nth, row = (ids.reshape(blocks, length) for ids in (item, place, nth, row))
    last = ends[whole] - own[whole] + lengths - 1
    return Tokens(item, place, row, lengths > 0, jnp.maximum(last, 0), nth)


@jax.custom_batching.custom_vmap
def of_all_lanes(level: Array) -> Array:
    """`level` [] int32 or bool; under `vmap` the greatest of all lanes, so that a choice by it stays a choice."""
    return level


@of_all_lanes.def_vmap
def _(_lanes: int, _batched: list[bool], level: Array) -> tuple[Array, bool]:
    return of_all_lanes(level.max(0)), False


def by_tokens(encode: Callable[[Tokens, Array | None], Array], history: Array, key: Array | None) -> Array:
    """`encode(tokens, key) -> hidden [B, D]` over histories [B, L], in as few tokens as they need.

    `encode` must give a history the same result in every layout (dropout draws apart).
    """
    rows, length = history.shape
    if rows < LEAST_ROWS or length < LEAST_LENGTH:
        return encode(padded(history), key)
    lengths = lengths_of(history)
    blocks = -(-rows // SHARE)
    # What a branch keeps for its backward pass the other one returns as zeros: with the padding it keeps nothing, and
    # computes its forward pass again.
    anew = jax.checkpoint(encode, prevent_cse=False)  # branches are computations of their own
    return jax.lax.cond(
        of_all_lanes(lengths.sum() > blocks * length),
        lambda history, key: anew(padded(history), key),
        lambda history, key: encode(packed(history, lengths, blocks), key),
        history,
        key,
    )
