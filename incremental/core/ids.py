"""Which ids a strategy has met, and which parameters are theirs: an id table has a row an id."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.mirrors import path_of
from incremental.core.types import Learner, Params, Problem


class Ids(NamedTuple):
    """A set of ids of every kind."""

    labels: Array  # [V] bool, of the labels' kind
    others: dict[str, Array]  # [capacity] bool by kind


def nobody(learner: Learner) -> Ids:
    """The empty set."""
    return jax.tree.map(jnp.zeros_like, trained(learner))


def trained(learner: Learner) -> Ids:
    """The ids of the learner's training events; in `begin` those of the upcoming increment are among them. An item that
    is a candidate without an event (data.unseen_items=known) is none of them."""
    return Ids(learner.catalogue.events > 0, learner.catalogue.arrived)


def since(now: Ids, before: Ids) -> Ids:
    """The ids that are in `now` and were not `before`."""
    return jax.tree.map(lambda now, old: now & ~old, now, before)


def of_kind(problem: Problem, ids: Ids, kind: str) -> Array:
    """[capacity] bool: those of one kind."""
    return ids.labels if kind == problem.labels else ids.others[kind]


def rows_of(problem: Problem, params: Params, ids: Ids, *, others: bool) -> Params:
    """Masks that broadcast against the parameters: True in the tables' rows of `ids`, `others` outside the tables."""

    def mask(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        kind = problem.tables.get(path_of(path))
        if kind is None:
            return jnp.full((1,) * leaf.ndim, others)
        return of_kind(problem, ids, kind).reshape(-1, *(1,) * (leaf.ndim - 1))

    return jax.tree_util.tree_map_with_path(mask, params)
