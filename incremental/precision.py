"""bfloat16 compute with float32 master weights (Kalamkar et al. 2019, arXiv 1905.12322).

Parameters, gradients, moments and strategies' states stay float32; losses and rankings read float32. Inside the model
the parameters are rounded to bfloat16, those of id tables row by row behind their gather: no whole table is rounded,
and the gradients of a row that occurs often in a batch add up in float32. bfloat16 has float32's range, so a loss needs
no scaling.
"""

from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.types import Params, PyTree

Precision = Literal["float32", "bfloat16"]


class Arithmetic(NamedTuple):
    """How a model is computed; both functions return float32."""

    apply: Callable[[nn.Module, Params, dict[str, Array], Array | None], Array]
    """(module, params, inputs, key) -> hidden [B, D]"""
    product: Callable[[Array, Array], Array]
    """(hidden [B, D], table [V, D]) -> [B, V]"""


def arithmetic(precision: Precision, tables: Collection[str]) -> Arithmetic:
    """The arithmetic of `precision`; `tables` are the paths of the id tables, which must be `nn.Embed`s to be read."""
    if precision == "float32":
        return Arithmetic(
            lambda module, params, inputs, key: module.apply({"params": params}, inputs, key),
            lambda hidden, table: hidden @ table.T,
        )

    def apply(module: nn.Module, params: Params, inputs: dict[str, Array], key: Array | None) -> Array:
        named = flatten_dict(params, sep="/")
        params = unflatten_dict({path: leaf if path in tables else low(leaf) for path, leaf in named.items()}, sep="/")
        with nn.intercept_methods(_low_rows):
            hidden: Any = module.apply({"params": params}, low(inputs), key)
        return hidden.astype(jnp.float32)

    return Arithmetic(apply, product)


def low(tree: PyTree) -> PyTree:
    """Its float32 leaves rounded to bfloat16."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, tree)


def _low_rows(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Rounds what an `nn.Embed` gathers."""
    rows = call(*args, **kwargs)
    return low(rows) if isinstance(context.module, nn.Embed) and context.method_name == "__call__" else rows


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
