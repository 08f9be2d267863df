"""BPR as a bare XLA program: the step's arithmetic and nothing else, to see what XLA allows (`benchmark_peers`).

It has the tables, look-ups, gradients, sums into the tables and AdaGrad of matrix factorisation with one negative an
example. It has no order of an epoch: an example is drawn with replacement, as in implicit. It has no exact numbers of
draws, no masks, no losses, no books and no strategies.

What was tried and is slower on a CPU: rows that are kept for the gradient in place of looked up twice, for they do not
stay in the cache; batches of half and twice the size; unrolled steps; ids in ascending order; JAX's own generators. One
sum into the items' table for labels and negatives together is as fast as two.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.mixing import mixed

RATE, START, LEAST = 0.1, 0.1, 1e-7  # AdaGrad's, as in `incremental.core.optimizers`
LIMIT = 0.05  # of the tables' uniform start
BATCH = 4096  # or the next size that divides the examples


class Tables(NamedTuple):
    """A row an id, float32."""

    user: Array  # [W, D]
    item: Array  # [V, D]
    bias: Array  # [V]


class Carry(NamedTuple):
    """What a step changes."""

    tables: Tables
    squares: Tables  # AdaGrad's sums


def below(number: Array, size: int) -> Array:
    """[n] uint32 -> [n] int32 in 0..size-1."""
    return ((number >> 8).astype(jnp.float32) * (size / 2**24)).astype(jnp.int32)


def look_up(table: Array, ids: Array) -> Array:
    return table.at[ids].get(mode="promise_in_bounds")


def added(table: Array, ids: Array, rows: Array) -> Array:
    return table.at[ids].add(rows, mode="promise_in_bounds")


def moved(table: Array, square: Array, gradient: Array) -> tuple[Array, Array]:
    square = square + gradient * gradient
    return table - RATE * gradient * jax.lax.rsqrt(square + LEAST), square


class Bare:
    """The program for pairs of `user` and `item` [N] int32 and tables of W and V rows, its `shape`; `negatives` [M]
    int32 are the items that may be one."""

    def __init__(self, user: Any, item: Any, negatives: Any, shape: tuple[int, int], width: int, epochs: int) -> None:
        self.size, self.shape, self.width, self.epochs = len(user), shape, width, epochs
        self.steps = max(1, round(self.size / BATCH))
        self.batch = self.size // self.steps
        self.data = tuple(jnp.asarray(ids, jnp.int32) for ids in (user, item, negatives))
        shapes = jax.eval_shape(self.start, 0)
        self.compiled = jax.jit(self.trained, donate_argnums=0).lower(shapes, jnp.uint32(0), *self.data).compile()

    def start(self, seed: int) -> Carry:
        keys = jax.random.split(jax.random.key(seed))
        user, item = (
            jax.random.uniform(key, (rows, self.width), minval=-LIMIT, maxval=LIMIT)
            for key, rows in zip(keys, self.shape, strict=True)
        )
        made = Tables(user, item, jnp.zeros(self.shape[1]))
        return Carry(made, jax.tree.map(lambda table: jnp.full_like(table, START), made))

    def trained(self, carry: Carry, seed: Array, user: Array, item: Array, negatives: Array) -> Carry:
        """All epochs, in one program."""

        def step(carry: Carry, number: Array) -> tuple[Carry, None]:
            tables = carry.tables
            place = number * self.batch + jnp.arange(self.batch, dtype=jnp.uint32)
            draws = [mixed(2 * place + seed + turn) for turn in (0, 1)]
            row = below(draws[0], len(user))
            ids = look_up(user, row), look_up(item, row), look_up(negatives, below(draws[1], len(negatives)))

            def rows(ids: tuple[Array, Array, Array]) -> tuple[Array, Array]:
                of_user, label, negative = ids
                return look_up(tables.user, of_user), look_up(tables.item, label) - look_up(tables.item, negative)

            hidden, difference = rows(ids)
            _, label, negative = ids
            margin = ((hidden * difference) @ jnp.ones((self.width, 1)))[:, 0]
            margin += look_up(tables.bias, label) - look_up(tables.bias, negative)
            slope = jnp.where(label != negative, -jax.nn.sigmoid(-margin), 0.0) / self.batch
            hidden, difference = rows(jax.lax.optimization_barrier(ids))  # again
            of_rows = slope[:, None] * hidden
            empty = jax.tree.map(jnp.zeros_like, tables)
            gradients = Tables(
                added(empty.user, ids[0], slope[:, None] * difference),
                added(added(empty.item, label, of_rows), negative, -of_rows),
                added(added(empty.bias, label, slope), negative, -slope),
            )
            pairs = [moved(*each) for each in zip(tables, carry.squares, gradients, strict=True)]
            return Carry(*(Tables(*each) for each in zip(*pairs, strict=True))), None

        numbers = jnp.arange(self.steps * self.epochs, dtype=jnp.uint32)
        return jax.lax.scan(step, carry, numbers)[0]

    def train(self, seed: int) -> tuple[Carry, int]:
        """From the start: the tables, and how many examples it took."""
        carry = self.compiled(self.start(seed), jnp.uint32(seed * 0x9E3779B9 % 2**32), *self.data)
        return jax.block_until_ready(carry), self.epochs * self.steps * self.batch
