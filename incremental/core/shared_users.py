"""How many users each two items share, counted from update to update: the Gram matrix XᵀX of the binary user-item
matrix X."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.spec import Sizes
from incremental.core.types import Data, Params
from incremental.core.user_rows import arrived, block, blocks
from incremental.errors import UserError

USERS = 256  # of a block


def nothing(sizes: Sizes) -> Params:
    """No event yet."""
    return {"shared": jnp.zeros((sizes.slots, sizes.slots)), "met": jnp.zeros(sizes["user"], bool)}


def refuse_large(sizes: Sizes, limit: int, matrices: int) -> None:
    """A UserError for a catalogue whose square is above `limit`; the model holds `matrices` [V, V] float32."""
    cells = sizes.slots**2
    if cells > limit:
        raise UserError(
            f"model: {sizes.slots} items make a matrix of {cells} cells, above model.limit={limit}; the model holds "
            f"{matrices} of them, {matrices * 4 * cells / 1e9:.1f} GB; choose a smaller stream or model=cooccurrence, "
            "or raise the limit if that fits into memory a few times"
        )


def with_new(params: Params, data: Data) -> Params:
    """`shared` [V, V] float32 and `met` [W] bool with the update's events.

    XᵀX changes by Σ_u x'x'ᵀ - xxᵀ over the users of the new events, x the items of u before and x' those with the new
    ones. x is read from the history of u's first example of this update, so it is exact while a user has at most
    data.history events before an update; what the update itself brings is exact. Of events of one time that a cut
    divides the earlier ones are in no history, nor in x.
    """
    events, history, slots = arrived(data), data.rows.inputs["history"], len(params["shared"])
    rows, users = jnp.arange(len(history)), len(params["met"])
    real = rows < data.size
    first = jnp.full(users, len(history)).at[jnp.where(real, data.rows.owner, users)].min(rows, mode="drop")

    # New events at the time of u's very first one are no examples: they end that history, and are not from before.
    own = jnp.zeros(users, jnp.int32).at[data.arrived["user"]].add(1)
    ahead = own - jnp.zeros_like(own).at[jnp.where(real, data.rows.owner, users)].add(1, mode="drop")
    place = history.shape[1] - jnp.arange(history.shape[1])

    def add(n: Array, shared: Array) -> Array:
        ids, new = block(events, n, USERS, slots)
        there = (params["met"][ids] & (first[ids] < len(history)))[:, None] & (place > ahead[ids][:, None])
        items = jnp.where(there, history[jnp.minimum(first[ids], len(history) - 1)], 0)
        before = jnp.zeros_like(new).at[jnp.arange(USERS)[:, None], items].set(1.0).at[:, 0].set(0.0)
        now = jnp.maximum(before, (new > 0).astype(jnp.float32))
        return shared + now.T @ now - before.T @ before

    shared = jax.lax.fori_loop(0, blocks(events, USERS), add, params["shared"])
    met = params["met"].at[data.arrived["user"]].set(True).at[0].set(False)
    return {"shared": shared, "met": met}
