"""Adaptive softmax on a stream (Grave et al. 2017, arXiv 1609.04309): frequent items in a short list at full width, the
others in clusters of shrinking widths; which item has which slot follows the counts."""

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.errors import UserError
from incremental.heads import chunked_softmax, full_softmax
from incremental.heads.own import refuse_without_view, trained_before
from incremental.models.embedding import uniform_rows
from incremental.problem import Head
from incremental.strategy import Strategy
from incremental.types import Batch, Data, Learner, Outputs, Params, PyTree, Sizes, Step

ROWS, COLUMNS = 128, 4096  # of a tail's scores in memory at once
FORGETTING = 0.01  # a step, in the mean hidden vector


class Slots(NamedTuple):
    """Who sits where, from one increment's start to the next; slots 0..V-1 of R = max(V, last cutoff + 1) are used."""

    slot: Array  # [V] int32: of each item
    item: Array  # [R] int32: in each slot
    live: Array  # [R] bool: the slot's item was seen


class State(NamedTuple):
    """The slots, and where log-probabilities are compared when they change."""

    slots: Slots
    hidden: Array  # [D] float32: the mean hidden vector of late steps


def adaptive_softmax(*, cutoffs: tuple[int, ...] = (2000, 10000), shrink: int = 4, limit: float = 0.02) -> Head:
    """-log p(y), p(y) = p(slot) in the short list, or p(cluster) p(slot | cluster) in a tail; over the candidates.

    Slots are sorted by falling frequency. The first `cutoffs[0]` are the short list, whose softmax has an entry a tail
    too; tail k = 1, 2, … takes the slots from `cutoffs[k - 1]` on, the last one the rest, at width
    max(D // shrink^k, 1): score = (h P) · row + bias, one projection P a width. A tail is computed for the rows whose
    label lies in it, `ROWS` at a time until none is left.

    At each increment's start the slots are sorted anew by the events counted so far; items new since the last start
    come last, in the last tail. Rows and moments go with their item, as they are between clusters of one width. At
    another width the row is the one that stands nearest (least squares in R^D) to what log p(y) is as a function of h,
    a tail's normaliser taken linearly at the mean hidden vector, and its moments start anew. The biases of moved items
    and the tails' entries in the short list change so that at the mean hidden vector no known item's p(y) does but for
    the room that new ones take: their biases give them, there, their share of the cluster's events. `limit` of the
    uniform start of the rows. The tables are the head's own, "head/rows_k" [slots, width], tied to none of the model's.
    State: 2 int32 and a bool an item, and [D] float32.
    """
    if not cutoffs or any(b <= a for a, b in pairwise((0, *cutoffs))):
        raise UserError(f"head.cutoffs={list(cutoffs)}: expected rising positive numbers of slots, e.g. [2000, 10000]")
    if shrink < 1:
        raise UserError(f"head.shrink={shrink}: expected at least 1 (1 keeps every width at D)")
    layout = Layout(cutoffs, shrink)

    def init(key: Array, sizes: Sizes, width: int) -> Params:
        widths, edges = layout.widths(width), layout.edges(sizes.items)
        keys = jax.random.split(key, len(widths) + 2)
        own: dict[str, Array] = {
            "bias": jnp.zeros(edges[-1]),
            "clusters": uniform_rows(limit)(keys[-1], (len(cutoffs), width)),
            "cluster_bias": jnp.zeros(len(cutoffs)),
        }
        for k, d in enumerate(widths):
            own[f"rows_{k}"] = uniform_rows(limit)(keys[k], (edges[k + 1] - edges[k], d))
        for d in set(widths) - {width}:
            own[f"project_{d}"] = jax.nn.initializers.orthogonal()(jax.random.fold_in(keys[-2], d), (width, d))
        return own

    def of_short_list(own: Params, hidden: Array, live: Array) -> tuple[Array, Array]:
        """Scores [B, cutoffs[0] + tails] of the short list and the tails' entries, and which of them count."""
        edges = layout.edges_of(own)
        table = jnp.concatenate([own["rows_0"], own["clusters"]])
        bias = jnp.concatenate([own["bias"][: edges[1]], own["cluster_bias"]])
        filled = [live[a:b].any()[None] for a, b in pairwise(edges[1:])]
        return hidden @ table.T + bias, jnp.concatenate([live[: edges[1]], *filled])

    def loss(own: Params, outputs: Outputs, batch: Batch) -> Array:
        refuse_without_view("adaptive_softmax", own, "slots")
        slots: Slots = own["slots"]
        edges, hidden = layout.edges_of(own), outputs.hidden
        live = slots.live if batch.candidates is None else slots.live & batch.candidates[slots.item]
        slot = jnp.where(batch.valid, slots.slot[batch.labels], 0)  # padding occupies no tail
        cluster = layout.cluster(slot)
        scores, counts = of_short_list(own, hidden, live)
        place = jnp.where(cluster == 0, slot, cutoffs[0] + cluster - 1)
        total = full_softmax.cross_entropy(Outputs(hidden, scores), batch._replace(labels=place, candidates=counts))
        block = min(ROWS, len(slot))
        size = -(-len(slot) // block) * block
        for k in range(1, len(cutoffs) + 1):
            here = slice(edges[k], edges[k + 1])
            (index,) = jnp.nonzero(cluster == k, size=size, fill_value=0)
            number = (cluster == k).sum(dtype=jnp.int32)
            within = jnp.clip(slot[index] - edges[k], 0, edges[k + 1] - edges[k] - 1)
            inside = layout.project(own, k, hidden)[index]
            tail = chunked_softmax.cross_entropy(
                COLUMNS, block, inside, own[f"rows_{k}"], own["bias"][here], live[here], within, number
            )
            total = total.at[index].add(tail)
        return total

    def scores(own: Params, hidden: Array) -> Array | None:
        """[B, V]: log p of each item, -inf where it is not seen."""
        if "slots" not in own:
            return None
        slots: Slots = own["slots"]
        edges = layout.edges_of(own)
        short, counts = of_short_list(own, hidden, slots.live)
        short = log_softmax(short, counts)
        parts = [short[:, : edges[1]]]
        for k in range(1, len(cutoffs) + 1):
            here = slice(edges[k], edges[k + 1])
            within = layout.project(own, k, hidden) @ own[f"rows_{k}"].T + own["bias"][here]
            parts.append(short[:, edges[1] + k - 1, None] + log_softmax(within, slots.live[here]))
        return jnp.concatenate(parts, axis=1)[:, slots.slot]

    def start(learner: Learner) -> State:
        size = len(learner.catalogue.seen)
        width = learner.params["head"]["rows_0"].shape[1]
        capacity = layout.edges(size)[-1]
        ids = jnp.arange(size, dtype=jnp.int32)
        none = jnp.zeros(capacity, bool)
        return State(Slots(ids, jnp.pad(ids, (0, capacity - size)), none), jnp.zeros(width))

    def begin(state: State, learner: Learner, data: Data, key: Array) -> tuple[State, Learner]:
        del key
        seen, events = learner.catalogue.seen, learner.catalogue.events
        before = trained_before(learner.catalogue, data)
        slots = sorted_by_events(seen, events, before, len(state.slots.item))
        beyond = jnp.arange(len(seen), len(slots.item), dtype=jnp.int32)
        came_from = jnp.concatenate([state.slots.slot[slots.item[: len(seen)]], beyond])
        untouched = state.slots.slot[0]  # the padding id's: no gradient reaches it

        def mirrors(node: Any) -> bool:
            return isinstance(node, dict) and node.keys() == learner.params.keys()

        def renewed(node: Any) -> Any:
            if not mirrors(node):
                return node
            return {**node, "head": layout.moments_moved(node["head"], came_from, untouched)}

        known = before[slots.item] & slots.live
        own = layout.rows_moved(learner.params["head"], came_from, known, state)
        own = layout.welcomed(own, known, slots, events, state.hidden)
        opt_state: PyTree = jax.tree.map(renewed, learner.opt_state, is_leaf=mirrors)
        learner = learner._replace(params={**learner.params, "head": own}, opt_state=opt_state)
        return state._replace(slots=slots), learner

    def view(state: State, params: Params, increment: Array, training: bool) -> Params:
        del increment, training
        return {**params, "head": {**params["head"], "slots": state.slots}}

    def record(state: State, step: Step, key: Array) -> State:
        del key
        valid = step.batch.valid
        mean = valid @ step.outputs.hidden / jnp.maximum(valid.sum(), 1)
        return state._replace(hidden=state.hidden + FORGETTING * (mean - state.hidden))

    return Head(loss, Strategy(init=start, begin=begin, view=view, record=record), init, scores)


def log_softmax(scores: Array, counts: Array) -> Array:
    """log softmax of scores [B, N] over the columns that count [N] bool, -inf elsewhere; all -inf where none does."""
    masked = jnp.where(counts, scores, -jnp.inf)
    return jnp.where(counts, scores - jax.nn.logsumexp(masked, axis=1, keepdims=True), -jnp.inf)


def sorted_by_events(seen: Array, events: Array, known: Array, capacity: int) -> Slots:
    """Slots by falling `events` [V]: known items first, then the other seen ones, unseen ids last.

    Where none is known (the first increment, a fresh start) all are sorted by their events.
    """
    standing = jnp.where(known | ~known.any(), events, 0.5)
    # Unseen ids keep their order behind the others: an id beyond them all has its own number as its slot, at every V.
    item = jnp.argsort(-jnp.where(seen, standing, 0.0), stable=True).astype(jnp.int32)
    slot = jnp.zeros_like(item).at[item].set(jnp.arange(len(item), dtype=jnp.int32))
    beyond = (0, capacity - len(item))
    return Slots(slot, jnp.pad(item, beyond), jnp.pad(seen[item], beyond))


class Offsets(NamedTuple):
    """For each cluster, an affine function of h."""

    row: Array  # [clusters, D]
    bias: Array  # [clusters]


class Layout(NamedTuple):
    """Clusters of slots: 0 is the short list. Only the last one grows with the catalogue."""

    cutoffs: tuple[int, ...]
    shrink: int

    def edges(self, items: int) -> tuple[int, ...]:
        """Where clusters begin, and the number of slots R."""
        return (0, *self.cutoffs, max(items, self.cutoffs[-1] + 1))

    def edges_of(self, own: Params) -> tuple[int, ...]:
        return self.edges(len(own["bias"]))

    def widths(self, width: int) -> tuple[int, ...]:
        return tuple(max(width // self.shrink**k, 1) for k in range(len(self.cutoffs) + 1))

    def cluster(self, slot: Array) -> Array:
        return (slot[..., None] >= jnp.asarray(self.cutoffs)).sum(-1, dtype=jnp.int32)

    def basis(self, own: Params, k: int) -> Array:
        """[D, d_k]: a row's meaning in R^D is basis · row."""
        width, d = own["rows_0"].shape[1], own[f"rows_{k}"].shape[1]
        return jnp.eye(width) if d == width else own[f"project_{d}"]

    def project(self, own: Params, k: int, hidden: Array) -> Array:
        """[B, D] -> [B, d_k]."""
        return hidden if own[f"rows_{k}"].shape[1] == hidden.shape[1] else hidden @ self.basis(own, k)

    def gathered(self, own: Params, k: int, slot: Array) -> Array:
        """[N, d_k]: the rows of those slots that lie in cluster k, 0 elsewhere."""
        rows, first = own[f"rows_{k}"], self.edges_of(own)[k]
        found = rows[jnp.clip(slot - first, 0, len(rows) - 1)]
        return jnp.where((self.cluster(slot) == k)[:, None], found, 0.0)

    def entering(self, own: Params, k: int, came_from: Array) -> tuple[Array, Array]:
        """Places [M] in cluster k of items from other clusters, padded with the cluster's size, and their old slots.

        A cluster cannot take in more than it holds, nor more than the clusters before the last and itself hold.
        """
        here = came_from[self.edges_of(own)[k] : self.edges_of(own)[k + 1]]
        most = min(len(here), self.cutoffs[-1])
        (place,) = jnp.nonzero(self.cluster(here) != k, size=most, fill_value=len(here))
        return place, here[jnp.minimum(place, len(here) - 1)]

    def moments_moved(self, own: Params, came_from: Array, untouched: Array) -> Params:
        """One of the optimizer's mirrors of the head: moved with the items; anew where the width changes."""
        edges, widths = self.edges_of(own), [own[f"rows_{k}"].shape[1] for k in range(len(self.cutoffs) + 1)]
        new = sum(self.gathered(own, k, untouched[None])[0, 0] for k in range(len(widths)))
        moved = {**own, "bias": own["bias"][came_from]}
        for k, width in enumerate(widths):
            old = came_from[edges[k] : edges[k + 1]]
            alike = [j for j in range(len(widths)) if widths[j] == width]
            found = sum(self.gathered(own, j, old) for j in alike)
            same = (self.cluster(old)[:, None] == jnp.asarray(alike)).any(1)
            moved[f"rows_{k}"] = jnp.where(same[:, None], found, new)
        return moved

    def rows_moved(self, own: Params, came_from: Array, known: Array, state: State) -> Params:
        """The head with every row and bias where its item now is; `known` [R] bool, of the items in the new slots."""
        edges, widths = self.edges_of(own), [own[f"rows_{k}"].shape[1] for k in range(len(self.cutoffs) + 1)]
        before = self.offsets(own, jnp.zeros_like(known).at[came_from].set(known), state.hidden)
        moved = {**own, "bias": own["bias"][came_from]}
        for k, width in enumerate(widths):
            old = came_from[edges[k] : edges[k + 1]]
            place, source = self.entering(own, k, came_from)
            cluster = self.cluster(source)
            full = sum(self.gathered(own, j, source) @ self.basis(own, j).T for j in range(len(widths)) if j != k)
            full, shift = full + before.row[cluster] - before.row[k], before.bias[cluster] - before.bias[k]
            basis = self.basis(own, k)
            rows = full if width == full.shape[1] else jnp.linalg.solve(basis.T @ basis, basis.T @ full.T).T
            for j in range(len(widths)):
                if j != k and widths[j] == width:
                    rows = jnp.where((cluster == j)[:, None], self.gathered(own, j, source), rows)
            moved[f"rows_{k}"] = self.gathered(own, k, old).at[place].set(rows, mode="drop")
            slot = jnp.where(place < len(old), edges[k] + place, edges[-1])
            lost = (full - rows @ basis.T) @ state.hidden
            moved["bias"] = moved["bias"].at[slot].add(shift + lost, mode="drop")
        after = self.offsets(moved, known, state.hidden)
        moved["clusters"] = own["clusters"] + (before.row - after.row)[1:]
        moved["cluster_bias"] = own["cluster_bias"] + (before.bias - after.bias)[1:]
        return moved

    def welcomed(self, own: Params, known: Array, slots: Slots, events: Array, mean: Array) -> Params:
        """The head with biases by which, at the mean hidden vector, new items have their share of the events."""
        edges, bias, entries = self.edges_of(own), own["bias"], own["cluster_bias"]
        events = jnp.where(slots.live, events[slots.item], 0.0)
        first = jnp.float32(0.0)
        for k in range(len(self.cutoffs) + 1):
            here = slice(edges[k], edges[k + 1])
            new, score = slots.live[here] & ~known[here], own[f"rows_{k}"] @ (mean @ self.basis(own, k))
            before, arrived = jnp.where(known[here], events[here], 0.0).sum(), jnp.where(new, events[here], 0.0).sum()
            total = jax.nn.logsumexp(jnp.where(known[here], score + bias[here], -jnp.inf))
            an_event = jnp.where(before > 0, total - jnp.log(before), first)  # log of its weight in the cluster
            bias = bias.at[here].set(jnp.where(new, an_event + jnp.log(events[here]) - score, bias[here]))
            if k == 0:
                first = an_event
                continue
            opened = first + jnp.log(arrived) - own["clusters"][k - 1] @ mean
            entry = jnp.where(before > 0, entries[k - 1] + jnp.log1p(arrived / before), opened)
            entries = entries.at[k - 1].set(jnp.where(arrived > 0, entry, entries[k - 1]))
        return {**own, "bias": bias, "cluster_bias": entries}

    def offsets(self, own: Params, live: Array, mean: Array) -> Offsets:
        """What log p has beside the slot's own score: a tail's entry less its log normaliser, linear at `mean` [D]."""
        edges = self.edges_of(own)
        row, bias = [jnp.zeros_like(mean)], [jnp.float32(0.0)]
        for k in range(1, len(self.cutoffs) + 1):
            here, rows, basis = slice(edges[k], edges[k + 1]), own[f"rows_{k}"], self.basis(own, k)
            scores = jnp.where(live[here], rows @ (mean @ basis) + own["bias"][here], -jnp.inf)
            normaliser, filled = jax.nn.logsumexp(scores), live[here].any()
            centre = basis @ (jnp.where(filled, jnp.exp(scores - normaliser), 0.0) @ rows)
            row.append(own["clusters"][k - 1] - centre)
            bias.append(own["cluster_bias"][k - 1] - jnp.where(filled, normaliser - mean @ centre, 0.0))
        return Offsets(jnp.stack(row), jnp.stack(bias))
