from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.packing import packed, padded
from incremental.core.problem import problem
from incremental.core.spec import Sizes, next_item
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.sasrec import Block, sasrec
from tests.models.layers import dense, norm

B, L, D, HEADS, BLOCKS = 64, 32, 6, 2, 2
SIZES = Sizes(item=20, user=3)
PACKED = [32] * 2 + [17] * 2 + [9] * 3 + [4] * 8 + [3] * 9 + [1] * 30 + [0] * 10  # 214 tokens fit, WHOLE's 680 do not
KINDS: Any = ("own", "shared")
WHOLE = [30] * 20 + [2] * 40 + [0] * 4


def histories(lengths: list[int]) -> Any:
    rng = np.random.default_rng(2)
    items = rng.integers(1, SIZES.slots, (len(lengths), L))
    filled = np.where(np.arange(L) >= L - np.array(lengths)[:, None], items, 0).astype(np.int32)
    return rng.permutation(filled)


# -- SASRec of one history without padding, in numpy, from the paper's and its code's description ---------------------


def layer_norm(x: Any, p: Any) -> Any:
    return norm(x, p, 1e-8)


def block_of(x: Any, p: Any, attention: Any = 1.0, inner: Any = 1.0, outer: Any = 1.0) -> Any:
    """x [l, D]: every position looks at itself and what came before; the last arguments are dropout's multipliers."""
    queries = layer_norm(x, p["LayerNorm_0"])
    q, k, v = dense(queries, p["query"]), dense(x, p["key"]), dense(x, p["value"])
    size = D // HEADS
    attention = np.broadcast_to(attention, (HEADS, len(x), len(x)))
    out = np.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            powers = np.exp(q[i, part] @ k[: i + 1, part].T / np.sqrt(size))
            out[i, part] = (powers / powers.sum() * attention[head, i, : i + 1]) @ v[: i + 1, part]
    x = layer_norm(out + queries, p["LayerNorm_1"])
    return x + dense(np.maximum(dense(x, p["inner"]), 0.0) * inner, p["outer"]) * outer


def hidden_of(items: Any, p: Any) -> Any:
    """items [l], the history without padding; positions count from the right."""
    if not len(items):
        return p["norm"]["bias"]
    x = p["item"]["embedding"][items] * np.sqrt(D) + p["position"][-len(items) :]
    for i in range(BLOCKS):
        x = block_of(x, p[f"layers_{i}"])
    return layer_norm(x, p["norm"])[-1]


@pytest.fixture(scope="module")
def params() -> Any:
    """Every parameter away from its start, so that biases and scales count."""
    made = problem(
        sasrec(width=D, heads=HEADS, blocks=BLOCKS, dropout=0.0, limit=0.5), full_softmax(), next_item(L), SIZES
    )
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(made.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(scale=0.6, size=leaf.shape).astype(np.float32), shapes)


@jax.jit
def forward(params: Any, history: Any, key: Any, rate: Any) -> Any:
    """The outputs, the hidden vectors of padded histories, and those with dropout."""
    model = sasrec(width=D, heads=HEADS, blocks=BLOCKS, dropout=rate)
    module = model.module(SIZES, next_item(L).inputs)

    def encode(history: Any, key: Any) -> Any:
        return module.apply({"params": params}, padded(history), key, method="encode")

    outputs = problem(model, full_softmax(), next_item(L), SIZES).apply(params, {"history": history})
    return outputs, encode(history, None), jax.vmap(encode, (None, 0))(history, jax.random.split(key))


@jax.jit
def slopes(params: Any, direction: Any, history: Any) -> Any:
    """How the hidden vectors of one block change with the parameters, in the model's layout and padded."""
    model = sasrec(width=D, heads=HEADS, blocks=1)
    made, module = problem(model, full_softmax(), next_item(L), SIZES), model.module(SIZES, next_item(L).inputs)

    def chosen(params: Any) -> Any:
        return made.apply(params, {"history": history}).hidden

    def whole(params: Any) -> Any:
        return module.apply({"params": params}, padded(history), None, method="encode")

    return [jax.jvp(encode, (params,), (direction,))[1] for encode in (chosen, whole)]


@pytest.fixture(scope="module")
def computed(params: Any) -> Any:
    def compute(lengths: list[int], rate: float = 0.0) -> Any:
        history = histories(lengths)
        return history, *forward(params, history, jax.random.key(0), np.float32(rate))

    return compute


@pytest.mark.parametrize("lengths", [PACKED, WHOLE])
def test_hidden_is_the_published_blocks_without_any_padding(params: Any, computed: Any, lengths: list[int]) -> None:
    history, outputs, whole, _ = computed(lengths)
    doubles = jax.tree.map(np.float64, params)
    expected = np.array([hidden_of(row[row > 0], doubles) for row in history])
    np.testing.assert_allclose(whole, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(outputs.hidden, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(outputs.scores, expected @ doubles["item"]["embedding"].T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lengths", [PACKED, WHOLE])
def test_derivative_is_that_of_padded_histories(params: Any, lengths: list[int]) -> None:
    one_block = {name: leaf for name, leaf in params.items() if name != "layers_1"}
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), one_block)
    slope, expected = slopes(one_block, direction, histories(lengths))
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(expected).max() > 0.1


def test_dropout_takes_a_traced_rate_and_needs_the_key(computed: Any) -> None:
    _, _, whole, dropped = computed(PACKED, rate=0.0)
    np.testing.assert_allclose(dropped[0], whole, rtol=1e-5, atol=1e-5)
    _, _, deterministic, (first, second) = computed(PACKED, rate=0.5)
    np.testing.assert_array_equal(deterministic, whole)
    assert np.abs(first - whole).max() > 0.1
    assert np.abs(first - second).max() > 0.1


@pytest.fixture(scope="module")
def block(params: Any) -> Any:
    """One block on two sequences of five: whole, last only, and whole with the last two items changed."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 5, D)).astype(np.float32)
    later = np.concatenate([x[:, :3], x[:, 3:] + 1.0], axis=1)
    kept = [rng.choice([0.0, 2.0], shape).astype(np.float32) for shape in ((2, HEADS, 5, 5), (2, 5, D), (2, 5, D))]

    tokens = padded(np.ones((2, 5), np.int32))  # type: ignore[arg-type]

    @jax.jit
    def compute(p: Any) -> Any:
        def apply(x: Any, kept: Any, last: bool) -> Any:
            return Block(D, HEADS).apply({"params": p}, x, tokens, kept, last=last)

        ones = [1.0, 1.0, 1.0]
        return apply(x, ones, False), apply(x, ones, True), apply(later, ones, False), apply(x, kept, False)

    return x, kept, *(np.asarray(part) for part in compute(params["layers_0"]))


def test_the_future_cannot_matter(block: Any) -> None:
    _, _, whole, _, later, _ = block
    np.testing.assert_array_equal(later[:, :3], whole[:, :3])
    assert (later[:, 3:] != whole[:, 3:]).any(-1).all()


def test_last_only_is_the_full_computations_last_position(block: Any) -> None:
    _, _, whole, last, _, _ = block
    np.testing.assert_allclose(last, whole[:, -1], rtol=1e-5, atol=1e-5)


def test_dropout_acts_on_attention_weights_and_inside_the_feed_forward(params: Any, block: Any) -> None:
    x, kept, *_, dropped = block
    p = jax.tree.map(np.float64, params["layers_0"])
    expected = [block_of(np.float64(x[i]), p, *(part[i] for part in kept)) for i in range(2)]
    np.testing.assert_allclose(dropped, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masks", ["own", "shared"])
def test_dropout_acts_on_the_embeddings_and_in_every_block(
    params: Any, masks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    drawn: list[Any] = []

    def multipliers(_key: Any, _rate: Any, shapes: Any) -> Any:
        drawn.extend(rng.choice([0.0, 2.0], shape).astype(np.float32) for shape in shapes)
        return drawn

    monkeypatch.setattr("incremental.models.sasrec.multipliers", multipliers)
    items = np.array([[3, 7, 1, 12, 5]], np.int32)
    module = sasrec(width=D, heads=HEADS, blocks=BLOCKS, dropout_masks=masks).module(SIZES, next_item(L).inputs)
    hidden: Any = jax.jit(
        lambda params: module.apply({"params": params}, padded(jnp.asarray(items)), None, method="encode")
    )(params)
    doubles = jax.tree.map(np.float64, params)
    x = doubles["item"]["embedding"][items[0]] * np.sqrt(D) + doubles["position"][-5:]
    x = x * drawn[0][0]
    for i in range(BLOCKS):  # attention weights, inner and outer layer of the feed-forward; one position in the last
        own = drawn[3 * i + 1 : 3 * i + 4] if masks == "own" else (drawn[1], drawn[2 + i], drawn[0])
        x = block_of(x, doubles[f"layers_{i}"], *(part[0] for part in own))
    assert len(drawn) == (3 * BLOCKS + 1 if masks == "own" else 2 + BLOCKS)
    np.testing.assert_allclose(hidden, layer_norm(x, doubles["norm"])[-1:], rtol=1e-4, atol=1e-4)


FEW = [17, 9, 9, 4, 3, 3, 1, 1, 1, 0]
LAYOUTS: Any = {"padded": padded, "packed": lambda history: packed(history, (history > 0).sum(1), 2)}


@pytest.fixture(scope="module")
def masked(params: Any) -> Any:
    """For each layout of ten histories: its tokens, the multipliers of either kind at rate .3, and mean and variance
    of the hidden vectors with shared masks over 400 keys."""

    def kept(params: Any, kind: Any, tokens: Any, key: Any, method: str = "kept") -> Any:
        module = sasrec(width=D, heads=HEADS, dropout=0.3, dropout_masks=kind).module(SIZES, next_item(L).inputs)
        return module.apply({"params": params}, tokens, key, method=method)

    @jax.jit
    def drawn(params: Any, history: Any, key: Any) -> Any:
        of = {}
        for name, layout in LAYOUTS.items():
            tokens = layout(history)
            keys = jax.random.split(jax.random.key(1), 400)
            hidden = jax.lax.map(lambda key, tokens=tokens: kept(params, "shared", tokens, key, "encode"), keys)
            of[name] = (
                tokens,
                {kind: kept(params, kind, tokens, key) for kind in KINDS},
                (hidden.mean(0), hidden.var(0)),
            )
        return of

    return jax.tree.map(np.asarray, drawn(params, histories(FEW), jax.random.key(0)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_masks_are_one_on_the_whole_residual_path_and_one_for_attention(masked: Any, layout: str) -> None:
    tokens, of, _ = masked[layout]
    path, first, inner, outer, second, last_inner, last_outer = of["shared"]
    np.testing.assert_array_equal(outer, path)
    np.testing.assert_array_equal(last_outer, tokens.ends(path))
    np.testing.assert_array_equal(second, first[:, :, -second.shape[2] :])
    for kept in (path, first, inner):
        np.testing.assert_allclose(kept[kept > 0], 1 / 0.7, rtol=1e-5)
        assert abs((kept == 0).mean() - 0.3) < 4 * np.sqrt(0.21 / kept.size)

    def apart(a: Any, b: Any) -> None:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)

    apart(inner, path)
    apart(last_inner, last_outer)
    path, first, inner, outer, second, _, last_outer = of["own"]
    apart(outer, path)
    apart(inner, path)
    apart(last_outer, np.asarray(tokens.ends(path)))
    apart(second, first[:, :, -second.shape[2] :])


def test_shared_masks_give_packed_histories_the_distribution_of_padded_ones(masked: Any) -> None:
    (mean, variance), (expected, spread) = (masked[layout][2] for layout in ("packed", "padded"))
    z = (mean - expected) / np.sqrt((variance + spread) / 400 + 1e-12)
    assert np.abs(z).max() < 4.5  # of sixty
    real = spread > 1e-6  # not those of the empty history
    assert real.sum() == 9 * D
    np.testing.assert_allclose(variance[real], spread[real], rtol=0.5)


def test_grown_tables_start_as_allocated_beforehand() -> None:
    model = sasrec(width=D, blocks=1)
    small, large = (
        jax.jit(problem(model, full_softmax(), next_item(4), Sizes(item=items, user=3)).init)(jax.random.key(0))
        for items in (9, 13)
    )
    shapes = jax.tree.map(jnp.shape, small)
    cut = jax.tree.map(lambda leaf, old: leaf[: old.shape[0]], large, small)
    assert shapes["item"]["embedding"] == (9, D)
    assert model.tables == {"item/embedding": "item"}
    jax.tree.map(np.testing.assert_array_equal, small, cut)


def test_items_and_positions_start_in_ranges_of_their_own() -> None:
    """Uniform in ±a has the standard deviation a / √3. Without a range of their own positions start as items do."""
    made = problem(
        sasrec(width=64, blocks=1, limit=0.01, position_limit=0.2),
        full_softmax(),
        next_item(50),
        Sizes(item=99, user=3),
    )
    tables = jax.jit(made.init)(jax.random.key(0))
    for values, limit in ((tables["item"]["embedding"], 0.01), (tables["position"], 0.2)):
        assert np.abs(values).max() == pytest.approx(limit, rel=0.01)
        assert np.asarray(values).std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
    module: Any = sasrec(limit=0.01).module(SIZES, next_item(L).inputs)
    assert module.position_limit == 0.01


def test_unknown_masks_are_refused_by_name() -> None:
    masks: Any = "same"
    with pytest.raises(UserError, match=r"model\.dropout_masks='same': expected one of own, shared"):
        sasrec(dropout_masks=masks)


def test_a_width_that_the_heads_do_not_divide_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"model\.width=6.*multiple of model\.heads=4"):
        sasrec(width=6, heads=4)


# -- SASRec+: a linear layer behind the attention, and a normal start --------------------------------------------------


def test_the_layer_behind_the_attention_is_part_of_the_residual_sum(params: Any) -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(1, 4, D)).astype(np.float32)
    own = {"kernel": rng.normal(size=(D, D)).astype(np.float32), "bias": rng.normal(size=D).astype(np.float32)}
    p = {**params["layers_0"], "output": own}
    apply = Block(D, 1, output=True).apply
    found: Any = jax.jit(lambda p: apply({"params": p}, x, padded(jnp.ones((1, 4), jnp.int32)), [1.0] * 3, last=False))(
        p
    )
    p = jax.tree.map(np.float64, p)
    queries = layer_norm(np.float64(x[0]), p["LayerNorm_0"])
    q, k, v = dense(queries, p["query"]), dense(x[0], p["key"]), dense(x[0], p["value"])
    powers = np.tril(np.exp(q @ k.T / np.sqrt(D)))
    attended = dense(powers / powers.sum(1, keepdims=True) @ v, own) + queries
    y = layer_norm(attended, p["LayerNorm_1"])
    expected = y + dense(np.maximum(dense(y, p["inner"]), 0.0), p["outer"])
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_a_normal_start_has_its_deviation_and_glorots_for_queries_keys_and_values() -> None:
    sizes, width = SIZES.replace(item=300), 32
    model = sasrec(width=width, blocks=1, positions="left", output=True, deviation=0.02)
    made = problem(model, full_softmax(), next_item(L), sizes)
    start = jax.device_get(jax.jit(made.init)(jax.random.key(0)))
    block = start["layers_0"]
    for values in (
        start["item"]["embedding"],
        start["position"],
        *(block[n]["kernel"] for n in ("output", "inner", "outer")),
    ):
        assert values.std() == pytest.approx(0.02, rel=4 / np.sqrt(2 * values.size))
        assert np.abs(values).max() > 0.04  # no uniform one
    limit = np.sqrt(6 / (4 * width))
    for name in ("query", "key", "value"):
        assert 0.97 * limit < np.abs(block[name]["kernel"]).max() <= limit
        assert not block[name]["bias"].any()
    # Rows do not depend on the table's capacity.
    grown = problem(model, full_softmax(), next_item(L), sizes.replace(item=400))
    grown = jax.jit(grown.init)(jax.random.key(0))
    np.testing.assert_array_equal(grown["item"]["embedding"][:300], start["item"]["embedding"])
