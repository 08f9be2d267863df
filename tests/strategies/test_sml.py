from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.types import Anchor, Catalogue, Learner, Problem
from incremental.errors import UserError
from incremental.heads.bpr import bpr
from incremental.strategies.sml import sml, start, transfer
from incremental.testing import check_strategy
from incremental.testing.subject import LARGE, MODEL, NAME, Subject
from tests.applies import trace
from tests.strategies.reordered import reordered

NONE: Any = None
D, HIDDEN = 2, 5
PROBLEM = Problem(NONE, NONE, NONE, NONE, {"item/embedding": "item", "bias": "item"}, None, NONE)
RNG = np.random.default_rng(0)
SEEN: Any = np.array([0, 1, 1, 0], bool)


def drawn() -> Any:
    tables = {"item": {"embedding": RNG.normal(size=(4, D))}, "bias": RNG.normal(size=4), "kernel": RNG.normal(size=3)}
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), tables)


def learner(params: Any, t: int, seen: Any = SEEN) -> Learner:
    return Learner(params, (), Catalogue(seen, seen, {}), np.int32(t))  # type: ignore[arg-type]


def gelu(x: Any) -> Any:
    return x / (1 + np.exp(-1.702 * x))


def made(net: Any, w: Any, fresh: Any, third: Any) -> Any:
    """One row, by loops."""
    picture = np.stack([w, fresh, third])
    filtered = [gelu(f @ picture + b) for f, b in zip(net["filters"], net["filters_bias"], strict=True)]
    mixed = [gelu(m @ np.stack(filtered) + b) for m, b in zip(net["mixtures"], net["mixtures_bias"], strict=True)]
    inner = gelu(np.concatenate(mixed) @ net["inner"] + net["inner_bias"])
    return inner @ net["outer"] + net["outer_bias"]


def a_net() -> Any:
    """With all weights at random."""
    shapes = jax.eval_shape(lambda key: start(D, HIDDEN, key), jax.random.key(0))
    assert {name: leaf.shape for name, leaf in shapes.items()} == {
        "filters": (10, 3),
        "filters_bias": (10,),
        "mixtures": (5, 10),
        "mixtures_bias": (5,),
        "inner": (5 * D, HIDDEN),
        "inner_bias": (HIDDEN,),
        "outer": (HIDDEN, D),
        "outer_bias": (D,),
    }
    return jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), shapes)


def test_the_nets_rows_and_their_gradient() -> None:
    """The third row of the picture lets no gradient through to the new row."""
    net, rows = a_net(), RNG.normal(size=(2, 3, D))
    rows[0, 2] = 0.0  # a row of norm 0
    w, fresh = rows
    third = w * fresh / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-12)
    along = RNG.normal(size=(3, D))
    single = jax.tree.map(np.float32, net)

    @jax.jit
    def both(w: Any, fresh: Any) -> Any:
        return jax.value_and_grad(lambda fresh: (transfer(single, w, fresh) * along).sum())(fresh)

    value, gradient = both(np.float32(w), np.float32(fresh))
    rowwise = np.stack([made(net, *each) for each in zip(w, fresh, third, strict=True)])
    np.testing.assert_allclose(value, (rowwise * along).sum(), rtol=1e-4)
    slope = np.zeros((3, D))
    for n in range(3):
        for d in range(D):
            step = 1e-5 * np.eye(D)[d]
            ends = [made(net, w[n], fresh[n] + sign * step, third[n]) @ along[n] for sign in (1, -1)]
            slope[n, d] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-3)


def test_it_starts_by_taking_the_new_row() -> None:
    w, fresh = RNG.normal(size=(2, 6, D)).astype(np.float32)
    made = jax.jit(lambda key, w, fresh: transfer(start(D, 7, key), w, fresh))(jax.random.key(1), w, fresh)
    np.testing.assert_allclose(made, fresh, rtol=1e-5, atol=1e-6)


INIT = jax.jit(sml(PROBLEM, hidden=HIDDEN).init)


@jax.jit
def begun(state: Any, learner: Any, key: Any) -> Any:
    """The state and learner in an increment, what `fit` is given, what is seen; it adds 0.1 to what it trains."""
    part = sml(PROBLEM, hidden=HIDDEN)
    noted: dict[str, Any] = {}

    def fit(start: Any, data: Any, key: Any, epochs: Any, *, of: Any, tx: Any) -> Any:
        del data, key, tx
        noted.update(epochs=epochs, start=start, made=of(start))
        return jax.tree.map(lambda leaf: leaf + 0.1 * epochs, start)

    state, learner = part.begin(state, learner, NONE, key, fit)
    seen = [part.view(state, jax.tree.map(lambda leaf: 2.0 * leaf, learner.params), NONE, way) for way in (True, False)]
    return state, learner, noted, seen


def rows_of(params: Any) -> Any:
    return np.asarray(params["item"]["embedding"])


def net_rows(state: Any, past: Any, fresh: Any) -> Any:
    net = jax.device_get(state.nets.weights["item/embedding"])
    third = past * fresh / np.linalg.norm(past, axis=1, keepdims=True)
    return np.stack([made(net, *each) for each in zip(past, fresh, third, strict=True)])


def test_an_update_is_a_fit_through_the_net_then_the_nets_training_then_the_transfer() -> None:
    sets = [drawn() for _ in range(3)]
    state = INIT(learner(sets[0], -1, np.zeros(4, bool)))
    for t in (0, 1):  # the base part, and the increment before whose start nothing was fitted through a net
        state, after, noted, _ = begun(state, learner(sets[0], t), jax.random.key(t))
        assert int(noted["epochs"]) == 0
        jax.tree.map(np.testing.assert_array_equal, after.params, sets[0])
    assert isinstance(state.past, Anchor)
    # ŵ of increment 1 is sets[1]; now D_2 has been tested.
    now: Any = np.array([0, 1, 1, 1], bool)
    old, after, noted, seen = begun(state, learner(sets[1], 2, now), jax.random.key(2))
    assert int(noted["epochs"]) == 1
    jax.tree.map(np.testing.assert_array_equal, noted["start"], state.nets)
    np.testing.assert_allclose(rows_of(noted["made"]), rows_of(sets[1]), rtol=1e-4)  # untrained, the net takes ŵ
    moved = net_rows(old, rows_of(sets[0]), rows_of(sets[1]))
    np.testing.assert_allclose(rows_of(after.params)[1:3], moved[1:3], rtol=1e-4)
    assert np.abs(rows_of(after.params) - rows_of(sets[1]))[1:3].max() > 0.01
    # Rows without an event so far, those of the new id too, are none that were fitted.
    np.testing.assert_array_equal(rows_of(after.params)[[0, 3]], rows_of(sets[1])[[0, 3]])
    for name in ("bias", "kernel"):
        np.testing.assert_array_equal(after.params[name], sets[1][name])
    np.testing.assert_array_equal(rows_of(old.past.params), rows_of(after.params))
    # What training and a test see: the net of these rows and twice these rows, the new id's among them.
    expected = net_rows(old, rows_of(after.params), 2.0 * rows_of(after.params))
    for view in seen:
        np.testing.assert_allclose(rows_of(view)[1:], expected[1:], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(rows_of(view)[0], 2.0 * rows_of(after.params)[0])
        np.testing.assert_array_equal(view["bias"], 2.0 * after.params["bias"])


def test_after_increments_that_are_passed_over_the_net_has_nothing_to_learn_from_yet() -> None:
    """With update.every, or a policy that waits, the first update after the base part is that of a later increment."""
    sets = [drawn() for _ in range(2)]
    state = INIT(learner(sets[0], -1, np.zeros(4, bool)))
    for t, params in ((0, sets[0]), (3, sets[1])):
        state, after, noted, _ = begun(state, learner(params, t), jax.random.key(t))
        assert int(noted["epochs"]) == 0
        jax.tree.map(np.testing.assert_array_equal, after.params, params)
    np.testing.assert_array_equal(rows_of(state.past.params), rows_of(sets[1]))
    np.testing.assert_array_equal(state.known.labels, SEEN)


def test_the_nets_decay_is_an_l2_that_adam_scales() -> None:
    """Without a gradient the first step of Adam is `rate` towards 0, however large the weight is."""
    txs: list[Any] = []

    def fit(start: Any, data: Any, key: Any, epochs: Any, *, of: Any, tx: Any) -> Any:
        del data, key, epochs, of
        txs.append(tx)
        return start

    part = sml(PROBLEM, hidden=HIDDEN, rate=0.25, decay=0.1)
    part.begin(INIT(learner(drawn(), -1)), learner(drawn(), 1), NONE, jax.random.key(0), fit)
    weights = np.array([3.0, -50.0], np.float32)
    moved, _ = txs[0].update(np.zeros(2, np.float32), txs[0].init(weights), weights)
    np.testing.assert_allclose(moved, [-0.25, 0.25], rtol=1e-4)


def test_what_it_cannot_be_used_with_is_refused(documented: Any) -> None:
    with pytest.raises(UserError, match=r"strategies\.sml\.hidden=3: expected at least 4") as error:
        sml(PROBLEM, hidden=3).init(learner(drawn(), -1))
    documented("SML with a net too small for the model's width", error.value)
    with pytest.raises(UserError, match=r"strategies\.sml: the model has no table") as error:
        sml(PROBLEM).init(learner({"kernel": np.ones(3), "bias": np.ones(4)}, -1))
    documented("SML on a model without id tables", error.value)


def test_the_net_learns_from_an_increments_examples_only_after_their_test() -> None:
    """The labels of D_2 in another order: the model by which D_2 is tested is the same. With a net that is not trained
    the model stays plain fine-tuning but for rounding."""
    subject = Subject(sml, {"hidden": 16, "rate": 0.01}, MODEL)
    one, two = subject.run(), subject.run(data=reordered(subject.data))
    np.testing.assert_array_equal(one[1].scores, two[1].scores)
    nets = [path[2].begun.strategy[NAME].nets.weights["item/embedding"]["outer"] for path in (one, two)]
    assert np.abs(nets[0] - nets[1]).max() > 1e-3
    before = one[1].ended
    part = sml(subject.problem(LARGE), hidden=16)
    view = jax.jit(lambda own, params: part.view(own, params, NONE, True))(before.strategy[NAME], before.learner.params)
    assert np.abs(rows_of(view) - rows_of(before.learner.params)).max() < 1e-4


def test_a_nets_width_is_not_taken_for_a_tables_capacity() -> None:
    """A step on compact rows knows a net by its type: its weights are no rows of ids, whatever their shape."""
    hidden = LARGE["user"]
    trace(lambda own: sml(own, hidden=hidden), "mf", lambda: bpr(negatives=2), rows="compact")


def test_the_laws_of_strategies() -> None:
    check_strategy(sml, kind="policy", arguments={"hidden": 16, "rate": 0.01}, off={"rate": 0.0})
