"""bfloat16 products, float32 everything else."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from incremental.app.assemble import assemble
from incremental.core.gradient import make, training
from incremental.core.optimizers import adam
from incremental.core.precision import low, product
from incremental.core.problem import Model, problem
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Problem
from incremental.heads.full_softmax import full_softmax
from incremental.models.frequent_directions import frequent_directions
from incremental.models.gru4rec import gru4rec
from incremental.models.matrix_factorization import matrix_factorization
from incremental.models.sasrec import sasrec
from incremental.strategies.ewc import ewc
from incremental.strategies.gpm import gpm
from incremental.strategies.lwf import lwf
from incremental.testing.subject import HISTORY, NAME, Subject
from tests import lab
from tests.app.small import composed

SIZES = Sizes(item=24, user=24)
MODELS = {
    "mf": matrix_factorization(width=8),
    "sasrec": sasrec(width=8, blocks=1, dropout=0.2),
    "gru4rec": gru4rec(width=8, dropout=0.2),
}


def problems(model: Model) -> tuple[Problem, Problem]:
    """In bfloat16 and in float32."""
    return (
        problem(model, full_softmax(), next_item(6), SIZES, precision="bfloat16"),
        problem(model, full_softmax(), next_item(6), SIZES, precision="float32"),
    )


def rows(own: Problem, n: int = 16) -> Any:
    """A batch."""
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(1, 24, (n, *leaf.shape)) for name, leaf in own.example.inputs.items()}
    whole: Any = own.example
    return whole._replace(inputs=inputs, labels=rng.integers(1, 24, n), candidates=np.ones(24, bool))


def mean_loss(own: Problem, key: Any = None) -> Any:
    """The mean loss as a function of the parameters."""
    batch = rows(own)
    return lambda params: own.loss(params, own.apply(params, batch.inputs, key=key), batch).mean()


def products(jaxpr: Any) -> list[tuple[str, ...]]:
    """The types that each product of a jaxpr takes and gives, the inner jaxprs' too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(tuple(str(var.aval.dtype) for var in (*equation.invars, *equation.outvars)))
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += products(inner)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_product_of_model_and_scores_is_of_bfloat16_forward_and_backward(name: str) -> None:
    low_one, whole = problems(MODELS[name])
    params = jax.eval_shape(whole.init, jax.random.key(0))
    train = jax.make_jaxpr(jax.grad(mean_loss(low_one, jax.random.key(1))))(params)
    met = products(train.jaxpr)
    assert len(met) >= 3
    assert {pair[:2] for pair in met} == {("bfloat16", "bfloat16")}
    scores = jax.make_jaxpr(lambda params: low_one.apply(params, rows(low_one).inputs).scores)(params)
    assert products(scores.jaxpr)[-1] == ("bfloat16", "bfloat16", "float32")  # what is ranked was added up in float32
    assert {str(aval.dtype) for aval in (*train.out_avals, *scores.out_avals)} == {"float32"}
    assert {pair[:2] for pair in products(jax.make_jaxpr(mean_loss(whole))(params).jaxpr)} == {("float32", "float32")}


@pytest.mark.parametrize("name", ["mf", pytest.param("sasrec", marks=pytest.mark.slow)])
def test_loss_and_gradient_are_near_those_of_float32(name: str) -> None:
    low_one, whole = problems(MODELS[name])

    @jax.jit
    def both(key: Any) -> Any:
        params = jax.tree.map(lambda leaf: leaf * 10, whole.init(key))  # scores that say something
        return [jax.value_and_grad(mean_loss(own))(params) for own in (low_one, whole)]

    (loss, grads), (exact, wanted) = jax.tree.map(np.asarray, both(jax.random.key(0)))
    assert loss.dtype == np.float32
    assert 0 < abs(float(loss) - float(exact)) < 1e-2 * float(exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    one, other = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (grads, wanted))
    assert 0 < np.linalg.norm(one - other) < 0.02 * np.linalg.norm(other)


def test_a_row_that_occurs_often_gets_its_whole_gradient() -> None:
    """Added up in bfloat16, 1 + 1 + ... ends at 256."""
    own = problem(matrix_factorization(width=8), full_softmax(), next_item(6), SIZES, precision="bfloat16")
    params = jax.jit(own.init)(jax.random.key(0))
    inputs = {"user": np.ones(1000, np.int32)}
    grads = jax.jit(jax.grad(lambda params, inputs: own.apply(params, inputs).hidden.sum()))(params, inputs)
    assert np.asarray(grads["user"]["embedding"])[1].tolist() == [1000.0] * 8


@pytest.mark.parametrize("name", ["dense", "sasrec", "gru4rec"])
def test_what_is_broadcast_over_a_batch_gets_its_whole_gradient(name: str) -> None:
    """The gradient on n equal rows is n times that on one, for biases, norms' scales and positions."""
    model = lab.dense() if name == "dense" else MODELS[name]
    own, n = (
        problem(model, full_softmax(), next_item(6), SIZES, precision="bfloat16"),
        40_000 if name == "dense" else 2048,
    )
    params = jax.jit(own.init)(jax.random.key(0))

    @jax.jit
    @jax.grad
    def slope(params: Any, inputs: Any) -> Any:
        return (own.apply(params, inputs).hidden * jnp.arange(1.0, 9.0)).sum()

    def gradient(n: int) -> Any:
        inputs = jax.tree.map(lambda leaf: np.ones((n, *leaf.shape), np.int32), own.example.inputs)
        return flatten_dict(lab.on_host(slope(params, inputs)), sep="/")

    one, many = gradient(1), gradient(n)
    checked = [path for path in one if path.endswith(("bias", "scale", "position"))]
    assert len(checked) >= (1 if name == "dense" else 3)
    for path in checked:
        np.testing.assert_allclose(many[path], n * one[path], rtol=1e-4, err_msg=path)
    if name == "dense":
        assert many["layer/bias"].tolist() == [40_000.0 * i for i in range(1, 9)]


def exactness(text: str) -> set[str]:
    """What the products of a lowered program say of their precision."""
    found = re.findall(r"stablehlo\.dot_general[^\n]*", text)
    assert found
    said = (re.search(r"precision = \[(\w+), (\w+)\]", line) for line in found)
    return {"DEFAULT" if match is None else " ".join(sorted(set(match.groups()))) for match in said}


@pytest.mark.parametrize(("precision", "said"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "HIGHEST")])
def test_every_product_of_an_epoch_and_of_a_ranking_says_how_exact_it_is(precision: Any, said: str) -> None:
    own = problem(MODELS["sasrec"], full_softmax(), next_item(HISTORY), SIZES, precision=precision)
    parts = {"gpm": gpm(own, samples=8), "lwf": lwf(own)}
    program = make(own, adam(), parts, sizes=SIZES, training=training(batch_size=8, precision=precision))
    state = jax.eval_shape(program.init, jax.random.key(0))
    data = Subject(ewc, {"samples": 8}, MODELS["sasrec"]).data[0]
    for function, given in (
        (program.run_epoch, (state, data)),
        (program.validate, (state, data)),
        (program.end, (state, data)),
        (program.rank, (state, data, None)),
    ):
        assert exactness(jax.jit(function).lower(*given).as_text()) == {said}


def test_models_without_gradients_multiply_exactly_too() -> None:
    program = frequent_directions(sketch=8, rank=4).program(next_item(8), SIZES, (5,))
    state = jax.eval_shape(program.init, jax.random.key(0))
    data = Subject(ewc, {"samples": 8}, MODELS["sasrec"]).data[0]
    assert exactness(jax.jit(program.run_epoch).lower(state, data).as_text()) == {"HIGHEST"}


def test_scores_are_exact_products_of_rounded_numbers() -> None:
    """Operation by operation: within a program XLA may leave out that a number is rounded and widened again."""
    hidden, table = (jax.random.normal(jax.random.key(i), (n, 64)) for i, n in enumerate((5, 7)))
    rounded = [np.asarray(low(each).astype(jnp.float32), np.float64) for each in (hidden, table)]
    scores, pull = jax.vjp(product, hidden, table)
    np.testing.assert_allclose(scores, rounded[0] @ rounded[1].T, rtol=1e-5, atol=1e-5)
    assert len(np.unique(scores)) == scores.size  # bfloat16 would tie
    for got, wanted in zip(pull(jnp.ones_like(scores)), (rounded[1].sum(0), rounded[0].sum(0)), strict=True):
        np.testing.assert_allclose(got, np.broadcast_to(wanted, got.shape), rtol=1e-5, atol=1e-5)


def test_a_run_takes_its_precision_from_its_config(tmp_path: Path) -> None:
    for precision in ("bfloat16", "float32"):
        program = assemble(composed(tmp_path, f"training.precision={precision}")).build(SIZES)
        state = jax.eval_shape(program.init, jax.random.key(0))
        scores = jax.make_jaxpr(program.scores)(state, {"user": jnp.ones(4, jnp.int32)})
        assert products(scores.jaxpr) == [(precision, precision, "float32")]


def test_parameters_moments_and_fishers_stay_float32() -> None:
    class Low(Subject):
        def problem(self, sizes: Sizes) -> Problem:
            return problem(self.model, full_softmax(), next_item(6), sizes, precision="bfloat16")

    subject = Low(ewc, {"samples": 8}, MODELS["mf"])
    state = jax.eval_shape(lambda: subject.init(subject.floats, jnp.uint32(0), SIZES))
    program = subject.program(subject.floats, SIZES)
    trained = jax.eval_shape(program.run_epoch, state, subject.data[0])[0]
    ended = jax.eval_shape(program.end, trained, subject.data[0])
    assert ended.strategy[NAME] != ()
    floating = [leaf.dtype for leaf in jax.tree.leaves(ended) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floating) == {jnp.dtype("float32")}
