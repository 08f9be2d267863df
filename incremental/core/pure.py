"""A method of a Linen module, inside its own call, as a function that `jax.lax.cond` and others may trace."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jax import Array


def pure(module: nn.Module, method: str) -> Callable[[Any, Array | None], Any]:
    """`module.method` of (x, key) with the module's present variables; not while they are made."""
    variables, copy = module.variables, module.clone(parent=None)
    return lambda x, key: copy.apply(variables, x, key, method=method)
