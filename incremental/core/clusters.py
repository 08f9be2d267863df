"""k-means on the device (Lloyd 1982), with shapes that do not depend on how many points count."""

import jax
import jax.numpy as jnp
from jax import Array

from incremental.core.order import ordered


def k_means(points: Array, counts: Array, clusters: int, key: Array, *, rounds: int = 100) -> Array:
    """[K, D] float32: centres of those of the `points` [N, D] that count, `counts` [N] bool; K = `clusters`.

    It starts from distinct random points, as far as there are K. A round moves each centre to the mean of its points;
    one without points goes to the next random point. It ends after `rounds`, or where no centre moves by more than
    1e-2 of a point's root mean square. What is drawn for a point depends on its place and the key, not on N.
    """
    total = jnp.maximum(counts.sum(), 1)
    order = ordered(jnp.where(counts, jax.random.uniform(key, counts.shape), 2.0))
    size = jnp.where(counts[:, None], points**2, 0.0).sum() / total

    def drawn(number: Array) -> Array:
        """[K, D]: the random points of a round."""
        return points[order[(number * clusters + jnp.arange(clusters)) % total]]

    def moved(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, centres, _ = carry
        new, full = means(points, nearest(points, centres), counts, clusters)
        new = jnp.where(full[:, None], new, drawn(number))
        return number + 1, new, ((new - centres) ** 2).sum(1).max()

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        number, _, way = carry
        return (number <= rounds) & (way > 1e-4 * size)

    start = jnp.int32(1), drawn(jnp.int32(0)), jnp.float32(jnp.inf)
    return jax.lax.while_loop(goes_on, moved, start)[1]


def nearest(points: Array, centres: Array) -> Array:
    """[N] int32: the number of the centre [K, D] that is nearest to each point [N, D]; the first of equal ones."""
    return jnp.argmin((centres**2).sum(1) - 2.0 * points @ centres.T, axis=1).astype(jnp.int32)


def means(points: Array, members: Array, counts: Array, clusters: int) -> tuple[Array, Array]:
    """The mean [K, D] of the points of each cluster that count, 0 where there is none, and whether there is one [K].

    `members` [N] int32 are the points' clusters.
    """
    own = jnp.where(counts, members, clusters)
    number = jnp.zeros(clusters).at[own].add(1.0, mode="drop")
    total = jnp.zeros((clusters, points.shape[1])).at[own].add(points, mode="drop")
    return total / jnp.maximum(number, 1.0)[:, None], number > 0
