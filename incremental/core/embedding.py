"""Id tables whose rows do not depend on the table's capacity, so that a grown table equals one allocated beforehand."""

from collections.abc import Callable

import jax
from jax import Array


def uniform_rows(limit: float) -> Callable[..., Array]:
    """An initializer: uniform in ±limit, element (i, j) a function of the key and its place only.

    It holds for a fixed width because JAX's partitionable threefry draws by position; so it does for
    `nn.initializers.normal`.
    """

    def init(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jax.numpy.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
