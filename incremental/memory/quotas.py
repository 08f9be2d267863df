"""How many of a memory's slots each label gets: whole numbers that sum to the capacity and never exceed its rows.

All functions take `counts` [V] int32 (fewer than 2^29 rows in all), the capacity and a key that breaks ties, for the
lower ids, which are the older items, must not win them. They return [V] int32 that sum to min(capacity, Σ counts).
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.errors import UserError

Quotas = Literal["proportional", "balanced", "multinomial"]
BITS = 31


def first_of(order_by: Array, number: Array, key: Array) -> Array:
    """[V] bool: the `number` highest of `order_by` [V] int32, ties at random."""
    order = jnp.lexsort((jax.random.uniform(key, order_by.shape), -order_by))
    return jnp.zeros(order_by.shape, bool).at[order].set(jnp.arange(len(order_by)) < number)


def proportional(counts: Array, capacity: Array | int, key: Array) -> Array:
    """Largest remainder (Hamilton): ⌊C n_v / n⌋ for each label, what is left to the largest remainders."""
    total = counts.sum(dtype=jnp.int32)
    seats = jnp.minimum(capacity, total)

    def bit(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """Long multiplication and division, exact: 32 bits do not hold seats * counts."""
        quotient, rest = carry
        rest = 2 * rest + counts * ((seats >> (BITS - 1 - i)) & 1)
        over = rest // jnp.maximum(total, 1)
        return 2 * quotient + over, rest - over * jnp.maximum(total, 1)

    zeros = jnp.zeros_like(counts)
    quotient, rest = jax.lax.fori_loop(0, BITS, bit, (zeros, zeros))
    return quotient + first_of(rest, seats - quotient.sum(dtype=jnp.int32), key)


def balanced(counts: Array, capacity: Array | int, key: Array) -> Array:
    """The same for every label as far as its rows go: min(n_v, L), and one more for some of those with more rows."""
    seats = jnp.minimum(capacity, counts.sum(dtype=jnp.int32))

    def raised(i: Array, level: Array) -> Array:
        """The highest level that fits, bit by bit."""
        higher = level + (1 << (BITS - 2 - i))
        return jnp.where(jnp.minimum(counts, higher).sum(dtype=jnp.int32) <= seats, higher, level)

    level = jax.lax.fori_loop(0, BITS - 1, raised, jnp.int32(0))
    quota = jnp.minimum(counts, level)
    more = (counts > level).astype(jnp.int32)
    return quota + more * first_of(more, seats - quota.sum(dtype=jnp.int32), key)


def multinomial(counts: Array, capacity: int, key: Array) -> Array:
    """As ADER draws them: C draws with chances n_v / n. What exceeds a label's rows goes to the others in proportion to
    the rows they have left, where the authors' code leaves those slots empty."""
    draw_key, rest_key = jax.random.split(key)
    upto = jnp.cumsum(counts)
    row = jax.random.randint(draw_key, (capacity,), 0, jnp.maximum(upto[-1], 1))
    drawn = jnp.zeros_like(counts).at[jnp.searchsorted(upto, row, side="right")].add(1)
    quota = jnp.minimum(drawn, counts)
    return quota + proportional(counts - quota, capacity - quota.sum(dtype=jnp.int32), rest_key)


KINDS: dict[str, Callable[[Array, int, Array], Array]] = {
    "proportional": proportional,
    "balanced": balanced,
    "multinomial": multinomial,
}


def named(kind: Quotas, strategy: str) -> Callable[[Array, int, Array], Array]:
    """The function of that name."""
    if kind not in KINDS:
        raise UserError(f"strategies.{strategy}: quotas={kind!r}: expected one of {', '.join(get_args(Quotas))}")
    return KINDS[kind]
