from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from incremental.core.types import Catalogue, Learner, Problem
from incremental.strategies.shrink_perturb import shrink_perturb
from incremental.testing import check_strategy

NONE: Any = None
OLD: Any = {"item": np.full((4, 2), 3.0, np.float32), "kernel": np.full((2, 2), 5.0, np.float32)}
FIRST: Any = np.array([0, 1, 1, 0], bool)
LATER: Any = np.array([0, 1, 1, 1], bool)


def fresh(key: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), OLD)


PROBLEM = Problem(fresh, NONE, NONE, NONE, {"item": "item"}, None, NONE)


def learner(seen: Any) -> Learner:
    return Learner(OLD, (), Catalogue(seen, seen, {"user": jnp.zeros(1, bool)}), NONE)


def made(shrink: Any = 0.5, perturb: Any = 0.1) -> Any:
    return shrink_perturb(PROBLEM, shrink=shrink, perturb=perturb)


init = jax.jit(made().init)
end = jax.jit(lambda state, learner: made().end(state, learner, NONE, NONE)[0])
begin = jax.jit(lambda state, learner, key, shrink, perturb: made(shrink, perturb).begin(state, learner, NONE, key)[1])
HALF, TENTH = np.float32(0.5), np.float32(0.1)


def test_the_first_increment_starts_as_it_is() -> None:
    after = begin(init(learner(FIRST)), learner(FIRST), jax.random.key(0), HALF, TENTH)
    jax.tree.map(np.testing.assert_array_equal, after.params, OLD)


def test_later_ones_start_from_shrunk_weights_and_fresh_ones() -> None:
    state = end(init(learner(FIRST)), learner(FIRST))
    for seed in (1, 2):
        key = jax.random.key(seed)
        after = begin(state, learner(LATER), key, HALF, TENTH).params
        mixed = jax.tree.map(lambda old, new: 0.5 * old + 0.1 * new, OLD, fresh(key))
        np.testing.assert_allclose(after["kernel"], mixed["kernel"], rtol=1e-5)
        # Rows that no finished increment trained are fresh already, the newly arrived one too.
        expected = np.where(FIRST[:, None], mixed["item"], OLD["item"])
        np.testing.assert_allclose(after["item"], expected, rtol=1e-5)


def test_without_shrinking_and_noise_nothing_changes() -> None:
    state = end(init(learner(FIRST)), learner(FIRST))
    after = begin(state, learner(LATER), jax.random.key(0), np.float32(1.0), np.float32(0.0))
    jax.tree.map(np.testing.assert_array_equal, after.params, OLD)


def test_the_laws_of_strategies() -> None:
    check_strategy(shrink_perturb, kind="policy", off={"shrink": 1.0, "perturb": 0.0})
