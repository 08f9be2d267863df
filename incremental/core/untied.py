"""What heads with parameters of their own share: who is new to them, and what they cannot be combined with."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.types import Catalogue, Data, Params, PyTree
from incremental.errors import UserError

REMEDY = "choose a head that scores with the model's items (full_softmax, chunked_softmax, sampled_softmax, ...)"


def trained_before(catalogue: Catalogue, data: Data) -> Array:
    """[V] bool: the items with events before those that `data` brings; after a fresh start none."""
    arrived = jnp.zeros_like(catalogue.events).at[data.events].add(1.0)
    return catalogue.seen & (catalogue.events > arrived)


def refuse_without_view(head: str, own: Params, added: str) -> None:
    """The loss outside a training step, as an importance or a projection takes it, lacks what the view adds."""
    if added not in own:
        raise UserError(
            f"head={head} reads the items' places from its own state, which a strategy that takes the loss of the "
            f"model's parameters by themselves (EWC and its kin, OGD, ...) cannot give it; {REMEDY}, or leave it out"
        )


def refuse_copies(params: Params, states: PyTree) -> None:
    """A strategy's copy of the head's parameters would stay behind when items change places, and biases with them."""
    if "head" not in params:
        return
    names = {f"head/{name}" for name in params["head"]}
    for strategy, state in states.items():
        if strategy == "head":
            continue
        for path, _ in jax.tree_util.tree_leaves_with_path(state):
            place = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
            if any(place.endswith("/" + name) for name in names):
                raise UserError(
                    f"strategies.{strategy} keeps something for each of the head's own parameters ({place[1:]}), but "
                    f"items change their places there from increment to increment; {REMEDY}, or another strategy"
                )
