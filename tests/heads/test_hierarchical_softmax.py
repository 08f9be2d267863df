import functools
import heapq
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core.problem import Head
from incremental.core.spec import Sizes
from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs
from incremental.errors import UserError
from incremental.heads.hierarchical_softmax import NOBODY, Tree, hierarchical_softmax, huffman
from incremental.run.capacity import into_corner

V, D, B = 40, 6, 12
NONE: Any = None
HIDDEN: Any = np.random.default_rng(0).normal(size=(B, D)).astype(np.float32)
FIRST: Any = (np.arange(V) > 0) & (np.arange(V) < 25) & (np.arange(V) != 9)


def empty(size: int) -> Tree:
    nowhere, left = jnp.full(size, NOBODY, jnp.int32), jnp.zeros(size, bool)
    return Tree(nowhere, left, nowhere, left, jnp.int32(0))


def depths(tree: Tree) -> dict[int, int]:
    """Length of each item's path."""
    leaf, parent = np.asarray(tree.leaf_parent), np.asarray(tree.parent)
    found = {}
    for item in np.flatnonzero(leaf >= 0):
        node, found[int(item)] = leaf[item], 1
        while parent[node] >= 0:
            node = parent[node]
            found[int(item)] += 1
    return found


built = jax.jit(huffman, static_argnums=2)

# -- Huffman's tree ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [3, 50, 100_000])
def test_tree_costs_what_huffmans_does(high: int) -> None:
    rng = np.random.default_rng(high)
    weight = np.where(rng.random(64) < 0.8, rng.integers(1, high, 64), 0).astype(np.float32)
    tree, _ = built(empty(64), weight, 40)
    found = depths(tree)
    assert sorted(found) == list(np.flatnonzero(weight))
    assert sum(0.5**depth for depth in found.values()) == 1.0  # a full binary tree
    heap, expected = [float(w) for w in weight if w], 0.0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        expected += both
        heapq.heappush(heap, both)
    assert sum(weight[item] * depth for item, depth in found.items()) == pytest.approx(expected, rel=1e-6)


def test_no_path_is_longer_than_asked() -> None:
    """Fibonacci's numbers make the deepest trees."""
    weight = np.zeros(64, np.float32)
    weight[1:3] = 1.0
    for i in range(3, 61):
        weight[i] = weight[i - 1] + weight[i - 2]
    for most in (12, 20, 40):
        tree, _ = built(empty(64), weight, most)
        assert 7 <= max(depths(tree).values()) <= most


# -- the softmax ------------------------------------------------------------------------------------------------------


@functools.cache
def head(limit: float = 1.0) -> Head:
    return hierarchical_softmax(limit=limit, depth=24)  # enough for few items, and shorter programs


@functools.cache
def begin() -> Any:
    strategy = head().strategy
    assert strategy is not None
    return jax.jit(strategy.begin)


def increment(state: Tree, own: Any, counts: Any, new: Any) -> tuple[Tree, Any]:
    """The tree and the head after the start of an increment that brings `new` events to the `counts` before it."""
    total = (counts + new).astype(np.float32)
    params = {"head": own}
    learner = Learner(params, optax.sgd(0.1).init(params), Catalogue(total > 0, total, NONE), jnp.int32(0))
    padded = np.zeros(512, np.int32)
    items = np.repeat(np.arange(len(new)), new)
    padded[: len(items)] = items
    state, learner = begin()(state, learner, Data(NONE, NONE, NONE, jnp.asarray(padded), NONE), NONE)
    return state, learner.params["head"]


def counts_of(seed: int, items: Any) -> Any:
    return np.where(items, np.random.default_rng(seed).integers(1, 20, len(items)), 0)


@functools.cache
def started(limit: float = 1.0, size: int = V) -> tuple[Tree, Any, Any]:
    """Tree, head and counts after the start of the first increment."""
    made = head(limit)
    assert made.init is not None
    own = made.init(jax.random.key(0), Sizes(item=size, user=8), D)
    counts = counts_of(0, np.pad(FIRST, (0, size - V)))
    tree, own = increment(empty(size), own, np.zeros(size, int), counts)
    return tree, own, counts


@functools.cache
def grafted() -> tuple[Tree, Any, Any]:
    """And of the second, which has new items."""
    tree, own, counts = started()
    new = counts_of(1, (np.arange(V) > 20) & (np.arange(V) < 33))
    tree, own = increment(tree, own, counts, new)
    return tree, own, counts + new


@functools.cache
def log_p_of() -> Any:
    scores = head().scores
    assert scores is not None
    return jax.jit(lambda own, tree, hidden: scores({**own, "tree": tree}, hidden))


def log_p(tree: Tree, own: Any, hidden: Any = HIDDEN) -> Any:
    return np.asarray(log_p_of()(own, tree, hidden))


@pytest.mark.parametrize("case", [started, grafted])
def test_probabilities_of_the_seen_items_sum_to_one(case: Any) -> None:
    tree, own, counts = case()
    p = np.exp(np.float64(log_p(tree, own)))
    np.testing.assert_allclose(p[:, counts > 0].sum(1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(p[:, counts == 0], 0.0)


@pytest.mark.parametrize("case", [started, grafted])
def test_loss_and_gradient_of_a_path_are_those_of_all_paths(case: Any) -> None:
    tree, own, counts = case()
    labels = np.random.default_rng(3).choice(np.flatnonzero(counts), B)
    labels[-1] = 0  # padding has no path
    made, scores = head(), head().scores
    assert scores is not None

    @jax.jit
    def both(own: Any, hidden: Any) -> Any:
        def path(own: Any, hidden: Any) -> Any:
            batch = Batch({}, jnp.asarray(labels, jnp.int32), NONE, NONE, NONE)
            rows = made.loss({**own, "tree": tree}, Outputs(hidden, NONE), batch)
            return rows.sum(), rows

        def all_paths(own: Any, hidden: Any) -> Any:
            rows = -scores({**own, "tree": tree}, hidden)[jnp.arange(B - 1), labels[:-1]]
            return rows.sum(), rows

        return [jax.grad(each, argnums=(0, 1), has_aux=True)(own, hidden) for each in (path, all_paths)]

    (gradient, rows), (expected, expected_rows) = both(own, HIDDEN)
    np.testing.assert_allclose(rows[:-1], expected_rows, rtol=1e-4, atol=1e-5)
    assert float(rows[-1]) == 0.0
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), gradient, expected)


def test_the_start_is_the_items_share_of_the_events() -> None:
    """Vectors of 0 leave the biases, which split each node as its sides' events."""
    tree, own, counts = started(0.0)
    share = counts / counts.sum()
    np.testing.assert_allclose(np.exp(log_p(tree, own)), np.broadcast_to(share, (B, V)), rtol=1e-4, atol=1e-7)


# -- new items --------------------------------------------------------------------------------------------------------


def test_grafting_keeps_every_inner_nodes_meaning() -> None:
    """Old items lose the same factor under the graft, and nothing elsewhere."""
    (tree, own, counts), (later, after, total) = started(), grafted()
    old, new = np.flatnonzero(counts), np.flatnonzero((total > 0) & (counts == 0))
    assert len(new) > 5
    assert int(later.used) == int(tree.used) + len(new)
    change = log_p(later, after)[:, old] - log_p(tree, own)[:, old]
    under = np.abs(change).max(0) > 1e-5
    assert 0 < under.sum() < len(old)
    np.testing.assert_allclose(change[:, under], change[:, under][:, :1] + 0 * change[:, under], atol=1e-5)
    np.testing.assert_array_equal(np.asarray(after["nodes"]), np.asarray(own["nodes"]))
    used = int(tree.used)
    np.testing.assert_array_equal(np.asarray(after["bias"])[:used], np.asarray(own["bias"])[:used])


def test_the_graft_is_where_as_many_events_are() -> None:
    tree, own, counts = started(0.0)
    new = counts_of(1, (np.arange(V) > 24) & (np.arange(V) < 33))
    later, after = increment(tree, own, counts, new)
    p = np.exp(np.float64(log_p(later, after)))[0]
    before = counts / counts.sum()
    arrived, under = new > 0, (counts > 0) & (np.abs(p - before) > 1e-5)
    weight = counts[under].sum()  # of the subtree that made room
    assert 0.5 < weight / new.sum() < 2.0
    np.testing.assert_allclose(p[arrived].sum() / p[under].sum(), new.sum() / weight, rtol=1e-3)
    np.testing.assert_allclose(p[arrived] / p[arrived].sum(), new[arrived] / new.sum(), rtol=1e-3)


def test_a_single_new_item_and_none() -> None:
    tree, own, counts = started()
    alone = np.where(np.arange(V) == 30, 4, 0)
    later, after = increment(tree, own, counts, alone)
    p = np.exp(np.float64(log_p(later, after)))
    assert (p[:, 30] > 0).all()
    np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-5)
    again, same = increment(tree, own, counts, np.where(FIRST, 1, 0))
    jax.tree.map(np.testing.assert_array_equal, (again, same), (tree, own))


def test_the_only_item_of_the_first_increment_is_in_the_tree_of_the_second() -> None:
    own, nobody = started()[1], np.zeros(V, int)
    first, second = nobody.copy(), nobody.copy()
    first[5], second[[7, 8]] = 3, 2
    tree, own = increment(empty(V), own, nobody, first)
    tree, own = increment(tree, own, first, second)
    assert sorted(depths(tree)) == [5, 7, 8]
    np.testing.assert_allclose(np.exp(np.float64(log_p(tree, own))).sum(1), 1.0, atol=1e-5)


def test_many_grafts_stay_within_the_depth() -> None:
    """One item an increment: a chain, were each to go to the same place."""
    made = hierarchical_softmax(depth=24)
    assert made.init is not None
    assert made.strategy is not None
    size = 64
    own: Any = made.init(jax.random.key(0), Sizes(item=size, user=8), D)
    step = jax.jit(made.strategy.begin)
    tree = empty(size)
    counts: Any = np.zeros(size)
    for t in range(30):
        new = np.zeros(size)
        new[2 * t + 1 : 2 * t + 3] = 1.0
        counts = counts + new
        params = {"head": own}
        learner = Learner(params, (), Catalogue(counts > 0, jnp.asarray(counts, jnp.float32), NONE), NONE)
        tree, learner = step(
            tree, learner, Data(NONE, NONE, NONE, jnp.asarray(np.flatnonzero(new), jnp.int32), NONE), NONE
        )
        own = learner.params["head"]
    assert len(depths(tree)) == 60
    assert max(depths(tree).values()) <= 24
    assert sum(0.5**depth for depth in depths(tree).values()) == 1.0


def test_a_fresh_start_builds_the_tree_anew() -> None:
    """All the catalogue's events are this increment's: nothing is known."""
    tree, own, counts = grafted()
    fewer = np.where(np.arange(V) < 12, counts, 0)
    later, after = increment(tree, own, np.zeros(V, int), fewer)
    assert sorted(depths(later)) == list(np.flatnonzero(fewer))
    p = np.exp(np.float64(log_p(later, after)))
    np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-5)


def test_grown_is_allocated_beforehand() -> None:
    large = 48
    (tree, own, _), (whole, tables, more) = started(), started(1.0, large)
    np.testing.assert_allclose(log_p(whole, tables)[:, :V], log_p(tree, own), atol=1e-6)
    made = head()
    assert made.init is not None
    fresh = made.init(jax.random.key(0), Sizes(item=large, user=8), D)
    grown = jax.tree.map(into_corner, (empty(large), fresh), (tree, own))
    new = counts_of(2, np.arange(large) > 41)
    ends = [increment(tree, own, more, new) for tree, own in ((whole, tables), grown)]
    np.testing.assert_allclose(log_p(*ends[1]), log_p(*ends[0]), atol=1e-5)


def test_impossible_settings_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="depth=4: expected a whole number >= "):
        hierarchical_softmax(depth=4)
    made = hierarchical_softmax(depth=40)
    assert made.init is not None
    with pytest.raises(UserError, match=r"head\.depth=40: too small for 1,000,000 items"):
        made.init(jax.random.key(0), Sizes(item=1_000_000, user=8), D)


def test_the_loss_without_the_tree_is_refused() -> None:
    with pytest.raises(UserError, match=r"head=hierarchical_softmax.*EWC"):
        head().loss({}, Outputs(HIDDEN, NONE), Batch({}, NONE, NONE, NONE, NONE))
