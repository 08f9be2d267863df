"""Id tables whose rows do not depend on the table's capacity, so that a grown table equals one allocated beforehand."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Rows(nn.Embed):
    """An id table. Ids are in range: `nn.Embed` looks for those that are not by a pass over all rows that it found."""

    def __call__(self, inputs: Array) -> Array:
        """Ids [...] int -> rows [..., D]."""
        return jnp.take(self.embedding, inputs, axis=0, mode="clip")


def uniform_rows(limit: float) -> Callable[..., Array]:
    """An initializer: uniform in ±limit, element (i, j) a function of the key and its place only.

    It holds for a fixed width because JAX's partitionable threefry draws by position; so it does for
    `nn.initializers.normal`.
    """

    def init(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jax.numpy.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
