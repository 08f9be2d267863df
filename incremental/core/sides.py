"""Every user's and every item's output, of models that read the user alone."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from incremental.core.types import Params, Problem
from incremental.errors import UserError


class Sides(NamedTuple):
    """Something of all users and of all items: their outputs, or what is kept for them.

    Attributes:
        users: with a leading axis W
        items: with a leading axis V
    """

    users: Any
    items: Any


def outputs(problem: Problem, params: Params, users: int) -> Sides:
    """The hidden vectors [W, D] of the users 0..W-1, W = `users`, and the items' vectors [V, D], both float32."""
    params = problem.settle(params)
    (name,) = problem.inputs
    hidden = problem.apply(params, {name: jnp.arange(users, dtype=jnp.int32)}).hidden
    return Sides(hidden, problem.items(params).table)  # type: ignore[misc]  # `refuse` has seen that it has some


def refuse(name: str, problem: Problem) -> None:
    """A UserError where users or items have no outputs of their own."""
    read = [each.kind for each in problem.inputs.values()]
    if read != ["user"] or any(each.shape for each in problem.inputs.values()):
        raise UserError(
            f"strategies.{name}: the model reads {', '.join(problem.inputs)}, but {name} compares users' vectors, and "
            "needs a model that reads the user alone; choose model=matrix_factorization or model=lightgcn, or leave "
            "the strategy out"
        )
    if problem.items is None:
        raise UserError(
            f"strategies.{name}: the head scores with parameters of its own, but {name} compares the model's item "
            "vectors; choose a head that scores with them, such as head=bpr, or leave the strategy out"
        )
