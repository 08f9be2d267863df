"""A model of two tables, its users' and its items', for strategies that compare the vectors of both sides."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from incremental.core.spec import Input
from incremental.core.types import Batch, Catalogue, Data, Learner, Outputs, Problem

NONE: Any = None


def apply(params: Any, inputs: Any, *, key: Any = None) -> Outputs:
    """The users' rows; there is no dropout."""
    assert key is None
    return Outputs(params["user"][inputs["user"]], NONE)


class Items:
    """The other table."""

    def __init__(self, params: Any) -> None:
        self.table = params["item"]


USER = {"user": Input((), jnp.int32, "user")}
PROBLEM = Problem(NONE, apply, NONE, NONE, {}, None, NONE, inputs=USER, items=Items)


def data(t: int, pairs: list[tuple[int, int]]) -> Data:
    """Increment t of (user, item)."""
    user, item = np.array(pairs, np.int32).T
    rows = Batch(NONE, item, NONE, np.ones(len(pairs), bool), np.full(len(pairs), t, np.int32), user)  # type: ignore[arg-type]
    return Data(rows, np.int32(len(pairs)), np.int32(t), NONE, NONE)  # type: ignore[arg-type]


def learner(params: Any, known: Any) -> Learner:
    """A model that knows these users and items."""
    catalogue = Catalogue(known["item"], known["item"], {"user": known["user"]})
    return Learner(jax.tree.map(lambda leaf: jnp.float32(leaf), params), (), catalogue, NONE)
