"""Histories that are prefixes of one another in one run: the same values and gradients as each on its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core import prefixes
from incremental.core.packing import lengths_of, packed, padded
from incremental.core.prefixes import by_prefix, by_runs, goes_on, layouts
from incremental.core.problem import Model, problem
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Outputs
from incremental.heads.full_softmax import full_softmax
from incremental.models.gru4rec import gru4rec
from incremental.models.sasrec import sasrec

L, D, V = 60, 8, 40
SIZES = Sizes(item=V, user=9)
EVENTS = [1, 2, 60, 3, 17, 1, 29, 9]  # of each user; a history for each event, the whole one included
MODELS: dict[str, Model] = {
    "sasrec": sasrec(width=D, heads=2, dropout=0.0, positions="left"),
    "gru4rec": gru4rec(width=D, dropout=0.0),
}


def histories(events: list[int]) -> tuple[Any, Any]:
    """[b, L] the histories of 1, 2, … events of each user, and their users [b]."""
    rng, rows, users = np.random.default_rng(0), [], []
    for user, number in enumerate(events, 1):
        items = rng.integers(1, V, number)
        rows += [np.pad(items[:k], (L - k, 0)) for k in range(1, number + 1)]
        users += [user] * number
    return np.array(rows, np.int32), np.array(users, np.int32)


def batch_of(history: Any, owner: Any) -> Batch:
    n = len(history)
    labels = np.random.default_rng(1).integers(1, V, n).astype(np.int32)
    fields: Any = np.linspace(0.5, 1.5, n).astype(np.float32), np.arange(n) % 7 > 0, np.zeros(n, np.int32), owner
    return Batch({"history": history}, labels, *fields)._replace(candidates=np.arange(V) > 0)  # type: ignore[arg-type]


def away_from_start(shapes: Any) -> Any:
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: rng.normal(scale=0.4, size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", MODELS)
def test_value_and_gradient_are_those_of_separate_histories(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users of 1 to 60 events; run by run, mixed (few runs), and with a draw of a memory behind them."""
    monkeypatch.setattr(prefixes, "layouts", lambda _rows, _length: (3, 20))  # fewer to compile
    made = problem(MODELS[name], full_softmax(), next_item(L), SIZES, sharing="prefix")
    module = MODELS[name].module(SIZES, next_item(L).inputs)
    params = away_from_start(jax.eval_shape(made.init, jax.random.key(0)))
    history, owner = histories(EVENTS)
    rng = np.random.default_rng(2)
    mixed = rng.permutation(len(history))
    beside = np.concatenate([np.arange(len(history) - 20), rng.integers(0, len(history), 20)])

    def alone(params: Any, history: Any) -> Any:
        """Each history with its padding, and nothing beside it in its row."""
        hidden: Any = module.apply({"params": params}, padded(history), None, method="encode")
        return hidden

    def run(represent: Any) -> Any:
        def loss(params: Any, batch: Batch) -> Any:
            hidden = represent(params, batch.inputs["history"])
            outputs = Outputs(hidden, hidden @ params["item"]["embedding"].T)
            rows = made.loss(params, outputs, batch) * batch.weight * batch.valid
            return rows.sum() / batch.valid.sum(), hidden

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    separate = run(alone)
    shared = run(lambda params, history: made.apply(params, {"history": history}).hidden)
    for order in (np.arange(len(history)), mixed, beside):
        batch = batch_of(history[order], owner[order])
        expected, found = separate(params, batch), shared(params, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
        norm = np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(expected[1])))
        assert norm > 0.1


def told(history: Any) -> Any:
    """For each history Σ item · (its place from the left), and the layout's real tokens and slots."""
    spent = []

    def encode(tokens: Any, key: Any) -> Any:
        del key
        spent.append(tokens.item.size)
        sums = jnp.where(tokens.allowed(), tokens.past(tokens.item * (tokens.nth + 1))[:, None], 0).sum(-1)
        real = jnp.broadcast_to((tokens.item > 0).sum(), tokens.known.shape)
        return jnp.stack([tokens.ends(sums[..., None])[:, 0] * tokens.known, real], 1)

    return by_prefix(encode, history, None)


def test_every_layout_tells_each_history_whole_and_runs_over_no_more_tokens_than_events() -> None:
    history, _ = histories(EVENTS)
    history = np.concatenate([history, np.zeros((3, L), np.int32)])  # an empty history ends a batch
    expected = [sum(item * n for n, item in enumerate(row[row > 0], 1)) for row in history]
    run = jax.jit(told)
    found = np.asarray(run(history))
    np.testing.assert_array_equal(found[:, 0], expected)
    assert set(found[:, 1]) == {sum(EVENTS)}
    tokens = set()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(history))
        order[: len(order) * seed // 3].sort()
        found = np.asarray(run(history[order]))
        np.testing.assert_array_equal(found[:, 0], np.array(expected)[order])
        tokens |= {*found[:, 1]}
    assert min(tokens) > sum(EVENTS)  # of other layouts: torn runs have more tokens
    assert len(tokens) > 1


def test_a_switch_stays_one_under_vmap() -> None:
    history, _ = histories(EVENTS)
    lanes = np.stack([history, np.random.default_rng(0).permutation(history)])
    found, run = np.asarray(jax.jit(jax.vmap(told))(lanes)), jax.jit(told)
    for lane, own in zip(lanes, found, strict=True):
        np.testing.assert_array_equal(own[:, 0], np.asarray(run(lane))[:, 0])
    assert "cond" in str(jax.make_jaxpr(jax.vmap(told))(lanes))


def test_a_prefix_is_of_the_next_history_only() -> None:
    rows = [[1], [1, 2], [1, 2, 3], [2, 3], [2, 3], [], [4], [5, 4], [5, 4, 0], [6, 7, 7], [6, 7]]
    history = np.array([[0] * (4 - len(row)) + row for row in rows], np.int32)
    found = jax.jit(lambda history: goes_on(history, lengths_of(history)))(history)
    assert np.asarray(found).tolist() == [True, True, False, True, False, True, False, True, False, False, False]


def test_an_epochs_order_holds_every_example_once_and_runs_together() -> None:
    history, owner = histories([4, 1, 6, 2, 5])
    n, capacity = len(history), 32
    rng = np.random.default_rng(0)
    arrival = np.sort(np.argsort(rng.uniform(size=n)))  # users' events in time, mixed
    arrival = np.array(sorted(range(n), key=lambda i: ((history[i] > 0).sum(), owner[i])))
    history, owner = (np.pad(a[arrival], [(0, capacity - n)] + [(0, 0)] * (a.ndim - 1)) for a in (history, owner))
    rows = batch_of(history, owner)
    orders = [np.asarray(jax.jit(by_runs)(jax.random.key(seed), rows, history, n)) for seed in range(6)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(capacity))
        np.testing.assert_array_equal(np.sort(order[:n]), np.arange(n))
        users, lengths = owner[order[:n]], (history[order[:n]] > 0).sum(1)
        starts = np.flatnonzero(np.diff(users, prepend=0))
        assert len(starts) == 5  # a user's examples are together
        assert (lengths[starts] == 1).all()
        assert (np.diff(lengths) == 1).sum() == n - 5  # in the order of time
    assert len({tuple(owner[order[:n]]) for order in orders}) > 3  # the runs are not


def test_room_grows_from_a_token_an_example() -> None:
    assert layouts(256, 50) == (6, 9, 21, 41)
    assert layouts(64, 50) == (2, 3, 6, 11)
    assert layouts(64, 4) == ()  # a quarter of the padding is the most
    assert layouts(1, 50) == ()


def test_without_prefixes_the_layout_is_that_of_separate_histories() -> None:
    history, _ = histories([3, 2])

    @jax.jit
    def both(history: Any) -> Any:
        lengths = lengths_of(history)
        return packed(history, lengths, 2), packed(history, lengths, 2, jnp.arange(len(history)))

    jax.tree.map(np.testing.assert_array_equal, *both(history))
