from functools import partial
from typing import Any

import jax
import numpy as np

from incremental.core.clusters import k_means, means, nearest

RNG = np.random.default_rng(0)
CORNERS = np.array([[0, 0], [9, 0], [0, 9]], np.float32)
POINTS = (np.repeat(CORNERS, 5, axis=0) + RNG.normal(scale=0.1, size=(15, 2))).astype(np.float32)
ALL = np.ones(15, bool)


@partial(jax.jit, static_argnames="clusters")
def clustered(points: Any, counts: Any, seed: Any, clusters: int = 3) -> Any:
    centres = k_means(points, counts, clusters, jax.random.key(seed))
    members = nearest(points, centres)
    return centres, members, *means(points, members, counts, clusters)


def test_centres_are_the_means_of_their_points_and_points_are_with_the_nearest() -> None:
    found = 0
    for seed in range(8):
        centres, members, mean, full = map(np.asarray, clustered(POINTS, ALL, seed))
        assert full.all()
        np.testing.assert_allclose(centres, mean, atol=0.05)
        way = ((POINTS[:, None] - centres) ** 2).sum(2)
        np.testing.assert_array_equal(members, way.argmin(1))
        found += len({*members[::5].tolist()}) == 3
    assert found >= 5  # two starts in one corner may stay there


def test_points_that_do_not_count_and_room_for_more_change_nothing() -> None:
    few = np.arange(15) < 10
    spoilt = np.where(few[:, None], POINTS, 77.0).astype(np.float32)
    np.testing.assert_array_equal(clustered(POINTS, few, 1)[0], clustered(spoilt, few, 1)[0])
    longer, counts = np.pad(POINTS, ((0, 5), (0, 0))), np.pad(ALL, (0, 5))
    np.testing.assert_allclose(clustered(longer, counts, 1)[0], clustered(POINTS, ALL, 1)[0], atol=1e-6)


def test_fewer_points_than_clusters() -> None:
    centres, members, mean, full = map(np.asarray, clustered(POINTS, np.arange(15) < 2, 0))
    assert np.isfinite(centres).all()
    assert full.sum() == 2
    np.testing.assert_allclose(mean[members[:2]], POINTS[:2])
    np.testing.assert_array_equal(mean[~full], 0.0)
    assert np.isfinite(np.asarray(clustered(POINTS, np.zeros(15, bool), 0)[0])).all()


def test_a_centre_without_points_goes_to_a_random_one() -> None:
    """Nine points in one place and one in another: two starts in the first place leave one centre without points."""
    points = np.where(np.arange(10)[:, None] < 9, 1.0, 5.0) * np.ones(2, np.float32)
    means = [np.asarray(clustered(points, np.ones(10, bool), seed, 2)[2]) for seed in range(20)]
    started = sum(1 for seed in range(20) if 9 in drawn_first(seed))
    assert sum(5.0 in mean for mean in means) > started + 4


def drawn_first(seed: int) -> set[int]:
    """The places of the first two centres of ten points."""
    return {*np.argsort(jax.random.uniform(jax.random.key(seed), (10,)))[:2].tolist()}
