"""How many of a memory's slots each label gets: whole numbers that never exceed its rows nor, in all, the capacity.

All functions take `counts` [V] int32 (fewer than 2^29 rows in all), the capacity and a key that breaks ties, for the
lower ids, which are the older items, must not win them. They return [V] int32 that sum to min(capacity, Σ counts);
those of the drawn quotas sum to less where draws exceed a label's rows.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from incremental.errors import UserError

Quotas = Literal["proportional", "balanced", "multinomial", "uniform", "uniform_seen"]
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


def drawn(shares: Array, number: int, key: Array) -> Array:
    """[V] int32: how often each label comes in `number` draws with chances proportional to `shares` [V] int32."""
    upto = jnp.cumsum(shares)
    place = jax.random.randint(key, (number,), 0, jnp.maximum(upto[-1], 1))
    return jnp.zeros_like(shares).at[jnp.searchsorted(upto, place, side="right")].add(1, mode="drop")


def multinomial(counts: Array, capacity: int, key: Array) -> Array:
    """As ADER draws them: C draws with chances n_v / n. What exceeds a label's rows stays empty."""
    return jnp.minimum(drawn(counts, capacity, key), counts)


def uniform(counts: Array, capacity: int, key: Array) -> Array:
    """C draws, each label that has rows as likely. What exceeds its rows stays empty."""
    return uniform_seen(counts, counts > 0, capacity, key)


def uniform_seen(counts: Array, seen: Array, capacity: int, key: Array) -> Array:
    """As ADER-equal's code draws them: C draws, each label of `seen` [V] bool as likely. What exceeds its rows stays
    empty, and so does every draw of a label without rows."""
    return jnp.minimum(drawn(seen.astype(counts.dtype), capacity, key), counts)


KINDS: dict[str, Callable[[Array, int, Array], Array]] = {
    "proportional": proportional,
    "balanced": balanced,
    "multinomial": multinomial,
    "uniform": uniform,
}


def named(kind: Quotas, strategy: str) -> Callable[[Array, Array, int, Array], Array]:
    """The function (counts, seen, capacity, key) of that name; `seen` matters to "uniform_seen" only."""
    if kind == "uniform_seen":
        return uniform_seen
    if kind not in KINDS:
        raise UserError(f"strategies.{strategy}: quotas={kind!r}: expected one of {', '.join(get_args(Quotas))}")
    function = KINDS[kind]
    return lambda counts, _seen, capacity, key: function(counts, capacity, key)
