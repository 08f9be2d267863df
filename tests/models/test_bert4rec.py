import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.problem import problem
from incremental.core.spec import Sizes, next_item
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.bert4rec import bert4rec
from tests import lab
from tests.models.lanes import HISTORY, assert_trains_in_lanes_on_compact_rows
from tests.models.layers import dense, norm

L, D, HEADS, BLOCKS = 5, 6, 2, 2
SIZES = Sizes(item=20, user=3)
HISTORIES = np.array([[0, 0, 3, 9, 4], [1, 2, 3, 4, 5], [0, 0, 0, 0, 7], [0] * L], np.int32)
FOLLOWING = np.array([[7, 8, 0, 0, 0], [6, 7, 8, 9, 10], [3, 0, 0, 0, 0], [0] * L], np.int32)

# -- BERT4Rec of one history without padding, in numpy, from the paper's formulas -------------------------------------


def gelu(x: Any) -> Any:
    return x * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)


def block_of(x: Any, p: Any) -> Any:
    """x [n, D]: every position looks at all."""
    q, k, v = (dense(x, p[name]) for name in ("query", "key", "value"))
    out, size = np.zeros_like(x), D // HEADS
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            powers = np.exp(k[:, part] @ q[i, part] / np.sqrt(size))
            out[i, part] = powers / powers.sum() @ v[:, part]
    x = norm(x + dense(out, p["attended"]), p["attention_norm"])
    return norm(x + dense(gelu(dense(x, p["inner"])), p["outer"]), p["norm"])


def hidden_of(items: Any, p: Any, hides: tuple[int, ...] = (), behind: int = 0) -> Any:
    """items [l], the sequence without padding and label, of which the last ones are `behind` the label; training
    `hides` some places."""
    x = p["item"]["embedding"][items]
    x[list(hides)] = p["mask"]
    place = len(items) - behind
    x = np.insert(x, place, p["mask"], 0) + p["position"][-len(items) - 1 :]
    for i in range(BLOCKS):
        x = block_of(x, p[f"layers_{i}"])
    return gelu(dense(x[place], p["top"]))


@pytest.fixture(scope="module")
def computed() -> Any:
    """Parameters away from their start; for tests, for what is in the middle, and for training with nothing, all and a
    third hidden: outputs, hidden vectors, and those of many draws of one history, alone and in the middle."""

    def made(masked: Any) -> Any:
        model = bert4rec(width=D, heads=HEADS, blocks=BLOCKS, dropout=0.0, masked=masked)
        return problem(model, full_softmax(), next_item(L), SIZES)

    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(made(0.0).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(scale=0.6, size=leaf.shape).astype(np.float32), shapes)

    @jax.jit
    def compute(params: Any, masked: Any) -> Any:
        apply, many = made(masked).apply, np.repeat([0, 1], 4000)
        alone, middle = ({"history": HISTORIES, "following": ids} for ids in (0 * FOLLOWING, FOLLOWING))
        said, trained = apply(params, alone), apply(params, alone, key=jax.random.key(0))
        draws = [
            apply(params, {name: ids[many] for name, ids in of.items()}, key=jax.random.key(1))
            for of in (alone, middle)
        ]
        return said, trained.hidden, [each.hidden.reshape(2, 4000, D) for each in draws], apply(params, middle).hidden

    doubles = jax.tree.map(np.float64, params)
    return doubles, *(jax.tree.map(np.asarray, compute(params, np.float32(masked))) for masked in (0.0, 0.999999, 0.3))


def test_hidden_is_the_papers_without_any_padding(computed: Any) -> None:
    p, (outputs, trained, *_), *_ = computed
    expected = np.array([hidden_of(row[row > 0], p) for row in HISTORIES])
    np.testing.assert_allclose(outputs.hidden, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(trained, expected, rtol=1e-3, atol=1e-4)  # with a key, where nothing is hidden
    np.testing.assert_allclose(
        outputs.scores, expected @ p["item"]["embedding"].T + p["item_bias"], rtol=1e-3, atol=1e-3
    )


def test_training_hides_items_and_only_training(computed: Any) -> None:
    p, (whole, *_), (outputs, hidden, *_), (_, _, ((draws, _), _), _) = computed
    np.testing.assert_array_equal(outputs.hidden, whole.hidden)
    expected = np.array([hidden_of(row[row > 0], p, (*range((row > 0).sum()),)) for row in HISTORIES])
    np.testing.assert_allclose(hidden, expected, rtol=1e-3, atol=1e-4)
    # Of three items each set of places is hidden with its own probability.
    items = HISTORIES[0, 2:]
    for hides, share in (((), 0.7**3), ((0,), 0.3 * 0.7**2), ((1, 2), 0.3**2 * 0.7), ((0, 1, 2), 0.3**3)):
        met = np.abs(draws - hidden_of(items, p, hides)).max(1) < 1e-3
        assert abs(met.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(draws))


def test_what_is_behind_the_mask_is_read_as_what_is_before(computed: Any) -> None:
    p, (*_, hidden), *_ = computed
    sequences = [([3, 9, 4, 7, 8], 2), ([6, 7, 8, 9, 10], 5), ([7, 3], 1), ([], 0)]  # of at most L items
    expected = np.array([hidden_of(np.array(items, int), p, (), behind) for items, behind in sequences])
    np.testing.assert_allclose(hidden, expected, rtol=1e-3, atol=1e-4)


def test_training_ends_a_window_anywhere_behind_the_mask(computed: Any) -> None:
    p, (_, _, (_, draws), _), *_ = computed
    for row, shares in enumerate(((1 / 6, 1 / 6, 4 / 6), [1 / 6] * 6)):
        for behind, share in enumerate(shares):
            items = np.concatenate([HISTORIES[row][HISTORIES[row] > 0], FOLLOWING[row, :behind]])[-L:]
            met = np.abs(draws[row] - hidden_of(items, p, (), behind)).max(1) < 1e-3
            assert abs(met.mean() - share) < 4 * np.sqrt(share * (1 - share) / 4000)


@pytest.mark.parametrize("cloze", [0.0, 0.25])
def test_a_share_of_the_examples_reads_what_is_behind(cloze: float) -> None:
    model = bert4rec(width=D, heads=HEADS, blocks=1, dropout=0.0, masked=0.0, cloze=cloze)
    own = problem(model, full_softmax(), next_item(L), SIZES)

    @jax.jit
    def differ(key: Any) -> Any:
        params = own.init(key)
        rows = {"history": jnp.tile(HISTORIES[1], (4000, 1)), "following": jnp.tile(FOLLOWING[1], (4000, 1))}
        hidden = [
            own.apply(params, {**rows, "following": times * rows["following"]}, key=given).hidden
            for given in (key, None)
            for times in (0, 1)
        ]
        return [(jnp.abs(one - other) > 1e-6).any(1).mean() for one, other in (hidden[:2], hidden[2:])]

    drawn, told = differ(jax.random.key(0))
    share = cloze * L / (L + 1)  # one window of L + 1 ends with the mask
    assert abs(drawn - share) < 4 * np.sqrt(share * (1 - share) / 4000) + 1e-9
    assert told == (cloze > 0)


def test_an_update_reads_what_follows_and_its_validation_does_not() -> None:
    stream = lab.stream(validation=0.3)
    own = problem(bert4rec(width=D), full_softmax(), stream.spec, lab.SIZES)
    data, validation = lab.update_data(stream, lab.make(own, {}, lab.SIZES, lab.Spec()), 1)
    users, labels, following = (
        np.asarray(ids)[: int(data.size)] for ids in (data.rows.owner, data.rows.labels, data.rows.inputs["following"])
    )
    assert (following[:, 0] > 0).any()
    for row, user in enumerate(users):
        assert set(following[row][following[row] > 0]) <= set(labels[row + 1 :][users[row + 1 :] == user])
    assert int(validation.size)
    assert not np.asarray(validation.rows.inputs["following"]).any()


def test_lanes_on_compact_rows_under_replay_and_ewc() -> None:
    model = bert4rec(width=4, heads=1, blocks=1, dropout=0.2)
    assert_trains_in_lanes_on_compact_rows(model, next_item(HISTORY))


def test_what_it_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"model\.width=6: expected a multiple of model\.heads=4"):
        bert4rec(width=6, heads=4)
    with pytest.raises(UserError, match=r"training\.sharing=prefix: the model does not say"):
        problem(bert4rec(), full_softmax(), next_item(L), SIZES, sharing="prefix")
