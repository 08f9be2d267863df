import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.precision import Precision
from incremental.core.problem import problem
from incremental.core.spec import Sizes, next_item
from incremental.heads.full_softmax import full_softmax
from incremental.models.matrix_factorization import matrix_factorization

ROWS = jnp.array([3, 0, 3])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_scores_of_some_rows_are_those_of_all_and_cost_less(precision: Precision) -> None:
    own = problem(
        matrix_factorization(width=4), full_softmax(), next_item(0), Sizes(item=4000, user=30), precision=precision
    )
    params: Any = jax.jit(own.init)(jax.random.key(0))

    def some(params: Any, *, alone: bool) -> jax.Array:
        outputs = own.apply(params, {"user": jnp.arange(1, 30)})
        return own.scores(params, outputs, ROWS) if alone else outputs.scores[ROWS]

    made: Any = [jax.jit(functools.partial(some, alone=alone)).lower(params).compile() for alone in (True, False)]
    one, other = (np.asarray(each(params)) for each in made)
    assert one.dtype == other.dtype
    np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-6)
    items = jnp.array([7, 0, 3999, 7])
    fewer = jax.jit(lambda params: own.scores(params, own.apply(params, {"user": jnp.arange(1, 30)}), ROWS, items))
    np.testing.assert_allclose(fewer(params), one[:, np.asarray(items)], rtol=1e-2, atol=1e-6)
    costs: Any = fewer.lower(params).compile().cost_analysis()
    assert costs["flops"] < 0.1 * made[0].cost_analysis()["flops"]
    few, all_of_them = (each.cost_analysis()["flops"] for each in made)
    assert few < 0.3 * all_of_them
