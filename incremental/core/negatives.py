"""Negatives, shared by a batch's rows or of each row's own, and the strategy that draws them."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.mixing import uniform
from incremental.core.problem import Items
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs

BLOCK = 4096  # places whose weights are accumulated together
CHUNK = 1 << 14  # items that are listed at once
SHARE = 16  # of as many numbers as there are items the powers are looked up


class Proposal(NamedTuple):
    """Items and how likely each is, in a form that a draw reads in O(log V).

    The weights are accumulated within blocks and over blocks, for in float32 one running sum over 10^7 weights is too
    coarse to tell neighbours apart.
    """

    items: Array  # [V] int32: the candidates, then 0s
    log_q: Array  # [V] float32: of the candidate at the same place
    size: Array  # [] int32, candidates
    within: Array  # [⌈V / BLOCK⌉, BLOCK] float32: running sums of a block's weights
    blocks: Array  # [⌈V / BLOCK⌉] float32: running sums of the blocks' totals


def proposal(weight: Array, candidates: Array, last: Proposal) -> Proposal:
    """Candidate i ([V] bool) is drawn with probability `weight` [V] float32 of i / Σ of all candidates'.

    The `last` one lists its candidates, and what is the same in the new list is taken over.
    """
    candidates = jnp.asarray(candidates)
    size, slot = candidates.sum(dtype=jnp.int32), jnp.arange(len(candidates), dtype=jnp.int32)
    same = (size == last.size) & (candidates[last.items] | (slot >= size)).all()
    items = jax.lax.cond(same, lambda: last.items, lambda: listed(candidates, last))
    weight = jnp.where(slot < size, weight[items], 0.0)
    within = jnp.cumsum(jnp.pad(weight, (0, -len(items) % BLOCK)).reshape(-1, BLOCK), axis=1)
    blocks = jnp.cumsum(within[:, -1])
    return Proposal(items, jnp.log(weight) - jnp.log(blocks[-1]), size, within, blocks)


def draw(proposal: Proposal, number: int, key: Array, *, ones: bool = False) -> tuple[Array, Array]:
    """`number` items [number] int32 with replacement, and their log q [number] float32: a block, then a place in it.

    The place is how many of the block's running sums are at most the target. Where it is known that all weights are 1
    (`ones`) this is the target's whole part. Else it is found by a binary search, all draws at once. On a CPU it is a
    loop, for of its steps one behind the other XLA computes the earlier ones anew in the later ones; elsewhere a loop
    would be a launch a step.
    """
    of_block, of_place = jnp.split(uniform(key, 2 * number), 2)
    block = jnp.searchsorted(proposal.blocks, of_block * proposal.blocks[-1], side="right")
    target = of_place * proposal.within[block, -1]
    sums, first = proposal.within.reshape(-1), block * BLOCK
    levels = (min(BLOCK, len(proposal.items)) - 1).bit_length()

    def halve(level: Array, place: Array) -> Array:
        step = jnp.int32(1) << (levels - 1 - level)
        below = sums.at[first + place + step - 1].get(mode="promise_in_bounds") <= target
        return jnp.where(below, place + step, place)

    place = jnp.zeros_like(block)
    if ones:
        place = target.astype(place.dtype)
    elif jax.default_backend() == "cpu":
        place = jax.lax.fori_loop(0, levels, halve, place)
    else:
        place = functools.reduce(lambda place, level: halve(jnp.int32(level), place), range(levels), place)
    place = jnp.minimum(first + place, jnp.maximum(proposal.size - 1, 0))  # sums are rounded
    return proposal.items[place], proposal.log_q[place]


def listed(candidates: Array, last: Proposal) -> Array:
    """[V] int32: the candidates in ascending order, then 0s, by the list of `last`.

    It holds up to the first place where it does not; what comes behind is written anew, in chunks on a CPU, where a
    scatter goes over its indices one by one. New items come last, so that this is little.
    """
    number, slot = len(candidates), jnp.arange(len(candidates), dtype=jnp.int32)
    until = jnp.cumsum(candidates, dtype=jnp.int32)  # how many there are up to an item
    holds = (slot < last.size) & candidates[last.items] & (until[last.items] == slot + 1)
    first = jnp.argmin(jnp.append(holds, False)).astype(jnp.int32)
    start = jnp.where(first > 0, last.items[jnp.maximum(first - 1, 0)] + 1, 0)
    chunk = min(number, CHUNK) if jax.default_backend() == "cpu" else number

    def write(i: Array, items: Array) -> Array:
        own = jnp.minimum(i * chunk, number - chunk) + jnp.arange(chunk, dtype=jnp.int32)
        place = jnp.where(candidates[own], until[own] - 1, number + own)  # no two are equal
        return items.at[place].set(own, mode="drop", unique_indices=True)

    items = jax.lax.fori_loop(start // chunk, -(-number // chunk), write, last.items)
    return jnp.where(slot < until[-1], items, 0)


def nothing(slots: int) -> Proposal:
    """The proposal without candidates, in tables of `slots` rows."""
    zeros, blocks = jnp.zeros(slots, jnp.float32), -(-slots // BLOCK)
    within = jnp.zeros((blocks, BLOCK), jnp.float32)
    return Proposal(zeros.astype(jnp.int32), zeros, jnp.int32(0), within, within[:, 0])


def powers(events: Array, power: Array | float) -> Array:
    """max(events, 1)^power [V] float32: those of whole numbers are looked up, unless some events are too many for that.

    On a CPU a look-up takes a thirtieth of a power's time.
    """
    number = len(events) // SHARE
    count = jnp.clip(events, 0, max(number - 1, 0)).astype(jnp.int32)

    def computed(events: Array) -> Array:
        return jnp.maximum(events, 1.0) ** power

    if number < BLOCK:
        return computed(events)
    table = computed(jnp.arange(number, dtype=jnp.float32))
    return jax.lax.cond((events == count).all(), lambda: table[count], lambda: computed(events))


def drawn(number: int, power: float | Array, *, shared: bool = True) -> Strategy:
    """A strategy that draws `number` negatives, with replacement, from the items seen so far.

    Item i is drawn with probability q_i proportional to (its training events)^power: 0 is uniform, 1 popularity
    (word2vec's 0.75 is Mikolov et al. 2013). The rest is as in `drawn_by`.
    """
    ones = isinstance(power, int | float) and power == 0  # it may be traced
    return drawn_by(number, lambda catalogue: powers(catalogue.events, power), shared=shared, ones=ones)


def drawn_by(number: int, weigh: Callable[[Catalogue], Array], *, shared: bool = True, ones: bool = False) -> Strategy:
    """A strategy that draws `number` negatives, with replacement: items seen so far, by their weights [V]; `ones`: all
    weights are 1.

    It fills `negatives` [N] and `log_q` [N] = log(N q) for a batch, or [B, N] for rows that do not share them. Its
    state is the `Proposal`, taken anew from the catalogue at the start of each increment.
    """

    def init(learner: Learner) -> Proposal:
        return nothing(len(learner.catalogue.seen))

    def begin(state: Proposal, learner: Learner, data: Data, key: Array) -> tuple[Proposal, Learner]:
        del data, key
        return proposal(weigh(learner.catalogue), learner.catalogue.seen, state), learner

    def batch(state: Proposal, batch: Batch, key: Array) -> Batch:
        shape = (number,) if shared else (len(batch.labels), number)
        negatives, log_q = (each.reshape(shape) for each in draw(state, math.prod(shape), key, ones=ones))
        return batch._replace(negatives=negatives, log_q=jnp.log(float(number)) + log_q)

    return Strategy(init=init, begin=begin, batch=batch)


@jax.custom_vjp
def between(a: Array, b: Array) -> Array:
    """[M, N]: the products of the rows of a [M, D] and b [N, D].

    The gradient of b is written out: it is made as [D, N], in a third of the time on a CPU. Were the transpose not
    behind a barrier, XLA would make it as [N, D], which reads the products' gradient against its order.
    """
    return a @ b.T


between.defvjp(
    lambda a, b: (between(a, b), (a, b)),
    lambda kept, g: (g @ kept[1], jax.lax.optimization_barrier(kept[0].T @ g).T),
)


def of_labels(items: Items, outputs: Outputs, batch: Batch) -> Array:
    """[B]: the labels' scores."""
    return (outputs.hidden * items.table[batch.labels]).sum(1) + items.bias[batch.labels]


def scored(items: Items, outputs: Outputs, batch: Batch) -> tuple[Array, Array, Array]:
    """The label's score [B], the negatives' [B, N], and which negatives count [B, N] bool.

    A negative that is the row's own label does not count. Without drawn negatives every candidate is one.
    """
    if batch.negatives is not None and batch.negatives.ndim == 2:
        # One look-up: its gradient is one sum into the table.
        ids = jnp.concatenate([batch.labels[:, None], batch.negatives], 1)
        scores = jnp.einsum("bd,bnd->bn", outputs.hidden, items.table[ids]) + items.bias[ids]
        return scores[:, 0], scores[:, 1:], batch.negatives != batch.labels[:, None]
    positive = of_labels(items, outputs, batch)
    if batch.negatives is None:
        ids = jnp.arange(len(items.table))
        scores = outputs.scores
        counts = ids != batch.labels[:, None]
        return positive, scores, counts if batch.candidates is None else counts & batch.candidates
    scores = between(outputs.hidden, items.table[batch.negatives]) + items.bias[batch.negatives]
    return positive, scores, batch.negatives != batch.labels[:, None]


@jax.custom_vjp
def products(a: Array, b: Array) -> Array:
    """[B]: Σ_d a b of a and b [B, D].

    On a CPU a product with ones sums rows in half the time of a contraction of row by row. The gradient is written out,
    for that of the product with ones would be a product of matrices.
    """
    return ((a * b) @ jnp.ones((a.shape[1], 1), a.dtype))[:, 0]


products.defvjp(lambda a, b: (products(a, b), (a, b)), lambda kept, g: (g[:, None] * kept[1], g[:, None] * kept[0]))


def margins(items: Items, outputs: Outputs, batch: Batch) -> tuple[Array, Array]:
    """The label's score minus the negatives' [B, N], and which negatives count [B, N] bool, as in `scored`."""
    if batch.negatives is not None and batch.negatives.shape == (len(batch.labels), 1):
        # Of two rows' difference: half the products, which on a CPU is most of a step.
        ids = jnp.concatenate([batch.labels, batch.negatives[:, 0]])
        (row, negative), (bias, other) = (jnp.split(of[ids], 2) for of in items)
        margin = products(outputs.hidden, row - negative) + bias - other
        return margin[:, None], batch.negatives != batch.labels[:, None]
    positive, scores, counts = scored(items, outputs, batch)
    return positive[:, None] - scores, counts


def mean_over(values: Array, counts: Array) -> Array:
    """[B]: the mean of values [B, N] where counts, 0 where nothing does."""
    return jnp.where(counts, values, 0.0).sum(1) / jnp.maximum(counts.sum(1), 1)
