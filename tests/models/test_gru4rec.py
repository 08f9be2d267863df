from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.problem import problem
from incremental.core.spec import Sizes, next_item
from incremental.heads.full_softmax import full_softmax
from incremental.models.gru4rec import gru4rec

B, L, D = 64, 32, 5
SIZES = Sizes(item=12, user=3)
GROUPED = [32] * 4 + [8] * 8 + [6] * 4 + [5] * 6 + [4] * 10 + [3] * 14 + [1] * 10 + [0] * 8
WHOLE = [30] * 20 + [2] * 40 + [0] * 4


def histories(lengths: list[int]) -> Any:
    rng = np.random.default_rng(2)
    items = rng.integers(1, SIZES.slots, (len(lengths), L))
    filled = np.where(np.arange(L) >= L - np.array(lengths)[:, None], items, 0).astype(np.int32)
    return rng.permutation(filled)


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def hidden_of(items: Any, params: Any) -> Any:
    """The gated recurrent unit over one history without padding (Cho et al. 2014; reset gate inside, as in cuDNN)."""
    p = params["cell"]["GRUCell_0"]
    h = np.zeros(D)
    for x in params["item"]["embedding"][items]:
        reset = sigmoid(x @ p["ir"]["kernel"] + p["ir"]["bias"] + h @ p["hr"]["kernel"])
        update = sigmoid(x @ p["iz"]["kernel"] + p["iz"]["bias"] + h @ p["hz"]["kernel"])
        inner = h @ p["hn"]["kernel"] + p["hn"]["bias"]
        new = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"] + reset * inner)
        h = (1 - update) * new + update * h
    return h


@pytest.fixture(scope="module")
def params() -> Any:
    """Every parameter away from its start, so that biases count."""
    made = problem(gru4rec(width=D, dropout=0.0), full_softmax(), next_item(L), SIZES)
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(made.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(scale=0.6, size=leaf.shape).astype(np.float32), shapes)


@jax.jit
def forward(params: Any, history: Any, target: Any, key: Any, rate: Any) -> Any:
    """The outputs by length and the hidden vectors whole, both with a gradient, and hidden vectors with dropout."""
    model = gru4rec(width=D, dropout=rate)
    module = model.module(SIZES, next_item(L).inputs)

    def by_length(params: Any) -> Any:
        outputs = problem(model, full_softmax(), next_item(L), SIZES).apply(params, {"history": history})
        return (outputs.hidden * target).sum(), outputs

    def whole(params: Any) -> Any:
        hidden: Any = module.apply({"params": params}, history, None, method="last")
        return (hidden * target).sum(), hidden

    dropped = module.apply({"params": params}, history, key, method="last")
    return jax.grad(by_length, has_aux=True)(params), jax.grad(whole, has_aux=True)(params), dropped


@pytest.fixture(scope="module")
def computed(params: Any) -> Any:
    target = np.random.default_rng(4).normal(size=(B, D)).astype(np.float32)

    def compute(lengths: list[int], rate: float = 0.0) -> Any:
        history = histories(lengths)
        return history, *forward(params, history, target, jax.random.key(0), np.float32(rate))

    return compute


@pytest.mark.parametrize("lengths", [GROUPED, WHOLE])
def test_hidden_is_the_recurrence_without_any_padding(params: Any, computed: Any, lengths: list[int]) -> None:
    history, (_, outputs), (_, whole), _ = computed(lengths)
    doubles = jax.tree.map(np.float64, params)
    expected = np.array([hidden_of(row[row > 0], doubles) for row in history])
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs.hidden, expected, rtol=1e-4, atol=1e-5)
    scores = expected @ doubles["item"]["embedding"].T + doubles["item_bias"]
    np.testing.assert_allclose(outputs.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lengths", [GROUPED, WHOLE])
def test_gradient_by_length_is_that_of_whole_histories(computed: Any, lengths: list[int]) -> None:
    _, (gradient, _), (expected, _), _ = computed(lengths)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradient, expected)
    assert np.abs(expected["cell"]["GRUCell_0"]["hn"]["kernel"]).max() > 0.01


def test_an_empty_history_is_the_zero_state(computed: Any) -> None:
    history, (_, outputs), *_ = computed(GROUPED)
    empty = (history == 0).all(1)
    assert empty.sum() == 8
    np.testing.assert_array_equal(np.asarray(outputs.hidden)[empty], 0.0)


def test_dropout_takes_a_traced_rate_and_needs_the_key(computed: Any) -> None:
    _, _, (_, whole), dropped = computed(GROUPED, rate=0.0)
    np.testing.assert_allclose(dropped, whole, rtol=1e-5, atol=1e-6)
    _, _, (_, deterministic), dropped = computed(GROUPED, rate=0.5)
    np.testing.assert_array_equal(deterministic, whole)
    assert np.abs(dropped - whole).max() > 0.1


def test_grown_tables_start_as_allocated_beforehand() -> None:
    model = gru4rec(width=D)
    small, large = (
        jax.jit(problem(model, full_softmax(), next_item(4), Sizes(item=items, user=3)).init)(jax.random.key(0))
        for items in (9, 13)
    )
    assert small["item"]["embedding"].shape == (9, D)
    assert small["item_bias"].shape == (9,)
    assert model.tables == {"item/embedding": "item", "item_bias": "item"}
    cut = jax.tree.map(lambda leaf, old: leaf[: old.shape[0]], large, small)
    jax.tree.map(np.testing.assert_array_equal, small, cut)


def test_scores_without_a_bias_are_products_with_the_item_table(params: Any) -> None:
    made = problem(gru4rec(width=D, dropout=0.0, bias=False), full_softmax(), next_item(L), SIZES)
    own = {name: leaf for name, leaf in params.items() if name != "item_bias"}
    assert {*jax.eval_shape(made.init, jax.random.key(0))} == {*own}
    assert made.tables == {"item/embedding": "item"}
    outputs = made.apply(own, {"history": np.array([[0] * (L - 2) + [3, 7]], np.int32)})
    expected = hidden_of([3, 7], jax.tree.map(np.float64, own)) @ own["item"]["embedding"].T
    np.testing.assert_allclose(outputs.scores[0], expected, rtol=1e-4, atol=1e-4)


def test_the_recurrence_starts_uniform_within_its_limit() -> None:
    model = gru4rec(width=64, limit=0.05, cell_limit=0.125)
    started = jax.jit(problem(model, full_softmax(), next_item(4), Sizes(item=9, user=3)).init)(jax.random.key(0))
    leaves = [*started["cell"]["GRUCell_0"].values()]
    for leaf in jax.tree.leaves(leaves):
        assert 0.9 * 0.125 < np.abs(leaf).max() <= 0.125
        np.testing.assert_allclose(np.std(leaf), 0.125 / 3**0.5, rtol=0.25)
    assert np.abs(started["item"]["embedding"]).max() <= 0.05
