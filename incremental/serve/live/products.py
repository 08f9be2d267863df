"""A function whose products are computed for themselves: one row times a large table is several times as fast."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.extend import core
from jax.extend.core import primitives


def apart(function: Callable[..., Array]) -> Callable[..., Array]:
    """The same function, to be traced: XLA fuses none of its products with what is done to them.

    Of one row [1, D] times a table [V, D]ᵀ plus a bias XLA's CPU compiler makes one loop, and for that one it writes
    the transposed table first, at each request. The product alone reads the table as it lies.
    """

    def called(*args: Any) -> Array:
        jaxpr = jax.make_jaxpr(function)(*args)
        (found,) = evaluated(jaxpr, jax.tree.leaves(args))
        return found

    return called


def evaluated(jaxpr: core.ClosedJaxpr, given: list[Any]) -> list[Any]:
    """What a traced function returns, each of its products behind a barrier; those of loops and branches are as are."""
    values: dict[core.Var, Any] = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    values.update(zip(jaxpr.jaxpr.invars, given, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        own = [value(each) for each in equation.invars]
        primitive, params = equation.primitive, equation.params
        if primitive is primitives.jit_p:
            found = evaluated(params["jaxpr"], own)
        else:
            found = primitive.bind(*own, **primitive.get_bind_params(params))
            found = found if primitive.multiple_results else [found]
        if primitive is primitives.dot_general_p:
            found = jax.lax.optimization_barrier(found)
        values.update(zip(equation.outvars, found, strict=True))
    return [value(each) for each in jaxpr.jaxpr.outvars]
