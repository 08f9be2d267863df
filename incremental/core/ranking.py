"""Full-catalogue ranking on the device: ranks of the labels, and what was recommended."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.spec import Input
from incremental.core.types import Catalogue, Data, Ranks, Seen, State

Scores = Callable[[State, dict[str, Array]], Array]
Known = Callable[[Catalogue, dict[str, Array], Mapping[str, Input]], Array]

CLASSES = 128  # a catalogue of so few is one of classes: their scores are kept
ROWS, LEAST = 256, 32  # that a test ranks at once
LARGE = 1 << 28  # bytes of their scores
BLOCK = 4, 16  # items whose maximum is taken first: 4 vector registers of 16 numbers


def at_once(slots: int, most: int = ROWS) -> int:
    """How many examples a test ranks at once: 256, or as many as have `LARGE` bytes of scores for `slots` items, but 32
    at least and then `most` at most.

    The last batch costs as much as a full one, so that smaller ones are better for tests of few examples. With so many
    items they cost no more an example.
    """
    fit = max(LARGE // (4 * slots) // LEAST, 1) * LEAST
    return ROWS if fit >= ROWS else min(fit, most)


def known(catalogue: Catalogue, inputs: dict[str, Array], spec: Mapping[str, Input]) -> Array:
    """[B] bool: whether the model knows something of an example: its user was trained on, a list of ids holds some.

    Other ids alone (a category, an hour) say nothing of who asks, and what is not in `spec` says nothing at all; an
    example without users and lists is known.
    """
    answer = jnp.ones(len(next(iter(inputs.values()))), bool)
    of_ids = {name: ids for name, ids in inputs.items() if name in spec and spec[name].kind is not None}
    lists = [(ids > 0).any(-1) for ids in of_ids.values() if ids.ndim > 1]
    if lists:
        answer = answer & jnp.stack(lists).any(0)
    for name, ids in of_ids.items():
        if ids.ndim == 1 and spec[name].kind == "user":
            answer = answer & catalogue.arrived["user"][ids]
    return answer


def known_by_any(catalogue: Catalogue, inputs: dict[str, Array], spec: Mapping[str, Input]) -> Array:
    """[B] bool: as `known`, for models that score an example by its user or else by its history."""
    return jnp.stack([known(catalogue, {name: ids}, spec) for name, ids in inputs.items()]).any(0)


def known_to_all(catalogue: Catalogue, inputs: dict[str, Array], spec: Mapping[str, Input]) -> Array:
    """[B] bool: every example, for models whose scores are the same whatever the model knows of it."""
    del catalogue, spec
    return jnp.ones(len(next(iter(inputs.values()))), bool)


def rankable(raw: Scores, spec: Mapping[str, Input], known: Known = known) -> Scores:
    """Scores fit for ranking: -inf outside the items seen so far, and popularity where the model knows nothing.

    `spec` says what the inputs are. The fallback for examples that are not `known` is the number of training events of
    each item.
    """

    def scores(state: State, inputs: dict[str, Array]) -> Array:
        catalogue = state.learner.catalogue
        fallback = ~known(catalogue, inputs, spec)[:, None]
        values = jnp.where(fallback, catalogue.events[None, :], raw(state, inputs))
        return jnp.where(catalogue.seen[None, :], values, -jnp.inf)

    return scores


def label_rank(scores: Array, labels: Array) -> Array:
    """[B] float32: candidates scored above the label, ties counted as half; inf where the label is no candidate.

    `scores` [B, V] with -inf outside the candidates, `labels` [B] int32 (any id; those >= V are no candidates).
    """
    inside = labels < scores.shape[1]
    own = jnp.take_along_axis(scores, jnp.where(inside, labels, 0)[:, None], axis=1)
    # In pieces that are added up item by item: of a whole row XLA's CPU compiler writes all terms of the sum first.
    pieces = 8 if scores.shape[1] % 64 == 0 else 1
    split, own = scores.reshape(len(scores), pieces, pieces, -1), own[:, :, None]
    halves = sum(
        (split[:, :, i] > own).astype(jnp.int32) + (split[:, :, i] >= own).astype(jnp.int32) for i in range(pieces)
    )
    twice = jnp.sum(halves, (1, 2)) - 1  # the label ties itself
    return jnp.where(inside & (own[:, 0, 0] > -jnp.inf), 0.5 * twice, jnp.inf).astype(jnp.float32)


def top_k(scores: Array, k: int) -> tuple[Array, Array]:
    """The `k` highest scores of each row and their items, both [B, k]: `jax.lax.top_k`, of long rows in two steps.

    A row's highest k lie in the k blocks with the highest maxima. Of equal maxima the first block comes first, and
    blocks are read in the items' order, so that of equal scores the first item comes first, as in one step.
    """
    rows, capacity, block = *scores.shape, math.prod(BLOCK)
    if capacity % block or capacity <= 2 * k * block:
        return jax.lax.top_k(scores, k)
    maxima = scores.reshape(rows, -1, *BLOCK).max(2).max(2)
    chosen = jnp.sort(jax.lax.top_k(maxima, k)[1])
    few = jnp.take_along_axis(scores.reshape(rows, -1, block), chosen[:, :, None], axis=1).reshape(rows, -1)
    best, place = jax.lax.top_k(few, k)
    return best, jnp.take_along_axis(chosen, place // block, axis=1) * block + place % block


def over_events(values: Array, data: Data) -> Array:
    """[] float32: the mean of the values [N] of the examples of `data`; 0 of none."""
    real = jnp.arange(len(values)) < data.size
    return jnp.where(real, values, 0.0).sum() / jnp.maximum(data.size, 1)


def over_users(values: Array, data: Data) -> Array:
    """[] float32: the mean over users of each one's mean value; 0 of none."""
    real = jnp.arange(len(values)) < data.size
    owner = jnp.where(real, data.rows.owner, -1)
    in_order = jnp.sort(owner)
    number = jnp.searchsorted(in_order, owner, side="right") - jnp.searchsorted(in_order, owner)
    weight = jnp.where(real, 1.0 / number, 0.0)
    return (weight * jnp.where(real, values, 0.0)).sum() / jnp.maximum(weight.sum(), 1.0)


def ranker(
    scores: Scores,
    *,
    batch_size: int,
    cutoffs: tuple[int, ...] = (),
    lists: bool = False,
    prepare: Callable[[State], State] = lambda state: state,
) -> Callable[[State, Data, Seen | None], Ranks]:
    """A function that ranks every row's label in batches of `batch_size`, and counts the first K recommendations.

    Items of `Seen` are left out of their row's ranking, its label excepted. `cutoffs` are the K's; with `lists`
    each row's first are kept too. `prepare` is done once a ranking: `scores` gets the state it returns, whose catalogue
    counts `data.listed` among the seen.
    """

    def rank(state: State, data: Data, seen: Seen | None = None) -> Ranks:
        state = with_listed(prepare(state), data)
        total = data.rows.labels.shape[0]
        capacity = state.learner.catalogue.seen.shape[0]

        def body(step: Array, ranks: Ranks) -> Ranks:
            place = step * batch_size + jnp.arange(batch_size)
            index = jnp.minimum(place, total - 1)
            fresh = place < data.size
            inputs, labels = jax.tree.map(lambda rows: rows[index], (data.rows.inputs, data.rows.labels))
            values = scores(state, inputs)
            if seen is not None:
                position = seen.start[index][:, None] + seen.window
                items = jnp.where(position < seen.stop[index][:, None], seen.log[position], 0)
                items = jnp.where(items == labels[:, None], 0, items)
                values = values.at[jnp.arange(batch_size)[:, None], items].set(-jnp.inf)

            def read(values: Array) -> Ranks:
                rank = ranks.rank.at[jnp.where(fresh, index, total)].set(label_rank(values, labels), mode="drop")
                recommended, firsts = ranks.recommended, ranks.lists
                if cutoffs:
                    best, top = top_k(values, min(max(cutoffs), capacity))
                    real = fresh[:, None] & (best > -jnp.inf)
                    # Masks, not slices: of a sliced top_k XLA's CPU compiler makes a whole sort (100 times slower).
                    within = [real & (jnp.arange(top.shape[1]) < k) for k in cutoffs]
                    recommended = jnp.stack(
                        [recommended[i].at[top].add(first.astype(jnp.int32)) for i, first in enumerate(within)]
                    )
                    if firsts is not None:
                        at = firsts.at[jnp.where(fresh, index, total)]
                        firsts = at.set(jnp.where(real, top, 0), mode="drop")
                own = ranks.scores
                if own is not None:
                    own = own.at[jnp.where(fresh, index, total)].set(values, mode="drop")
                return Ranks(rank, recommended, own, firsts)

            # Always true, which XLA cannot know: so the scores are masked once, and not for each reader anew.
            return jax.lax.cond(fresh[0], read, lambda _: ranks, values)

        kept = jnp.zeros((total, capacity), jnp.float32) if capacity <= CLASSES else None
        firsts = jnp.zeros((total, min(max(cutoffs), capacity)), jnp.int32) if lists and cutoffs else None
        last = jnp.full((total,), jnp.inf, jnp.float32)
        empty = Ranks(last, jnp.zeros((len(cutoffs), capacity), jnp.int32), kept, firsts)
        return jax.lax.fori_loop(0, (data.size + batch_size - 1) // batch_size, body, empty)

    return rank


def ranker_of_one(
    scores: Scores, *, batch_size: int, cutoffs: tuple[int, ...] = (), lists: bool = False
) -> Callable[[State, Data, Seen | None], Ranks]:
    """As `ranker`, for scores that are the same for every example: one is scored, and all labels are looked up in its
    sorted scores. Where each row leaves out items of its own, rows are ranked one by one."""
    one_by_one = ranker(scores, batch_size=batch_size, cutoffs=cutoffs, lists=lists)

    def rank(state: State, data: Data, seen: Seen | None = None) -> Ranks:
        if seen is not None:
            return one_by_one(state, data, seen)
        state, labels = with_listed(state, data), data.rows.labels
        values = scores(state, jax.tree.map(lambda rows: rows[:1], data.rows.inputs))
        capacity, fresh = values.shape[1], jnp.arange(len(labels)) < data.size
        inside, in_order = labels < capacity, jnp.sort(values[0])
        own = values[0][jnp.where(inside, labels, 0)]
        lower, upper = (jnp.searchsorted(in_order, own, side=side, method="sort") for side in ("left", "right"))
        halves = 2 * (capacity - upper) + (upper - lower) - 1  # as in `label_rank`
        found = jnp.where(fresh & inside & (own > -jnp.inf), 0.5 * halves, jnp.inf).astype(jnp.float32)
        recommended, firsts = jnp.zeros((len(cutoffs), capacity), jnp.int32), None
        if cutoffs:
            best, top = top_k(values, min(max(cutoffs), capacity))
            times = [jnp.where((best[0] > -jnp.inf) & (jnp.arange(top.shape[1]) < k), data.size, 0) for k in cutoffs]
            recommended = recommended.at[:, top[0]].add(jnp.stack(times))
            if lists:
                firsts = jnp.where(fresh[:, None] & (best > -jnp.inf), top, 0)
        kept = jnp.where(fresh[:, None], values, 0.0) if capacity <= CLASSES else None
        return Ranks(found, recommended, kept, firsts)

    return rank


def with_listed(state: State, data: Data) -> State:
    """The state whose catalogue counts the items that the data lists among the seen."""
    if data.listed is None:
        return state
    catalogue = state.learner.catalogue
    catalogue = catalogue._replace(seen=catalogue.seen | data.listed)
    return state._replace(learner=state.learner._replace(catalogue=catalogue))
