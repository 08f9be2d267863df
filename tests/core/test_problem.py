import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.core.precision import Precision
from incremental.core.problem import Baseline, Model, problem, read
from incremental.core.spec import Input, Sizes, Spec, next_item
from incremental.errors import UserError
from incremental.heads.full_softmax import full_softmax
from incremental.models.behaviour import behaviour
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.popularity import popularity

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


# -- what data and model say of an example -----------------------------------------------------------------------------


WHOLE, REAL = np.dtype(np.int32), np.dtype(np.float32)
SPEC = Spec(
    {
        "user": Input((), WHOLE, "user"),
        "history": Input((5,), WHOLE, "item"),
        "hour": Input((), WHOLE),
        "past": Input((16,), REAL),
    }
)
NINE = Input((9,), REAL)
NONE: Any = None


def reader(*inputs: str, **fields: Any) -> Model:
    return Model(NONE, inputs, {}, **fields)


def baseline(*inputs: str, **fields: Any) -> Baseline:
    return Baseline(NONE, inputs, **fields)


@pytest.mark.parametrize("of", [reader, baseline])
def test_a_model_is_given_what_it_reads(of: Any) -> None:
    found = read(of("past", "user", wants={"past": (16,)}, labels="item"), SPEC)
    assert found == {"past": SPEC.inputs["past"], "user": SPEC.inputs["user"]}
    assert read(of(), SPEC) == {}


@pytest.mark.parametrize("of", [reader, baseline])
@pytest.mark.parametrize(
    ("inputs", "fields", "labels", "said"),
    [
        (
            ("user", "basket"),
            {},
            "item",
            "reads 'basket', which the data's examples do not hold; they hold user, history, hour, past",
        ),
        (("hour",), {}, "item", "data.features.hour: whole numbers index a table; say of which kind of ids they are"),
        (
            ("past",),
            {"wants": {"past": (8,)}},
            "item",
            r"reads 'past' of shape \[8\], the data makes \[16\]",
        ),
        (
            ("user",),
            {"labels": "item"},
            "click",
            "scores ids of the kind 'item', but the labels are of the kind 'click'; choose a model for this task, or",
        ),
    ],
    ids=["missing", "no kind", "shape", "labels"],
)
def test_data_and_model_that_do_not_fit_are_refused(
    of: Any, inputs: tuple[str, ...], fields: Any, labels: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read(of(*inputs, **fields), replace(SPEC, labels=labels))


def test_a_problem_and_a_baseline_are_refused_alike() -> None:
    nothing = Spec({})
    sizes = Sizes(item=3, user=3)
    for made in (
        lambda: problem(matrix_factorization(width=4), full_softmax(), nothing, sizes),
        lambda: popularity().program(nothing, sizes, ()),
    ):
        with pytest.raises(UserError, match="reads 'user', which the data's examples do not hold"):
            made()


def test_a_table_of_the_labels_is_one_of_their_kind() -> None:
    """Its rows are those of the labels' capacity, and it is compacted, grown and masked as a table of that kind."""
    vector = Input((4,), REAL)
    spec = Spec({"past": vector, "asked": vector}, "click", ("item", "user", "click"))
    sizes = Sizes(labels="click", item=50, user=60, click=3)
    own = problem(behaviour(features=4, width=2), full_softmax(), spec, sizes)
    assert own.tables == {"item/embedding": "click", "item_bias": "click"}
    assert own.labels == "click"
    params = jax.eval_shape(own.init, jax.random.key(0))
    assert params["item"]["embedding"].shape == (3, 2)
    with pytest.raises(UserError, match=r"of shape \[4\], the data makes \[9\]"):
        problem(behaviour(features=4), full_softmax(), replace(spec, inputs=dict.fromkeys(spec.inputs, NINE)), sizes)


def test_a_table_that_is_no_parameter_is_refused_by_name() -> None:
    model = matrix_factorization(width=4)
    wrong = model._replace(tables={"items/embedding": "item"})
    made = problem(wrong, full_softmax(), next_item(3), Sizes(item=9, user=5))
    params = made.init(jax.random.key(0))
    with pytest.raises(UserError, match=r"model: tables names 'items/embedding', which .*: item/embedding, item_bias"):
        made.apply(params, {"user": jnp.ones(2, int)})
