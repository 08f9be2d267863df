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
    had = jnp.zeros((sizes["user"], -(-sizes.slots // 8)), jnp.uint8)
    return {"shared": jnp.zeros((sizes.slots, sizes.slots)), "had": had}


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
    """`shared` [V, V] float32 and `had`, X with a bit a cell [W, V/8] uint8, with the update's events.

    XᵀX changes by Σ_u x'x'ᵀ - xxᵀ over the users of the new events, x the row of u before and x' that with the new
    ones. The rows are kept whole: a history ends, and XᵀX without the pairs that it lacks may have eigenvalues below 0.
    """
    events, slots = arrived(data), len(params["shared"])

    def add(n: Array, counted: tuple[Array, Array]) -> tuple[Array, Array]:
        shared, had = counted
        ids, new = block(events, n, USERS, slots)
        before = jnp.unpackbits(had[ids], axis=1, count=slots).astype(jnp.float32)
        now = jnp.maximum(before, (new > 0).astype(jnp.float32))
        return shared + now.T @ now - before.T @ before, had.at[ids].set(jnp.packbits(now > 0, axis=1))

    shared, had = jax.lax.fori_loop(0, blocks(events, USERS), add, (params["shared"], params["had"]))
    return {"shared": shared, "had": had}
