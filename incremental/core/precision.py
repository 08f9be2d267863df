"""bfloat16 compute with float32 master weights (Kalamkar et al. 2019, arXiv 1905.12322).

Parameters, gradients, moments and strategies' states stay float32; losses and rankings read float32. Inside the model
the parameters are rounded to bfloat16, those of tables row by row behind their gather: no whole table is rounded, and
the gradients of a row that occurs often in a batch add up in float32. So do those of what is broadcast over a batch,
biases and the scales of norms: these stay float32, and what they are added to or multiply is rounded again. bfloat16
has float32's range, so a loss needs no scaling.

Other arithmetic is float32's: "float32" multiplies float32 numbers as such on every device, "tf32" with the 10 bits of
TensorFloat-32 where a device has it, as JAX does by default on GPUs.
"""

from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.core.program import Program
from incremental.core.types import Params, PyTree

Precision = Literal["float32", "tf32", "bfloat16"]
NORMS = nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm


class Arithmetic(NamedTuple):
    """How a model is computed; both functions return float32."""

    apply: Callable[..., Array]
    """(module, params, inputs, key, method=None) -> hidden [B, D]"""
    product: Callable[[Array, Array], Array]
    """(hidden [B, D], table [V, D]) -> [B, V]"""


def arithmetic(precision: Precision, tables: Collection[str]) -> Arithmetic:
    """The arithmetic of `precision`; `tables` are the paths of what the module gathers rows of and rounds behind that,
    as an `nn.Embed` does by itself."""
    if precision != "bfloat16":
        return Arithmetic(
            lambda module, params, inputs, key, method=None: module.apply(
                {"params": params}, inputs, key, method=method
            ),
            lambda hidden, table: hidden @ table.T,
        )

    def whole(path: str, leaf: Array) -> bool:
        """Whether it stays float32: a gradient that adds up over a batch must not be a sum in bfloat16."""
        return path in tables or path.endswith("/embedding") or leaf.ndim < 2

    def apply(module: nn.Module, params: Params, inputs: PyTree, key: Array | None, method: str | None = None) -> Array:
        named = flatten_dict(params, sep="/")
        params = unflatten_dict(
            {path: leaf if whole(path, leaf) else low(leaf) for path, leaf in named.items()}, sep="/"
        )
        with nn.intercept_methods(_low_module):
            hidden: Any = module.apply({"params": params}, low(inputs), key, method=method)
        return hidden.astype(jnp.float32)

    return Arithmetic(apply, product)


def low(tree: PyTree) -> PyTree:
    """Its float32 leaves rounded to bfloat16."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, tree)


def _low_module(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Rounds what an `nn.Embed` gathers, a norm scales, and a `nn.Dense` adds its bias to."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, (nn.Embed, nn.Dense, *NORMS)):
        return call(*args, **kwargs)
    if not isinstance(module, nn.Dense):
        return low(call(*args, **kwargs))
    x, kernel = low(args[0]), low(module.get_variable("params", "kernel"))
    out = jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
    if not module.use_bias:
        return out
    return low(out.astype(jnp.float32) + module.get_variable("params", "bias"))


MULTIPLY = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "highest"}


def multiplying(program: Program, precision: Precision) -> Program:
    """The program, all of whose float32 products (model, head, ranking, strategies) are as exact as `precision` says.

    JAX's default is a device's fastest: TensorFloat-32 on GPUs, bfloat16 on TPUs. On a CPU it changes nothing.
    """

    def exact(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            with jax.default_matmul_precision(MULTIPLY[precision]):
                return function(*args)

        return called

    training = ("init", "restart", "begin", "base_epoch", "run_epoch", "validate", "end")
    names = (*training, "rank", "rank_lists", "scores", "represent", "tables", "evaluated")
    functions: Any = {name: exact(each) for name in names if (each := getattr(program, name)) is not None}
    return program._replace(**functions)


@jax.custom_vjp
def product(hidden: Array, table: Array) -> Array:
    """hidden [B, D] @ table [V, D]ᵀ of bfloat16 numbers, added up in float32; so are its two gradients.

    JAX's own gradient would multiply by the float32 cotangent, in float32.
    """
    return jnp.matmul(low(hidden), low(table).T, preferred_element_type=jnp.float32)


def _forward(hidden: Array, table: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(hidden, table), (low(hidden), low(table))


def _backward(kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    (hidden, table), cotangent = kept, low(cotangent)
    return (
        jnp.matmul(cotangent, table, preferred_element_type=jnp.float32),
        jnp.matmul(cotangent.T, hidden, preferred_element_type=jnp.float32),
    )


product.defvjp(_forward, _backward)
