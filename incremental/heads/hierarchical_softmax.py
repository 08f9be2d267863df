"""Hierarchical softmax on a stream (Morin & Bengio 2005; Mikolov et al. 2013): a binary tree over the items, Huffman's
for the counts of the first increment, into which new items are grafted."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import Array

from incremental.core.problem import Head
from incremental.core.spec import Sizes
from incremental.core.strategy import Strategy
from incremental.core.types import Batch, Data, Learner, Outputs, Params
from incremental.core.untied import refuse_without_view, trained_before
from incremental.domains import NotNegative, checked
from incremental.errors import UserError

NOBODY = -1
GOLDEN = (1 + 5**0.5) / 2


class Tree(NamedTuple):
    """A binary tree with the items as leaves; its inner nodes are numbered as they are made."""

    leaf_parent: Array  # [V] int32: inner node above each item, -1 where the item is not in the tree
    leaf_right: Array  # [V] bool: which child it is
    parent: Array  # [V] int32: inner node above each inner node, -1 for the root and where there is none
    right: Array  # [V] bool
    used: Array  # [] int32: inner nodes so far


@checked
def hierarchical_softmax(*, depth: Annotated[int, Ge(16)] = 80, limit: NotNegative = 0.02) -> Head:
    """-log p(y) = Σ over the inner nodes n above y of softplus(∓(h · v_n + b_n)): minus where y is to the left of n.

    The first increment's items (and those of a fresh start) make a Huffman tree by their events. Items that a later one
    brings make a Huffman tree of their own; a new inner node takes the place of that old subtree whose events come
    nearest to theirs, with the subtree to its left and the new tree to its right. No inner node ever changes its
    meaning, so vectors and moments stay. A new node starts with the bias that splits its probability as the events of
    its sides do. No path is longer than `depth` (`huffman`, `graft`). `limit` of the uniform start of the vectors. The
    tables are the head's own, tied to none of the model's. State: 2 int32 and 2 bools an item.

    An item is in the tree once an update has its first event; an item alone is once there is a second one. Before, its
    score is -inf, so that it is a miss also with `data.unseen_items=listed` or `known`.
    """

    def init(key: Array, sizes: Sizes, width: int) -> Params:
        if sizes.slots > GOLDEN ** (depth // 2 - 3):
            raise UserError(f"head.depth={depth}: too small for {sizes.slots:,} items; 80 is enough for 10^7")
        rows = jax.random.uniform(key, (sizes.slots, width), minval=-limit, maxval=limit)
        return {"nodes": rows, "bias": jnp.zeros(sizes.slots)}

    def loss(own: Params, outputs: Outputs, batch: Batch) -> Array:
        refuse_without_view("hierarchical_softmax", own, "tree")
        tree: Tree = own["tree"]

        def up(at: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            node, _right = at
            return (tree.parent[node], tree.right[node]), at

        start = tree.leaf_parent[batch.labels], tree.leaf_right[batch.labels]
        _, (node, right) = jax.lax.scan(up, start, None, length=depth)
        # Beyond the root an index of -1 reads the last node, to no effect.
        on_path = jnp.cumprod(node != NOBODY, axis=0).astype(bool)
        score = jnp.einsum("pbd,bd->pb", own["nodes"][node], outputs.hidden) + own["bias"][node]
        return jnp.where(on_path, jax.nn.softplus(jnp.where(right, score, -score)), 0.0).sum(0)

    def scores(own: Params, hidden: Array) -> Array | None:
        """[B, V]: log p of each item, -inf where it is not in the tree."""
        if "tree" not in own:
            return None
        tree: Tree = own["tree"]
        score = own["nodes"] @ hidden.T + own["bias"][:, None]  # [V, B]: then what is gathered lies together
        left, right = -jax.nn.softplus(-score), -jax.nn.softplus(score)

        def edge(parent: Array, is_right: Array) -> Array:
            step = jnp.where(is_right[:, None], right[parent], left[parent])
            return jnp.where((parent == NOBODY)[:, None], 0.0, step)

        total, above = edge(tree.parent, tree.right), tree.parent
        for _ in range((depth - 1).bit_length()):  # pointer jumping: sums over paths of double length each time
            total = total + jnp.where((above == NOBODY)[:, None], 0.0, total[above])
            above = jnp.where(above == NOBODY, NOBODY, above[above])
        inside = (tree.leaf_parent != NOBODY)[:, None]
        return jnp.where(inside, edge(tree.leaf_parent, tree.leaf_right) + total[tree.leaf_parent], -jnp.inf).T

    def start(learner: Learner) -> Tree:
        size = len(learner.catalogue.seen)
        nowhere, left = jnp.full(size, NOBODY, jnp.int32), jnp.zeros(size, bool)
        return Tree(nowhere, left, nowhere, left, jnp.int32(0))

    def begin(state: Tree, learner: Learner, data: Data, key: Array) -> tuple[Tree, Learner]:
        del key
        seen, events = learner.catalogue.seen, learner.catalogue.events
        known = trained_before(learner.catalogue, data)
        old = jax.tree.map(lambda now, empty: jnp.where(known.any(), now, empty), state, start(learner))
        outside = seen & (old.leaf_parent == NOBODY)  # new ones, and the only item of a first increment
        forest, root = huffman(old, jnp.where(outside, events, 0.0), depth // 2)
        tree, bias = graft(forest, old.used, root, events, depth)
        own = learner.params["head"]
        place = jnp.arange(len(bias))
        own = {**own, "bias": jnp.where((place >= old.used) & (place < tree.used), bias, own["bias"])}
        return tree, learner._replace(params={**learner.params, "head": own})

    def view(state: Tree, params: Params, increment: Array, training: bool) -> Params:
        del increment, training
        return {**params, "head": {**params["head"], "tree": state}}

    return Head(loss, Strategy(init=start, begin=begin, view=view), init, scores)


class Round(NamedTuple):
    """Huffman's algorithm on its way."""

    weight: Array  # [V] float32 ascending, of the trees so far; inf = none
    node: Array  # [V] int32: their roots, an item or V + an inner node
    parent: Array  # [2 V] int32, of items and inner nodes
    right: Array  # [2 V] bool
    used: Array  # [] int32


def huffman(old: Tree, weight: Array, most: int) -> tuple[Tree, Array]:
    """`old` and beside it Huffman's tree of the items with positive `weight` [V]; its root (-1: no items).

    The root is an item, or V + an inner node; inner nodes are numbered from `old.used` on. In rounds: with w₁ ≤ w₂ the
    smallest weights, all weights up to w₁ + w₂ are paired in rising order, since none of their sums is less; that is
    what one merge after the other would give, in about as many rounds as the tree is deep. The tree is at most `most`
    deep: an item of share p has a path of at most log_φ(1 / p) (Katona & Nemetz 1976), and weights are floored at
    Σw / φ^(most - 3).
    """
    size = len(weight)
    floored = jnp.maximum(weight, weight.sum() * GOLDEN ** (3 - most))
    place = jnp.arange(size, dtype=jnp.int32)

    def going(now: Round) -> Array:
        return jnp.isfinite(now.weight[1])

    def one(now: Round) -> Round:
        pairs = (now.weight <= now.weight[0] + now.weight[1]).sum(dtype=jnp.int32) // 2
        paired, is_right, above = place < 2 * pairs, place % 2 == 1, now.used + place // 2
        child = jnp.where(paired, now.node, 2 * size)
        sums = jnp.where(is_right, jnp.inf, now.weight + jnp.roll(now.weight, -1))
        weights, nodes = jax.lax.sort(
            (jnp.where(paired, sums, now.weight), jnp.where(paired, size + above, now.node)), num_keys=1
        )
        parent, right = now.parent.at[child].set(above, mode="drop"), now.right.at[child].set(is_right, mode="drop")
        return Round(weights, nodes, parent, right, now.used + pairs)

    weights, nodes = jax.lax.sort((jnp.where(weight > 0, floored, jnp.inf), place), num_keys=1)
    parents, rights = joined(old)
    last = jax.lax.while_loop(going, one, Round(weights, nodes, parents, rights, old.used))
    root = jnp.where(jnp.isfinite(last.weight[0]), last.node[0], NOBODY)
    return apart(last.parent, last.right, last.used), root


def graft(forest: Tree, old: Array, root: Array, events: Array, depth: int) -> tuple[Tree, Array]:
    """The old tree (inner nodes 0..`old`-1) with the one under `root` in it, and log(events left / right) [V] by node.

    The new inner node takes a place where no path becomes longer than `depth`; there is one, for of two levels that
    are not too deep one has a leaf.
    """
    size = len(events)
    left, right, height = below(forest, events)
    parents, rights = joined(forest)
    weight, heights = jnp.concatenate([events, left + right]), jnp.pad(height, (size, 0))
    place = jnp.arange(size)
    there = jnp.concatenate([(forest.leaf_parent >= 0) & (forest.leaf_parent < old), place < old])
    level = jnp.concatenate([levels(forest)[forest.leaf_parent] + 1, levels(forest)])
    new = jnp.maximum(weight[root], 1.0)
    fits = there & (level + 1 + jnp.maximum(heights, heights[root]) <= depth)
    gap = jnp.abs(jnp.log(jnp.maximum(weight, 1.0)) - jnp.log(new))
    at = jnp.where(fits, gap, jnp.inf).argmin()
    node = forest.used
    grafted_parents = parents.at[size + node].set(parents[at]).at[at].set(node).at[root].set(node)
    grafted_rights = rights.at[size + node].set(rights[at]).at[at].set(False).at[root].set(True)
    grafted = apart(grafted_parents, grafted_rights, node + 1)
    bias = jnp.log(jnp.maximum(left, 1.0)) - jnp.log(jnp.maximum(right, 1.0))
    bias = bias.at[node].set(jnp.log(jnp.maximum(weight[at], 1.0)) - jnp.log(new))
    due = (old > 0) & (root != NOBODY)
    return jax.tree.map(lambda one, other: jnp.where(due, one, other), grafted, forest), bias


def below(tree: Tree, events: Array) -> tuple[Array, Array, Array]:
    """For each inner node the events of its left and of its right side [V] float32, and the longest path down [V]."""

    class Walk(NamedTuple):
        node: Array  # [V]: where the walk up from each item is
        is_right: Array  # [V]: from which side it came there
        left: Array
        right: Array
        height: Array
        steps: Array

    def up(walk: Walk) -> Walk:
        at = jnp.where(walk.node == NOBODY, len(events), walk.node)
        return Walk(
            jnp.where(walk.node == NOBODY, NOBODY, tree.parent[walk.node]),
            tree.right[walk.node],
            walk.left.at[at].add(jnp.where(walk.is_right, 0.0, events), mode="drop"),
            walk.right.at[at].add(jnp.where(walk.is_right, events, 0.0), mode="drop"),
            walk.height.at[at].max(walk.steps + 1, mode="drop"),
            walk.steps + 1,
        )

    zeros = jnp.zeros_like(events)
    start = Walk(tree.leaf_parent, tree.leaf_right, zeros, zeros, zeros.astype(jnp.int32), jnp.int32(0))
    last = jax.lax.while_loop(lambda walk: (walk.node != NOBODY).any(), up, start)
    return last.left, last.right, last.height


def levels(tree: Tree) -> Array:
    """[V] int32: the number of inner nodes above each inner node."""

    def up(walk: tuple[Array, Array]) -> tuple[Array, Array]:
        node, level = walk
        return jnp.where(node == NOBODY, NOBODY, tree.parent[node]), level + (node != NOBODY)

    start = tree.parent, jnp.zeros_like(tree.parent)
    return jax.lax.while_loop(lambda walk: (walk[0] != NOBODY).any(), up, start)[1]


def joined(tree: Tree) -> tuple[Array, Array]:
    """Parents and sides of items and inner nodes [2 V]."""
    return jnp.concatenate([tree.leaf_parent, tree.parent]), jnp.concatenate([tree.leaf_right, tree.right])


def apart(parent: Array, right: Array, used: Array) -> Tree:
    """The inverse of `joined`."""
    size = len(parent) // 2
    return Tree(parent[:size], right[:size], parent[size:], right[size:], used)
