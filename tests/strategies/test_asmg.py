import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from incremental.core.types import Catalogue, Learner, Problem
from incremental.errors import UserError
from incremental.run.check import holds_anchor
from incremental.strategies.asmg import asmg
from incremental.testing import check_strategy
from incremental.testing.subject import LARGE, MODEL, NAME, Subject
from tests import lab
from tests.strategies.reordered import reordered

NONE: Any = None
PROBLEM = Problem(NONE, NONE, NONE, NONE, {"item": "item"}, None, NONE)
RNG = np.random.default_rng(0)
SEEN: Any = np.array([0, 1, 1, 0], bool)


def drawn() -> Any:
    return {"item": RNG.normal(size=(4, 2)).astype(np.float32), "kernel": RNG.normal(size=3).astype(np.float32)}


SETS = [drawn() for _ in range(5)]


LINEAR = asmg(PROBLEM, mode="linear", newest=0.5)


def learner(params: Any, t: int, seen: Any = SEEN) -> Learner:
    return Learner(params, (), Catalogue(seen, seen, {"user": jnp.zeros(1, bool)}), jnp.int32(t))


@functools.partial(jax.jit, static_argnums=0)
def begun(part: Any, state: Any, learner: Any, key: Any) -> Any:
    """The state in an increment, and what `fit` is given: one that adds 0.1 an epoch to what it trains."""
    noted: dict[str, Any] = {}

    def fit(start: Any, data: Any, key: Any, epochs: Any, *, of: Any, tx: Any) -> Any:
        del data, key
        assert isinstance(tx, optax.GradientTransformation)
        noted.update(epochs=epochs, made=of(start))
        return jax.tree.map(lambda leaf: leaf + 0.1 * epochs, start)

    state, same = part.begin(state, learner, NONE, key, fit)
    assert same is learner  # plain training goes on from its own weights
    return state, noted


@functools.partial(jax.jit, static_argnums=0)
def served(part: Any, state: Any, params: Any) -> Any:
    """The parameters that the model is tested with."""
    return part.view(state, params, NONE, False)


def passed(part: Any, number: int) -> Any:
    """The state in increment `number`, after the sets before it, and what each increment's `fit` was given."""
    state, noted = jax.jit(part.init)(learner(SETS[0], -1, np.zeros(4, bool))), []
    for t in range(number + 1):
        state, given = begun(part, state, learner(SETS[max(t - 1, 0)], t), jax.random.key(t))
        noted.append(given)
    # In increments 0 and 1 the window holds one set.
    assert [int(given["epochs"]) for given in noted] == [0, 0, 1, 1, 1][: number + 1]
    return state, [given["made"] for given in noted]


def softmax(a: Any) -> Any:
    return np.exp(a) / np.exp(a).sum(0)


def test_the_linear_generator_is_a_softmax_over_the_window_shared_by_a_tables_rows() -> None:
    part = LINEAR
    state, made = passed(part, 4)
    # D_2 is for Θ*_1 of (Θ_0, Θ_0, Θ_1). Here every a rises alike, which changes no share.
    share = softmax(np.array([0.0, 0.0, 0.5]))
    for t, window in ((2, (0, 0, 1)), (3, (0, 1, 2)), (4, (1, 2, 3))):
        for path, found in made[t].items():
            mixed = sum(s * SETS[i][path] for s, i in zip(share, window, strict=True))
            np.testing.assert_allclose(found, mixed, rtol=1e-5, atol=1e-6)
    a = {path: RNG.normal(size=shape).astype(np.float32) for path, shape in (("item", (3, 1, 2)), ("kernel", (3, 3)))}
    assert {path: own["a"].shape for path, own in state.generator.items()} == {
        path: own.shape for path, own in a.items()
    }
    mixture = served(part, state._replace(generator={path: {"a": own} for path, own in a.items()}), SETS[4])
    for path, own in a.items():
        mixed = (softmax(own) * np.stack([SETS[i][path] for i in (2, 3, 4)])).sum(0)
        np.testing.assert_allclose(mixture[path], mixed, rtol=1e-5, atol=1e-6)
    assert part.view(state, SETS[4], NONE, True) is SETS[4]


def test_increments_that_are_passed_over_put_no_set_into_the_window() -> None:
    """With update.every, or a policy that waits, the first update after the base part is that of a later increment."""
    state, noted = jax.jit(LINEAR.init)(learner(SETS[4], -1, np.zeros(4, bool))), []
    for t, params in ((0, SETS[4]), (3, SETS[0]), (6, SETS[1])):  # before the base part, after it, after increment 3
        state, given = begun(LINEAR, state, learner(params, t), jax.random.key(t))
        noted.append(given)
    assert [int(given["epochs"]) for given in noted] == [0, 0, 1]
    share = softmax(np.array([0.0, 0.0, 0.5]))
    for path, found in noted[-1]["made"].items():
        mixed = (share[0] + share[1]) * SETS[0][path] + share[2] * SETS[1][path]
        np.testing.assert_allclose(found, mixed, rtol=1e-5, atol=1e-6)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def gru(own: Any, hidden: Any, x: float) -> Any:
    """One coordinate's."""
    z, r = (sigmoid(np.append(x, hidden) @ own["gates"][i]) for i in (0, 1))
    return (1 - z) * hidden + z * np.tanh(np.append(x, r * hidden) @ own["gates"][2])


def test_the_gru_reads_each_coordinates_weights_from_the_sets_that_left_the_window_on() -> None:
    part = asmg(PROBLEM)
    state, untrained = passed(part, 4)
    jax.tree.map(np.testing.assert_array_equal, untrained[2], SETS[1])  # plain training
    made, state = lab.on_host((served(part, state, SETS[4]), state))
    # It was trained in increments 2, 3 and 4, after each of which a set left the window: Θ_0 twice, and Θ_1.
    for path, place in (("item", (2, 1)), ("kernel", (1,))):
        shared = (0, *place[1:]) if path == "item" else place
        own = {name: np.asarray(leaf, float)[(..., *shared)] for name, leaf in state.generator[path].items()}
        assert own["gates"].shape == (3, 5, 4)
        np.testing.assert_allclose(own["out"], 0.3 * np.ones(4), rtol=1e-5)
        hidden = np.zeros(4)
        for later, gone in ((2, 0), (1, 0), (0, 1)):
            hidden = gru({**own, "gates": own["gates"] - 0.1 * later}, hidden, SETS[gone][path][place])
        np.testing.assert_allclose([each[path][place] for each in state.hidden], hidden, rtol=1e-4)
        for i in (2, 3, 4):
            hidden = gru(own, hidden, SETS[i][path][place])
        np.testing.assert_allclose(
            made[path][place], SETS[4][path][place] + own["out"] @ hidden + own["bias"], rtol=1e-4
        )


@pytest.mark.parametrize("mode", ["linear", "gru"])
def test_new_ids_enter_the_window_as_they_are_at_the_increments_start(mode: Any) -> None:
    part = asmg(PROBLEM, mode=mode)
    state, _ = passed(part, 3)
    now: Any = np.array([0, 1, 1, 1], bool)
    state, given = begun(part, state, learner(SETS[3], 4, now), jax.random.key(4))
    if mode == "linear":  # any mixture of equal rows
        np.testing.assert_allclose(given["made"]["item"][3], SETS[3]["item"][3], rtol=1e-6)
        assert np.abs(given["made"]["item"][1] - SETS[3]["item"][1]).max() > 0.01
        return
    own = {name: np.asarray(leaf, float)[..., 0, 0] for name, leaf in state.generator["item"].items()}
    hidden = [each["item"][3, 0] for each in state.hidden]
    np.testing.assert_allclose(hidden, gru(own, np.zeros(4), SETS[3]["item"][3, 0]), rtol=1e-4)


@pytest.fixture(scope="module")
def linear() -> Subject:
    return Subject(asmg, {"mode": "linear"}, MODEL)


def test_all_weight_on_the_newest_set_is_plain_training_bit_for_bit(linear: Subject) -> None:
    part = asmg(linear.problem(LARGE), mode="linear")
    for path in linear.run({**linear.floats, "newest": jnp.float32(1e9)}):
        params = path.ended.learner.params
        made = served(part, path.ended.strategy[NAME], params)
        jax.tree.map(np.testing.assert_array_equal, made, params)


def test_no_example_changes_what_is_served_before_it_is_tested_and_then_it_trains_the_generator(
    linear: Subject,
) -> None:
    """The labels of D_2 in another order: the model after increment 1, by which D_2 is tested, is the same."""
    one, two = linear.run(), linear.run(data=reordered(linear.data))
    np.testing.assert_array_equal(one[1].scores, two[1].scores)
    states = [path[2].begun.strategy[NAME] for path in (one, two)]
    jax.tree.map(np.testing.assert_array_equal, states[0].older, states[1].older)
    moved = [np.asarray(state.generator["item/embedding"]["a"]) for state in states]
    assert np.abs(moved[0] - moved[1]).max() > 1e-3
    assert np.abs(moved[0]).max() > 1e-3


def test_a_fresh_start_is_refused_beside_it_and_a_mode_that_there_is_not(documented: Any) -> None:
    assert holds_anchor(asmg(PROBLEM).init(learner(SETS[0], -1)))
    with pytest.raises(UserError, match=r"strategies\.asmg: mode='mean': expected gru or linear") as error:
        asmg(PROBLEM, mode="mean")  # type: ignore[arg-type]
    documented("ASMG with an unknown mode", error.value)


@pytest.mark.parametrize("mode", ["gru", pytest.param("linear", marks=pytest.mark.slow)])
def test_the_laws_of_strategies(mode: str) -> None:
    check_strategy(asmg, kind="policy", arguments={"mode": mode, "sets": 2}, off={"rate": 0.0})
