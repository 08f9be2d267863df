"""Exemplars: at an increment's end, the rows of the increment and of the memory that represent each label best."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.ids import trained
from incremental.core.steps import batches
from incremental.core.strategy import named_key
from incremental.core.types import Batch, Data, Learner, Memory, Problem, stored, with_labels
from incremental.errors import UserError
from incremental.memory import buffer, herding, quotas

Selection = Literal["herding", "loss", "least_loss", "random", "one"]
Groups = Literal["label", "increment"]
CHUNK = 256  # rows whose outputs are in memory at once


class Rehearsal(NamedTuple):
    """The exemplars, and how an update goes through them."""

    memory: Memory
    items: Array  # [] int32, |I_{t-1}|: items seen at the end of the last increment
    adapted: Array  # [] float32: sqrt(|I_{t-1}| / |I_t| · |E_{t-1}| / |D_t|)
    size: Array  # [] int32, |D_t|: the rows of the update


def nothing(example: Batch, capacity: int) -> Rehearsal:
    """No exemplar yet."""
    zero = jnp.int32(0)
    return Rehearsal(buffer.empty(example, capacity), zero, jnp.float32(0.0), zero)


def begun(state: Rehearsal, learner: Learner, data: Data) -> Rehearsal:
    """At an update's start: ADER's adaptive weight (Mi et al. 2020, arXiv 2007.12000), I the items seen so far, E the
    exemplars, D_t the update's rows. It is 0 while there are no exemplars."""
    items = state.items / jnp.maximum(trained(learner).labels.sum(), 1)
    examples = state.memory.rows.valid.sum() / jnp.maximum(data.size, 1)
    adapted = jnp.sqrt(items * examples).astype(jnp.float32)
    return state._replace(adapted=adapted, size=data.size)


def ended(state: Rehearsal, learner: Learner, memory: Memory) -> Rehearsal:
    """At an increment's end, with the exemplars chosen anew."""
    return state._replace(memory=memory, items=trained(learner).labels.sum(dtype=jnp.int32))


def in_turn(state: Rehearsal, most: int, batch_size: int) -> Array:
    """[] int32: ⌊|E| / batches⌋ exemplars a batch, at least 1 and at most `most`: of a fraction an epoch misses a few,
    with more batches than exemplars it meets some again."""
    number = jnp.maximum(batches(state.size, batch_size), 1)
    return jnp.clip(state.memory.rows.valid.sum(dtype=jnp.int32) // number, 1, most)


def beside(state: Rehearsal, new: Batch, rows: int, spread: bool, key: Array) -> Batch:
    """[rows] exemplars that come with a batch: uniform ones with replacement, or with `spread` the next `in_turn`.

    The turn goes on from epoch to epoch of an update.
    """
    if not spread:
        return sample(state.memory, rows, key)
    kept = jnp.maximum(state.memory.rows.valid.sum(dtype=jnp.int32), 1)
    turn = in_turn(state, rows, new.own)
    assert new.step is not None
    first = (new.step % kept) * turn
    old = buffer.drawn(state.memory, (first + jnp.arange(rows)) % kept)
    return old._replace(valid=old.valid & (jnp.arange(rows) < turn))


def chunked(function: Callable[[Batch], Array], rows: Batch) -> Array:
    """`function` of rows [N], a chunk at a time."""
    n = len(rows.labels)
    index = jnp.minimum(jnp.arange(-(-n // CHUNK) * CHUNK), n - 1).reshape(-1, CHUNK)
    parts = jax.lax.map(lambda place: function(jax.tree.map(lambda leaf: leaf[place], rows)), index)
    return parts.reshape(-1, *parts.shape[2:])[:n]


def candidates(memory: Memory, data: Data) -> Batch:
    """[C + N] rows of the memory and of the increment, those for validation included, each once.

    Where the update trained on older increments too, their rows in the memory are left out, for the data hold them all.
    """
    new = stored(data.rows)
    real = new.valid & (jnp.arange(len(new.labels)) < data.size)
    if data.validation is not None:
        new = jax.tree.map(lambda *parts: jnp.concatenate(parts), new, stored(data.validation))
        real = jnp.concatenate([real, data.validation.valid])
    oldest = jnp.where(real, new.increment, jnp.iinfo(jnp.int32).max).min()
    kept = memory.rows.valid & (memory.rows.increment < oldest)
    rows = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), memory.rows, new)
    return rows._replace(valid=jnp.concatenate([kept, real]))


def numbered(rows: Batch, groups: Groups, labels: int) -> tuple[Array, int]:
    """The group [N] int32 of each row, 0 where it is padding, and how many groups there may be at most."""
    if groups == "label":
        return jnp.where(rows.valid, rows.labels, 0), labels
    n = len(rows.labels)
    arrived = jnp.where(rows.valid, rows.increment, -1)
    _, ids = jnp.unique(jnp.append(-1, arrived), return_inverse=True, size=n + 1)
    return ids[1:].astype(jnp.int32), n + 1


def selector(
    problem: Problem, strategy: str, selection: Selection, shares: quotas.Quotas, groups: Groups = "label"
) -> Callable[[Memory, Learner, Data, Array], Memory]:
    """A function (memory, learner, data, key) -> memory with the exemplars of both at the increment's end.

    Each label, or by `groups` each increment, gets slots in proportion to its candidates, as equally as they allow, or
    by ADER's draws (`quotas`). Of a group's candidates it keeps those that herding takes on the hidden vectors (scaled
    to length 1, as iCaRL and ADER do), those with the greatest or least loss over all seen items, or random ones; with
    "one" a single random one, whatever its slots (ADER's code for ER-loss). The model is the increment's last, without
    dropout.
    """
    if selection not in get_args(Selection):
        raise UserError(
            f"strategies.{strategy}: selection={selection!r}: expected one of {', '.join(get_args(Selection))}"
        )
    if groups not in get_args(Groups):
        raise UserError(f"strategies.{strategy}: groups={groups!r}: expected one of {', '.join(get_args(Groups))}")
    share = quotas.named(shares, strategy)
    if shares == "uniform_seen" and groups != "label":
        raise UserError(
            f"strategies.{strategy}: quotas=uniform_seen draws from all labels seen, and groups={groups} shares the "
            "memory among others; choose quotas=uniform, or groups=label"
        )

    def select(memory: Memory, learner: Learner, data: Data, key: Array) -> Memory:
        capacity, seen = buffer.capacity_of(memory), learner.catalogue.seen
        rows = candidates(memory, data)
        ids, most = numbered(rows, groups, len(seen))
        counts = jnp.zeros(most, jnp.int32).at[ids].add(1).at[0].set(0)
        quota = share(counts, trained(learner).labels, capacity, named_key(key, "quotas"))
        # At most C groups have a slot: what follows costs nothing for the others, which are group 0.
        group = jnp.where(quota > 0, jnp.cumsum(quota > 0), 0)
        own, quota = group[ids], jnp.zeros(capacity + 1, jnp.int32).at[group].set(quota)

        def hidden(rows: Batch) -> Array:
            vectors = problem.apply(learner.params, rows.inputs).hidden
            return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

        def loss(rows: Batch) -> Array:
            outputs = problem.apply(learner.params, rows.inputs)
            return problem.loss(learner.params, outputs, rows._replace(candidates=with_labels(seen, rows)))

        if selection == "herding":
            vectors = jnp.where(rows.valid[:, None], chunked(hidden, rows), 0.0)
            chosen = herding.herd(vectors, own, quota)
        elif selection in ("loss", "least_loss"):
            values = chunked(loss, rows)
            chosen = herding.highest(values if selection == "loss" else -values, own, quota)
        else:
            values = jax.random.uniform(named_key(key, "random"), own.shape)
            chosen = herding.highest(values, own, jnp.minimum(quota, 1) if selection == "one" else quota)
        # In random order, so that exemplars which come in turn are not those of one time or session.
        order = jax.random.uniform(named_key(key, "order"), chosen.shape)
        place = jnp.argsort(jnp.where(chosen, order, 2.0))[:capacity]
        kept = jax.tree.map(lambda leaf: leaf[place], rows)
        filled = jnp.arange(capacity) < chosen.sum()
        offered = data.size if data.validation is None else data.size + data.validation.valid.sum(dtype=jnp.int32)
        return Memory(kept._replace(valid=filled), memory.inserted + offered)

    return select


def sample(memory: Memory, number: int, key: Array) -> Batch:
    """[number] rows drawn uniformly with replacement; all invalid while there are none."""
    return buffer.sample(memory._replace(inserted=memory.rows.valid.sum(dtype=jnp.int32)), number, key)
