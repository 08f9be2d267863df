import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.types import Anchor, Catalogue, Learner, Problem
from incremental.errors import UserError
from incremental.strategies.packnet import packnet
from incremental.testing import check_strategy
from tests import lab

NONE: Any = None
V = 4
RNG = np.random.default_rng(0)


def start(key: Any = None) -> Any:
    del key
    return {"kernel": jnp.zeros((4, 5)), "scale": jnp.ones(3), "item": jnp.full((V, 5), 0.5)}


PROBLEM = Problem(start, NONE, NONE, NONE, {"item": "item"}, None, NONE)
SEEN: Any = np.array([0, 1, 1, 0], bool)
ENDS: Any = [{name: RNG.normal(size=leaf.shape).astype(np.float32) for name, leaf in start().items()} for _ in range(3)]


def learner(params: Any) -> Learner:
    return Learner(params, (), Catalogue(SEEN, SEEN, {"user": jnp.zeros(1, bool)}), NONE)


class Jitted:
    def __init__(self, *, tables: bool) -> None:
        def made(keep: Any = 0.5) -> Any:
            return packnet(PROBLEM, keep=keep, tables=tables)

        self.init = jax.jit(lambda learner: made().init(learner))
        self.end = jax.jit(lambda state, learner, keep: made(keep).end(state, learner, NONE, NONE))
        self.updates = jax.jit(lambda state, updates, params: made().updates(state, updates, params))
        self.view = jax.jit(lambda state, params: made().view(state, params, NONE, True))
        self.begin = jax.jit(lambda state, learner: made().begin(state, learner, NONE, NONE)[1])


@pytest.fixture(scope="module")
def jitted() -> Jitted:
    return Jitted(tables=False)


def ended(jitted: Jitted, keep: float = 0.5) -> list[tuple[Any, Any]]:
    """State and parameters after each of the increments, of which each tries to move everything."""
    state, after, params = jitted.init(learner(start())), [], start()
    for wanted in ENDS:
        updates = jitted.updates(state, jax.tree.map(jnp.subtract, wanted, params), params)
        state, own = jitted.end(state, learner(jax.tree.map(jnp.add, params, updates)), np.float32(keep))
        params = own.params
        after.append((state, params))
    return after


def test_the_largest_free_weights_are_owned_and_the_others_zero(jitted: Jitted) -> None:
    state, params = ended(jitted)[0]
    size = np.abs(ENDS[0]["kernel"])
    largest = size >= np.sort(size.ravel())[-10]
    np.testing.assert_array_equal(state.owned["kernel"], largest)
    np.testing.assert_array_equal(params["kernel"], np.where(largest, ENDS[0]["kernel"], 0.0))
    assert isinstance(state.anchor, Anchor)


def test_free_weights_shrink_by_the_same_share_each_increment(jitted: Jitted) -> None:
    assert [int(state.owned["kernel"].sum()) for state, _ in ended(jitted)] == [10, 15, 17]  # of 20; 2.5 rounds to 2
    assert [int(state.owned["kernel"].sum()) for state, _ in ended(jitted, 0.1)] == [2, 4, 6]
    assert [int(state.owned["kernel"].sum()) for state, _ in ended(jitted, 0.0)] == [0, 0, 0]


def test_it_acts_in_the_base_part_too() -> None:
    assert packnet(PROBLEM).early


def test_equal_weights_do_not_exceed_the_share(jitted: Jitted) -> None:
    state, _ = jitted.end(jitted.init(learner(start())), learner(start()), np.float32(0.25))
    assert int(state.owned["kernel"].sum()) == 5


def test_owned_weights_never_move_again(jitted: Jitted) -> None:
    after = ended(jitted)
    for (state, params), (_, later) in itertools.pairwise(after):
        owned = np.asarray(state.owned["kernel"])
        np.testing.assert_array_equal(np.asarray(later["kernel"])[owned], np.asarray(params["kernel"])[owned])
    state, params = after[0]
    free = ~np.asarray(state.owned["kernel"])
    second = np.asarray(after[1][1]["kernel"])
    assert (second[free] != 0).sum() == 5  # the second increment's own


def test_only_what_is_not_owned_is_updated(jitted: Jitted) -> None:
    state, params = ended(jitted)[0]
    updates = jitted.updates(state, ENDS[1], params)
    np.testing.assert_array_equal(updates["kernel"], np.where(state.owned["kernel"], 0.0, ENDS[1]["kernel"]))
    np.testing.assert_array_equal(updates["scale"], 0.0)
    np.testing.assert_array_equal(updates["item"], ENDS[1]["item"])


def test_what_others_do_to_owned_weights_is_undone(jitted: Jitted) -> None:
    state, params = ended(jitted)[0]
    rewritten = jax.tree.map(lambda leaf: leaf * 0.5 + 1.0, params)
    for seen in (jitted.view(state, rewritten), jitted.begin(state, learner(rewritten)).params):
        expected = np.where(state.owned["kernel"], params["kernel"], rewritten["kernel"])
        np.testing.assert_array_equal(seen["kernel"], expected)
        np.testing.assert_array_equal(seen["scale"], params["scale"])
        np.testing.assert_array_equal(seen["item"], rewritten["item"])
    later, own = jitted.end(state, learner(rewritten), np.float32(0.0))
    np.testing.assert_array_equal(own.params["kernel"], params["kernel"])
    np.testing.assert_array_equal(later.anchor.params["kernel"], params["kernel"])


def test_scales_are_owned_whole_and_tables_are_left_alone(jitted: Jitted) -> None:
    for t, (state, params) in enumerate(ended(jitted)):
        np.testing.assert_allclose(params["scale"], ENDS[0]["scale"], rtol=1e-6)
        np.testing.assert_allclose(params["item"], ENDS[t]["item"], rtol=1e-5)
        assert not state.owned["item"].any()


def test_tables_are_packed_over_the_rows_of_known_ids_where_asked_for() -> None:
    (state, params), *_ = ended(Jitted(tables=True))
    owned = np.asarray(state.owned["item"])
    assert owned[SEEN].sum() == 5
    assert not owned[~SEEN].any()
    wanted = ENDS[0]["item"]
    np.testing.assert_allclose(np.asarray(params["item"])[~SEEN], wanted[~SEEN], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(params["item"])[SEEN], np.where(owned, wanted, 0.0)[SEEN], rtol=1e-5)
    assert np.abs(wanted[SEEN])[owned[SEEN]].min() > np.abs(wanted[SEEN])[~owned[SEEN]].max()


def test_a_model_of_tables_is_refused_unless_they_are_packed() -> None:
    only = PROBLEM._replace(init=lambda _key: {"item": jnp.zeros((V, 5))})
    with pytest.raises(UserError, match="tables=false: there is nothing to pack"):
        packnet(only)
    packnet(only, tables=True)


def test_the_laws_of_strategies() -> None:
    check_strategy(packnet, kind="isolation", model=lab.dense())
