"""The best items of a request: by one row's product with the table, and whether the scores are but event counts."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.serve.live.model import counted, top
from incremental.serve.live.products import apart
from tests.serve.live import small


def scored(table: Array, bias: Array, ids: Array) -> Array:
    """A product in a function that is compiled for itself, loops, and a number that stands in the program."""

    @jax.jit
    def times(rows: Array) -> Array:
        return rows @ table.T + bias

    scores = times(table[ids])
    most, place = jax.lax.top_k(scores, 2)
    scores = jax.lax.fori_loop(0, 3, lambda _, each: each - 0.5, scores)
    return jax.lax.cond(most.sum() > 0, lambda: scores + place.sum(), lambda: scores)


def test_products_stand_alone_and_are_the_same() -> None:
    table = jax.random.normal(jax.random.key(0), (12, 4))
    given = table, jnp.arange(12.0), jnp.array([5])
    alone = jax.jit(apart(scored))
    (barrier,) = [line for line in alone.lower(*given).as_text().splitlines() if "optimization_barrier" in line]
    assert "tensor<1x12xf32>" in barrier
    np.testing.assert_allclose(alone(*given), scored(*given), rtol=1e-6)


def test_scores_are_event_counts_where_all_of_them_are() -> None:
    """The first user's are, the second's best two alone, the third's none; the fourth has had all others."""
    state = small.state()
    catalogue = state.learner.catalogue
    seen, events = np.asarray(catalogue.seen), np.asarray(catalogue.events)
    rows = np.where(seen, np.tile(events, (4, 1)), -np.inf).astype(np.float32)
    best = np.argsort(-rows[0])[:2]
    rows[1:][:, ~np.isin(np.arange(len(seen)), best) & seen] -= 0.5
    rows[2, best] += 1
    had = np.zeros(rows.shape, bool)
    had[3, [each for each in np.flatnonzero(seen) if each not in best]] = True
    program: Any = small.program()._replace(scores=lambda _state, inputs: inputs["rows"])
    _, items, fallback = jax.jit(partial(top, program, 2))(state, {"rows": jnp.asarray(rows)}, had, {})
    assert np.sort(items, axis=1).tolist() == [np.sort(best).tolist()] * 4
    assert fallback.tolist() == counted(state, jnp.asarray(rows)).tolist() == [True, False, False, False]
