"""Laws of the modules, over both builds."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from incremental.core.precision import low
from incremental.encoders.bert import Bert
from incremental.encoders.gpt2 import GPT2
from incremental.encoders.layers import Config

CONFIG = Config(vocabulary=20, width=8, layers=2, heads=2, inner=12, positions=10, activation="gelu", types=2)
BUILDS: dict[str, Any] = {"bert": Bert, "gpt2": GPT2}
MASK = np.arange(6) < np.array([[6], [4], [1]])
IDS = np.random.default_rng(0).integers(0, 20, MASK.shape).astype(np.int32)


def made(build: str, **fields: Any) -> tuple[nn.Module, Any]:
    """A module, and weights that say something."""
    module = BUILDS[build](CONFIG, **fields)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IDS, MASK)["params"]
    rng = np.random.default_rng(1)
    return module, jax.tree.map(lambda leaf: rng.normal(0.3, 0.5, leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module", params=BUILDS)
def build(request: pytest.FixtureRequest) -> Any:
    name: str = request.param
    module, params = made(name)
    return name, module, params, jax.jit(module.apply)


def test_padding_never_reaches_a_token(build: Any) -> None:
    _, _, params, apply = build
    states = apply({"params": params}, IDS, MASK)
    other = np.where(MASK, IDS, (IDS + 7) % 20)
    np.testing.assert_array_equal(apply({"params": params}, other, MASK)[MASK], states[MASK])
    short = apply({"params": params}, IDS[1:2, :4], MASK[1:2, :4])  # and how much of it there is does not matter
    np.testing.assert_allclose(short[0], states[1, :4], atol=1e-5)
    seen = np.where(np.arange(6) == 0, (IDS + 7) % 20, IDS)  # what is no padding does
    assert (apply({"params": params}, seen, MASK)[1, 1:4] != states[1, 1:4]).any()


def test_who_looks_at_whom(build: Any) -> None:
    name, _, params, apply = build
    states, later = (
        apply({"params": params}, ids, MASK) for ids in (IDS, np.where(np.arange(6) == 3, (IDS + 7) % 20, IDS))
    )
    before = np.asarray(later - states)[0, :3]
    assert (before == 0).all() if name == "gpt2" else (before != 0).any(axis=1).all()


def test_a_row_without_tokens_has_finite_states_and_gradients(build: Any) -> None:
    _, module, params, _ = build

    def total(params: Any) -> Any:
        states: Any = module.apply({"params": params}, IDS, np.zeros_like(MASK))
        return (states**2).sum()

    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(params)))


def test_parts_are_named_alike_and_by_layer(build: Any) -> None:
    _, _, params, _ = build
    parts = {path[0] for path in flatten_dict(params)}
    assert parts - {"types"} == {"words", "positions", "norm", "layer_0", "layer_1"}
    dense = {"/".join(path[:-1]) for path in flatten_dict(params) if path[-1] == "kernel"}
    parts_of_a_layer = ("query", "key", "value", "output", "inner", "outer")
    assert dense == {f"layer_{i}/{part}" for i in range(2) for part in parts_of_a_layer}


def test_rematerialisation_changes_neither_states_nor_gradients_but_what_is_kept(build: Any) -> None:
    name, _, params, _ = build
    key = jax.random.key(2)

    def gradient(module: nn.Module) -> Any:
        def total(params: Any) -> Any:
            states: Any = module.apply({"params": params}, IDS, MASK, key)
            return (states * MASK[..., None]).sum()

        return jax.value_and_grad(total)

    shallow = CONFIG._replace(layers=1)  # which ignores the second layer's weights
    plain, again = BUILDS[name](shallow, dropout=0.3), BUILDS[name](shallow, dropout=0.3, remat=True)
    (total, grads), (other, regrads) = (jax.jit(gradient(each))(params) for each in (plain, again))
    assert float(other) == pytest.approx(float(total), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2), grads, regrads)
    texts = [str(jax.make_jaxpr(gradient(each))(params)) for each in (plain, again)]
    assert [text.count("remat") > 0 or text.count("checkpoint") > 0 for text in texts] == [False, True]


def test_dropout_needs_a_key_and_may_be_traced(build: Any) -> None:
    name, _, params, apply = build

    @jax.jit
    def states(rate: Any, key: Any) -> Any:
        return BUILDS[name](CONFIG, dropout=rate).apply({"params": params}, IDS, MASK, key)

    plain = apply({"params": params}, IDS, MASK)
    np.testing.assert_allclose(states(0.5, None), plain, atol=1e-5)
    np.testing.assert_allclose(states(0.0, jax.random.key(0)), plain, atol=1e-5)
    one, other = (states(0.5, jax.random.key(i)) for i in range(2))
    assert (one != other).mean() > 0.9


def test_bfloat16_weights_compute_in_bfloat16_and_give_float32(build: Any) -> None:
    _, module, params, apply = build
    states = apply({"params": params}, IDS, MASK)
    rough = apply({"params": low(params)}, IDS, MASK)
    assert rough.dtype == jnp.float32
    error = float(jnp.abs(rough - states)[MASK].mean() / jnp.abs(states)[MASK].mean())
    assert 1e-4 < error < 0.05
    jaxpr = jax.make_jaxpr(lambda params: module.apply({"params": params}, IDS, MASK))(low(params))
    products = [each for each in jaxpr.jaxpr.eqns if each.primitive.name == "dot_general"]
    assert {str(each.invars[0].aval.dtype) for each in products} == {"bfloat16"}
