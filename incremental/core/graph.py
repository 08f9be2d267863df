"""Id tables that are computed over the graph of users and items, and the problem that has them.

The edges are data: `Data.side["edges"]` [E, 2] int32 holds the ids (user, item) of the pairs that are in the graph,
each once; rows of zeros are padding. They are not trained and are no part of a state. What is trained are the model's
id tables of the same shapes. Head, strategies and rankings do not know: `settle` computes the tables that they see.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from incremental.core.settling import settling
from incremental.core.types import Params, Problem

EDGES = "edges"
"""the graph's name in `Data.side`"""
SETTLED = "graph"
"""an empty node of parameters whose tables are computed"""
Window = int | Literal["all"]


class Graph(NamedTuple):
    """From the trained tables to those that the model uses.

    Attributes:
        propagate: (users [W, D], items [V, D], edges [E, 2] int32) -> both tables as the model uses them
        window: the increments whose training examples are the edges: the last n, "all" so far, or 0: the base part
        user: path of the users' table in the parameters
        item: path of the items' table
    """

    propagate: Callable[[Array, Array, Array], tuple[Array, Array]]
    window: Window
    user: str = "user/embedding"
    item: str = "item/embedding"


def on_edges(core: Problem, graph: Graph, edges: Array) -> Problem:
    """The problem of `core` whose two tables are computed over these edges [E, 2] int32.

    Its parameters are those of `core`. `settle` puts the computed tables in their places, and an empty node "graph"
    beside them.
    """

    def settle(params: Params) -> Params:
        if SETTLED in params:
            return params
        named = flatten_dict(params, sep="/")
        named[graph.user], named[graph.item] = graph.propagate(named[graph.user], named[graph.item], edges)
        return {**unflatten_dict(named, sep="/"), SETTLED: {}}

    return settling(core, settle, {path: core.tables[path] for path in (graph.user, graph.item)})


def normalised(edges: Array, users: int, items: int) -> Array:
    """[E] float32: 1 / √(d_u d_i) of each edge, d the numbers of edges; 0 of padding."""
    there = (edges[:, 0] > 0).astype(jnp.float32)
    of_user = jax.ops.segment_sum(there, edges[:, 0], users)
    of_item = jax.ops.segment_sum(there, edges[:, 1], items)
    product = of_user[edges[:, 0]] * of_item[edges[:, 1]]
    return there * jax.lax.rsqrt(jnp.maximum(product, 1.0))


def no_edges() -> Any:
    """The shape of a graph, for what is made before there is one."""
    return jax.ShapeDtypeStruct((1, 2), jnp.int32)
