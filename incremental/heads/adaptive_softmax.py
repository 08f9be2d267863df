"""Adaptive softmax on a stream (Grave et al. 2017, arXiv 1609.04309): frequent items in a short list, the others in
clusters that only the rows with a label in them compute; which item has which slot follows the counts."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.problem import Head, Items
from incremental.core.spec import Sizes
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Outputs, Params, Step
from incremental.core.untied import refuse_without_view, trained_before
from incremental.domains import Count, checked
from incremental.errors import UserError
from incremental.heads import chunked_softmax, full_softmax

CUTOFFS = (2000, 6000, 12000, 20000, 30000, 100_000, 300_000)
ROWS, COLUMNS = 32, 16384  # of a tail's scores in memory at once
FORGETTING = 0.01  # a step, in the mean hidden vector


class Slots(NamedTuple):
    """Who sits where, from one increment's start to the next."""

    slot: Array  # [V] int32: of each item
    item: Array  # [V] int32: in each slot
    live: Array  # [V] bool: the slot's item was seen


class State(NamedTuple):
    """The slots, and where log-probabilities are compared when they change."""

    slots: Slots
    hidden: Array  # [D] float32: the mean hidden vector of late steps


@checked
def adaptive_softmax(*, cutoffs: tuple[Count, ...] = CUTOFFS, shrink: Count = 1) -> Head:
    """-log p(y), p(y) = p(slot) in the short list, or p(cluster) p(slot | cluster) in a tail; over the candidates.

    Slots are sorted by falling frequency. The first `cutoffs[0]` are the short list, whose softmax has an entry a tail
    too; tail k = 1, 2, … takes the slots from `cutoffs[k - 1]` on, the last one the rest; of those that begin beyond
    the catalogue there is nothing. A tail is computed for the rows whose label lies in it, `ROWS` at a time until none
    is left, and with the first d_k = max(D // shrink^k, 1) coordinates of both sides: score = h[:d_k] · E[:d_k] + bias.

    E is the model's own item table, so that an item learns from being read and from being scored alike, whichever slot
    it has. The head's own parameters, under "head": a bias an item [V], and the tails' entries, [tails, D] and [tails].

    At each increment's start the slots are sorted anew by the events counted so far; items new since the last start
    come last, in the last tail. Biases change so that at the mean hidden vector no known item's p(y) does but for the
    room that new ones take, and these get there their share of all events. State: 2 int32 and a bool an item, and [D]
    float32.

    With `data.unseen_items=known` candidates without an event are new at each start, with the share of one event. With
    `listed` an item is none before an update has its first event: its score is -inf.
    """
    if not cutoffs or any(b <= a for a, b in pairwise((0, *cutoffs))):
        raise UserError(f"head.cutoffs={list(cutoffs)}: expected rising positive numbers of slots, e.g. [2000, 10000]")
    layout = Layout(cutoffs, shrink)

    def init(key: Array, sizes: Sizes, width: int) -> Params:
        del key
        return {
            "bias": jnp.zeros(sizes.slots),
            "clusters": jnp.zeros((len(cutoffs), width)),
            "cluster_bias": jnp.zeros(len(cutoffs)),
        }

    def parts_of(own: Params) -> tuple[tuple[Array, ...], list[Array]]:
        """Each cluster's rows [slots, d_k] and biases."""
        slots: Slots = own["slots"]
        table, bias = own["items"].table, own["items"].bias + own["bias"]
        edges = layout.edges(len(bias))
        rows = arranged(edges, layout.widths(table.shape[1]), table, slots.item, slots.slot)
        return rows, [bias[slots.item[a:b]] for a, b in pairwise(edges)]

    def of_short_list(own: Params, rows: Array, bias: Array, hidden: Array, live: Array) -> tuple[Array, Array]:
        """Scores [B, short list + tails] of the short list and the tails' entries, and which of them count."""
        edges = layout.edges(len(live))
        table, biases = jnp.concatenate([rows, own["clusters"]]), jnp.concatenate([bias, own["cluster_bias"]])
        filled = [live[a:b].any()[None] for a, b in pairwise(edges[1:])]
        return hidden @ table.T + biases, jnp.concatenate([live[: edges[1]], *filled])

    def loss(own: Params, outputs: Outputs, batch: Batch) -> Array:
        refuse_without_view("adaptive_softmax", own, "slots")
        slots: Slots = own["slots"]
        hidden, live = outputs.hidden, slots.live
        if batch.candidates is not None:
            live = batch.candidates[slots.item]  # those seen, and labels that a memory brings back
        slot = jnp.where(batch.valid, slots.slot[batch.labels], 0)  # padding occupies no tail
        cluster, (rows, biases), edges = layout.cluster(slot), parts_of(own), layout.edges(len(live))
        scores, counts = of_short_list(own, rows[0], biases[0], hidden, live)
        place = jnp.where(cluster == 0, slot, edges[1] + cluster - 1)
        total = full_softmax.cross_entropy(Outputs(hidden, scores), batch._replace(labels=place, candidates=counts))
        block = min(ROWS, len(slot))
        size = -(-len(slot) // block) * block
        for k, (first, last) in enumerate(pairwise(edges[1:]), start=1):
            if first == last:
                continue
            (index,) = jnp.nonzero(cluster == k, size=size, fill_value=0)
            number = (cluster == k).sum(dtype=jnp.int32)
            within = jnp.clip(slot[index] - first, 0, last - first - 1)
            inside = hidden[index, : rows[k].shape[1]]
            tail = chunked_softmax.cross_entropy(
                COLUMNS, block, inside, rows[k], biases[k], live[first:last], within, number
            )
            total = total.at[index].add(tail)
        return total

    def scores(own: Params, hidden: Array) -> Array | None:
        """[B, V]: log p of each item, -inf where it is not seen."""
        if "slots" not in own:
            return None
        slots: Slots = own["slots"]
        (rows, biases), edges = parts_of(own), layout.edges(len(slots.live))
        short, counts = of_short_list(own, rows[0], biases[0], hidden, slots.live)
        short = log_softmax(short, counts)
        parts = [short[:, : edges[1]]]
        for k, (first, last) in enumerate(pairwise(edges[1:]), start=1):
            if first < last:
                within = hidden[:, : rows[k].shape[1]] @ rows[k].T + biases[k]
                parts.append(short[:, edges[1] + k - 1, None] + log_softmax(within, slots.live[first:last]))
        return jnp.concatenate(parts, axis=1)[:, slots.slot]

    def strategy(items: Callable[[Params], Items]) -> Strategy:
        def start(learner: Learner) -> State:
            ids = jnp.arange(len(learner.catalogue.seen), dtype=jnp.int32)
            width = learner.params["head"]["clusters"].shape[1]
            return State(Slots(ids, ids, jnp.zeros(len(ids), bool)), jnp.zeros(width))

        def begin(state: State, learner: Learner, data: Data, key: Array) -> tuple[State, Learner]:
            del key
            seen, events, own = learner.catalogue.seen, learner.catalogue.events, learner.params["head"]
            known = trained_before(learner.catalogue, data)
            slots = sorted_by_events(seen, events, known)
            table, bias = items(learner.params)
            before, after = (layout.at(state.hidden, table, each.slot) + bias for each in (state.slots, slots))
            levelled = layout.levelled(own, before + own["bias"], state.slots, state.hidden)
            # A new item starts with its share of the events; where none is known, all do.
            total = jnp.where(known, events, 0.0).sum()
            an_event = jax.nn.logsumexp(jnp.where(known, levelled, -jnp.inf)) - jnp.log(total)
            fresh = jnp.log(jnp.maximum(events, 1.0)) + jnp.where(total > 0, an_event, 0.0)
            wanted = jnp.where(known, levelled, jnp.where(seen, fresh, -jnp.inf))
            own = {
                **own,
                "bias": jnp.where(seen, wanted - after, 0.0),
                "cluster_bias": layout.entries(own, wanted, slots.slot, state.hidden),
            }
            return state._replace(slots=slots), learner._replace(params={**learner.params, "head": own})

        def view(state: State, params: Params, increment: Array, training: bool) -> Params:
            del increment, training
            return {**params, "head": {**params["head"], "slots": state.slots}}

        def record(state: State, step: Step, key: Array) -> State:
            del key
            valid = step.batch.valid
            mean = valid @ step.outputs.hidden / jnp.maximum(valid.sum(), 1)
            return state._replace(hidden=state.hidden + FORGETTING * (mean - state.hidden))

        return Strategy(init=start, begin=begin, view=view, record=record)

    return Head(loss, init=init, scores=scores, tied=strategy)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def arranged(edges: tuple[int, ...], widths: tuple[int, ...], table: Array, item: Array, slot: Array) -> Any:
    """The rows of `table` [V, D] in the order of their slots, cut into clusters: [slots, d_k] each.

    Written out for its gradient: as every item has one slot it is a gather too, where JAX's is a scatter.
    """
    del slot
    return tuple(table[item[a:b], :width] for (a, b), width in zip(pairwise(edges), widths, strict=True))


def _arranged(edges: Any, widths: Any, table: Array, item: Array, slot: Array) -> Any:
    return arranged(edges, widths, table, item, slot), (slot, table.shape[1])


def _back_in_place(edges: Any, widths: Any, kept: Any, gradients: Any) -> Any:
    del edges, widths
    slot, width = kept
    padded = [jnp.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in gradients]
    return jnp.concatenate(padded)[slot], None, None


arranged.defvjp(_arranged, _back_in_place)


def log_softmax(scores: Array, counts: Array) -> Array:
    """log softmax of scores [B, N] over the columns that count [N] bool, -inf elsewhere; all -inf where none does."""
    masked = jnp.where(counts, scores, -jnp.inf)
    return jnp.where(counts, scores - jax.nn.logsumexp(masked, axis=1, keepdims=True), -jnp.inf)


def sorted_by_events(seen: Array, events: Array, known: Array) -> Slots:
    """Slots by falling `events` [V]: known items first, then the other seen ones, unseen ids last.

    Where none is known (the first increment, a fresh start) all are sorted by their events.
    """
    standing = jnp.maximum(jnp.where(known | ~known.any(), events, 0.5), 0.5)
    # Unseen ids keep their order behind the others: an id beyond them all has its own number as its slot, at every V.
    item = jnp.argsort(-jnp.where(seen, standing, 0.0), stable=True).astype(jnp.int32)
    slot = jnp.zeros_like(item).at[item].set(jnp.arange(len(item), dtype=jnp.int32))
    return Slots(slot, item, seen[item])


class Layout(NamedTuple):
    """Clusters of slots: 0 is the short list."""

    cutoffs: tuple[int, ...]
    shrink: int

    def edges(self, items: int) -> tuple[int, ...]:
        """Where clusters begin, and the number of slots."""
        return (0, *(min(cutoff, items) for cutoff in self.cutoffs), items)

    def widths(self, width: int) -> tuple[int, ...]:
        return tuple(max(width // self.shrink**k, 1) for k in range(len(self.cutoffs) + 1))

    def cluster(self, slot: Array) -> Array:
        return (slot[..., None] >= jnp.asarray(self.cutoffs)).sum(-1, dtype=jnp.int32)

    def at(self, hidden: Array, table: Array, slot: Array) -> Array:
        """[V]: hidden [D] · table [V, D], each over the coordinates that the slot's cluster reads."""
        widths = jnp.asarray(self.widths(len(hidden)))[self.cluster(slot)]
        return jnp.where(jnp.arange(len(hidden)) < widths[:, None], table, 0.0) @ hidden

    def levelled(self, own: Params, scores: Array, slots: Slots, hidden: Array) -> Array:
        """Scores [V] at `hidden` as those of one softmax over all items with a slot: log p but for a constant.

        Those of a tail move by one number, so that their logsumexp is the tail's entry.
        """
        cluster, entries = self.cluster(slots.slot), own["clusters"] @ hidden + own["cluster_bias"]
        for k in range(1, len(self.cutoffs) + 1):
            here = (cluster == k) & slots.live[slots.slot]
            within = jax.nn.logsumexp(jnp.where(here, scores, -jnp.inf))
            scores = jnp.where(here, scores - within + entries[k - 1], scores)
        return scores

    def entries(self, own: Params, scores: Array, slot: Array, hidden: Array) -> Array:
        """[tails]: biases with which each tail's entry at `hidden` is the logsumexp of its scores; 0 where it is
        empty."""
        cluster = self.cluster(slot)
        totals = [jax.nn.logsumexp(jnp.where(cluster == k + 1, scores, -jnp.inf)) for k in range(len(self.cutoffs))]
        total = jnp.stack(totals)
        return jnp.where(total > -jnp.inf, total - own["clusters"] @ hidden, 0.0)
