from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core import optimizers
from incremental.core.types import Batch, Catalogue, Data, Learner, Problem
from incremental.errors import UserError
from incremental.strategies.warm_rows import warm_rows
from incremental.testing import check_strategy

NONE: Any = None
V, W, D = 8, 5, 3
RNG = np.random.default_rng(0)
TABLES = {"item/embedding": "item", "item_bias": "item", "user/embedding": "user"}
PROBLEM = Problem(NONE, NONE, NONE, NONE, TABLES, None, NONE)
PARAMS: Any = {
    "item": {"embedding": RNG.normal(size=(V, D)).astype(np.float32)},
    "item_bias": RNG.normal(size=V).astype(np.float32),
    "user": {"embedding": RNG.normal(size=(W, D)).astype(np.float32)},
    "kernel": RNG.normal(size=(V, D)).astype(np.float32),
}
KNOWN: Any = np.array([0, 1, 1, 1, 0, 0, 0, 0], bool)
SEEN: Any = np.array([0, 1, 1, 1, 1, 1, 1, 0], bool)  # 4, 5 and 6 are new
NEW = [4, 5, 6]


def learner(tx: Any, seen: Any = SEEN) -> Learner:
    """Of a model all of whose rows were trained but the padding's and the unseen item's."""
    params = PARAMS

    def trained(path: Any, leaf: Any) -> Any:
        return np.concatenate([np.zeros_like(leaf[:1]), leaf[1:]]) if "item" in jax.tree_util.keystr(path) else leaf

    grads = jax.tree_util.tree_map_with_path(trained, params)
    opt_state = jax.jit(lambda grads, params: tx.update(grads, tx.init(params), params)[1])(grads, params)
    candidates: Any = np.arange(V) > 0  # from the start (data.unseen_items=known)
    nobody: Any = np.zeros(W, bool)
    return Learner(params, opt_state, Catalogue(candidates, seen, {"user": nobody}), NONE)


def data(inputs: Any, labels: list[int]) -> Data:
    """Rows of which the last is padding that must not be read."""
    size: Any = np.int32(len(labels) - 1)
    return Data(Batch(inputs, jnp.array(labels), NONE, jnp.ones(len(labels), bool), NONE), size, NONE, NONE, NONE)


HISTORIES = data(
    # 4 with 1, 1 and 3; 5 with new and padding items only; 6 nowhere; 7 is never seen.
    {"history": jnp.array([[0, 0, 1], [1, 5, 3], [0, 4, 6], [2, 2, 2], [2, 2, 2]])},
    [4, 4, 5, 1, 5],
)
# User 1: 4 with 1, 1 and 3; user 2: 5 and 6 with nothing known; user 3: 2.
USERS = data({"user": jnp.array([1, 1, 1, 1, 2, 2, 3, 2])}, [4, 1, 1, 3, 5, 6, 2, 3])


def begun(
    source: Any, rows: Data, tx: Any = None, known: Any = KNOWN, seen: Any = SEEN, **options: Any
) -> tuple[Any, Learner, Learner]:
    """The state, the learner after `begin`, and before."""
    before = learner(optax.identity() if tx is None else tx, seen)
    state, after = jax.jit(
        lambda known, before, rows: warm_rows(PROBLEM, source=source, **options).begin(known, before, rows, NONE)
    )(known, before, rows)
    return state, after, before


@pytest.fixture(scope="module")
def by_mean() -> Any:
    return begun("mean", HISTORIES, optimizers.adam())


def test_new_items_start_at_the_known_items_mean(by_mean: Any) -> None:
    _, after, before = by_mean
    for name in ("embedding", None):
        old = PARAMS["item"]["embedding"] if name else PARAMS["item_bias"]
        new = np.asarray(after.params["item"]["embedding"] if name else after.params["item_bias"])
        expected = old.copy()
        expected[NEW] = old[1:4].mean(0)
        np.testing.assert_allclose(new, expected, rtol=1e-5)
    for name in ("user", "kernel"):
        jax.tree.map(np.testing.assert_array_equal, after.params[name], before.params[name])


def test_moments_of_new_rows_are_as_new(by_mean: Any) -> None:
    _, after, before = by_mean
    moments = [each for each in zip(after.opt_state, before.opt_state, strict=True) if hasattr(each[0], "nu")]
    for now, old in moments:
        for name in ("mu", "nu"):
            table, was = (getattr(each, name)["item"]["embedding"] for each in (now, old))
            assert (np.asarray(was)[NEW] != 0).all()
            np.testing.assert_array_equal(np.asarray(table)[NEW], 0.0)
            np.testing.assert_array_equal(np.asarray(table)[[1, 2, 3, 7]], np.asarray(was)[[1, 2, 3, 7]])
            np.testing.assert_array_equal(np.asarray(getattr(now, name)["item_bias"])[NEW], 0.0)
            for other in ("user", "kernel"):
                jax.tree.map(np.testing.assert_array_equal, getattr(now, name)[other], getattr(old, name)[other])
    assert len(moments) == 1


def test_adagrads_accumulator_is_as_new() -> None:
    _, after, _ = begun("mean", HISTORIES, optimizers.adagrad())
    sums = after.opt_state[0].sum_of_squares["item"]["embedding"]
    np.testing.assert_allclose(np.asarray(sums)[NEW], 0.1)


@pytest.mark.parametrize("rows", [HISTORIES, USERS])
def test_neighbours_are_the_known_items_that_occur_with_the_new_one(rows: Data) -> None:
    _, after, _ = begun("neighbours", rows)
    old = PARAMS["item"]["embedding"]
    expected = old.copy()
    expected[4] = (2 * old[1] + old[3]) / 3
    expected[[5, 6]] = old[1:4].mean(0)
    np.testing.assert_allclose(after.params["item"]["embedding"], expected, rtol=1e-5)
    bias = PARAMS["item_bias"]
    assert float(after.params["item_bias"][4]) == pytest.approx((2 * bias[1] + bias[3]) / 3, rel=1e-5)


def test_an_item_is_new_once_and_nothing_is_in_the_first_increment() -> None:
    nothing: Any = np.zeros(V, bool)
    first: Any = np.array([0, 1, 1, 1, 0, 0, 0, 0], bool)
    known, after, _ = begun("mean", HISTORIES, known=nothing, seen=first)
    jax.tree.map(np.testing.assert_array_equal, after.params, PARAMS)
    np.testing.assert_array_equal(known, first)
    known, after, _ = begun("mean", HISTORIES, known=known)
    assert not np.allclose(np.asarray(after.params["item_bias"])[NEW], PARAMS["item_bias"][NEW])
    known, after, _ = begun("mean", HISTORIES, known=known)
    jax.tree.map(np.testing.assert_array_equal, after.params, PARAMS)


TEXT: Any = RNG.normal(size=(V, 2)).astype(np.float32)


def test_text_predicts_the_rows_of_new_items() -> None:
    """Known rows that are a linear map of their texts: the new ones' are that map of theirs."""
    texts = HISTORIES._replace(side={"text": jnp.array(TEXT - TEXT[1:4].mean(0))})
    rows = PARAMS["item"]["embedding"].copy()
    PARAMS["item"]["embedding"][:] = np.asarray(texts.side["text"]) @ RNG.normal(size=(2, D)).astype(np.float32) + 3.0
    mapped = PARAMS["item"]["embedding"].copy()
    try:
        _, after, _ = begun("text", texts, ridge=1e-6)
        _, flat, _ = begun("text", texts, ridge=1e9)
    finally:
        PARAMS["item"]["embedding"][:] = rows
    np.testing.assert_allclose(np.asarray(after.params["item"]["embedding"])[NEW], mapped[NEW], rtol=1e-3, atol=1e-4)
    mean = np.broadcast_to(mapped[1:4].mean(0), (3, D))
    np.testing.assert_allclose(np.asarray(flat.params["item"]["embedding"])[NEW], mean, rtol=1e-5)


def test_the_map_from_texts_is_the_ridge_regression_on_the_known_rows() -> None:
    _, after, _ = begun("text", HISTORIES._replace(side={"text": jnp.array(TEXT)}), ridge=0.5)
    x, rows = TEXT[1:4], PARAMS["item"]["embedding"][1:4]
    mean = rows.mean(0)
    w = np.linalg.solve(x.T @ x + 0.5 * np.eye(2), x.T @ (rows - mean))
    np.testing.assert_allclose(np.asarray(after.params["item"]["embedding"])[NEW], mean + TEXT[NEW] @ w, rtol=1e-4)


def test_text_without_texts_is_refused() -> None:
    several: Any = np.zeros((V, 4, 2), np.float32)
    for side in ({}, {"text": several}):  # and of several vectors an item
        with pytest.raises(UserError, match="needs a vector for each item's text"):
            begun("text", HISTORIES._replace(side=side))


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(UserError, match="source='title': expected mean or neighbours or text"):
        warm_rows(PROBLEM, source="title")  # type: ignore[arg-type]


def test_the_laws_of_strategies() -> None:
    check_strategy(warm_rows, kind="policy")
