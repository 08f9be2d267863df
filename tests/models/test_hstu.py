from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.packing import packed, padded
from incremental.core.problem import problem
from incremental.core.spec import Input, Sizes, Spec, next_item
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.hstu import bucket, hstu
from tests.models.lanes import HISTORY, assert_trains_in_lanes_on_compact_rows
from tests.models.layers import dense, norm

L, D, HEADS, BLOCKS, BUCKETS = 5, 6, 2, 2, 9
SIZES = Sizes(item=20, user=3)
HISTORIES = np.array([[0, 0, 3, 9, 4], [1, 2, 3, 4, 5], [0, 0, 0, 0, 7], [0, 0, 1, 2, 3], [0] * L], np.int32)
AGES = np.array([[0, 0, 700, 9, 0], [90, 90, 3, 1, 0], [0] * L, [0, 0, 63, 2, 0], [0] * L], np.int32)
SHAPE: Any = {"width": D, "heads": HEADS, "blocks": BLOCKS, "dropout": 0.0, "buckets": BUCKETS}


def timed(length: int, times: int) -> Spec:
    """Examples that hold "times" too."""
    spec = next_item(length)
    return replace(spec, inputs={**spec.inputs, "times": Input((times,), np.dtype(np.int32), "second")})


# -- HSTU of one history without padding, in numpy, from the paper's formulas -----------------------------------------


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def block_of(x: Any, ages: Any, p: Any) -> Any:
    """x [l, D]; ages [l] seconds, None: without."""
    u, v, q, k = np.split(silu(dense(norm(x, p["inner_norm"]), p["inner"])), 4, axis=-1)
    pooled, size = np.zeros_like(x), D // HEADS
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            for j in range(i + 1):
                logit = q[i, part] @ k[j, part] + p["by_distance"][i - j]
                if ages is not None:
                    logit += p["by_time"][min(int(np.log2(1 + ages[j] - ages[i]) + 1e-9), BUCKETS - 1)]
                pooled[i, part] += silu(logit) / L * v[j, part]
    return x + dense(norm(pooled, p["pooled_norm"]) * u, p["outer"])


def hidden_of(items: Any, ages: Any, p: Any) -> Any:
    """items [l], the history without padding; places count from the first."""
    if not len(items):
        return p["norm"]["bias"]
    x = p["item"]["embedding"][items] * np.sqrt(D) + p["position"][: len(items)]
    for i in range(BLOCKS):
        x = block_of(x, ages, p[f"layers_{i}"])
    return norm(x, p["norm"])[-1]


@pytest.fixture(scope="module")
def params() -> Any:
    """Every parameter away from its start, those of time too."""
    made = problem(hstu(relative_time=True, **SHAPE), full_softmax(), timed(L, L), SIZES)
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(made.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(scale=0.6, size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def computed(params: Any) -> Any:
    """Outputs with times and without; hidden vectors in the packed layouts, the second shared by prefixes."""
    of_times = problem(hstu(relative_time=True, **SHAPE), full_softmax(), timed(L, L), SIZES)
    model = hstu(**SHAPE)
    alone, module = problem(model, full_softmax(), next_item(L), SIZES), model.module(SIZES, next_item(L).inputs)

    @jax.jit
    def compute(params: Any) -> Any:
        history, lengths = jnp.asarray(HISTORIES), (jnp.asarray(HISTORIES) > 0).sum(1)
        within = jnp.array([0, 1, 2, 1, 4])  # items 1, 2, 3 are a prefix of 1 to 5
        layouts = [padded(history), packed(history, lengths, 3), packed(history, lengths, 2, within)]
        hidden = [module.apply({"params": params}, tokens, None, method="encode") for tokens in layouts]
        inputs = {"history": history, "times": AGES}
        return of_times.apply(params, inputs), alone.apply(params, {"history": history}), hidden

    return jax.tree.map(np.asarray, compute(params))


@pytest.mark.parametrize("timely", [True, False])
def test_hidden_is_the_papers_without_any_padding(params: Any, computed: Any, timely: bool) -> None:
    outputs, doubles = computed[0 if timely else 1], jax.tree.map(np.float64, params)
    rows = zip(HISTORIES, AGES, strict=True)
    expected = np.array([hidden_of(row[row > 0], age[row > 0] if timely else None, doubles) for row, age in rows])
    np.testing.assert_allclose(outputs.hidden, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(outputs.scores, expected @ doubles["item"]["embedding"].T, rtol=1e-3, atol=1e-3)


def test_a_history_is_the_same_in_every_layout_and_whatever_follows(computed: Any) -> None:
    whole, one_behind_the_other, shared = computed[2]
    np.testing.assert_allclose(one_behind_the_other, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(shared, whole, rtol=1e-4, atol=1e-5)


def test_buckets_begin_at_powers_of_two() -> None:
    seconds = np.array([-5, 0, 1, 2, 3, 6, 7, 2**20 - 2, 2**20 - 1, 2**31 - 1], np.int32)
    np.testing.assert_array_equal(bucket(seconds, 32), [0, 0, 1, 1, 2, 2, 3, 19, 20, 30])  # type: ignore[arg-type]
    assert int(bucket(jnp.int32(2**20), 9)) == 8


def test_lanes_on_compact_rows_under_replay_and_ewc() -> None:
    model = hstu(width=4, heads=1, blocks=1, dropout=0.2, relative_time=True, buckets=2)
    assert_trains_in_lanes_on_compact_rows(model, timed(HISTORY, HISTORY))


def test_what_does_not_fit_is_refused_by_name(documented: Callable[[str, object], None]) -> None:
    head = full_softmax()
    with pytest.raises(UserError, match=r"model\.width=6: expected a multiple of model\.heads=4"):
        hstu(width=6, heads=4)
    with pytest.raises(UserError, match="it reads 'times', which the data's examples do not hold"):
        problem(hstu(relative_time=True), head, next_item(L), SIZES)
    with pytest.raises(UserError, match=r"training\.sharing=prefix: the model does not say"):
        problem(hstu(relative_time=True), head, timed(L, L), SIZES, sharing="prefix")
    with pytest.raises(UserError, match=r"data\.features\.times\.length=7: expected data\.history=5") as error:
        problem(hstu(relative_time=True), head, timed(L, 7), SIZES).init(jax.random.key(0))
    documented("times of another length than histories", error.value)
    assert problem(hstu(), head, next_item(L), SIZES, sharing="prefix").sequence == "history"
