"""Permuted MNIST: each task shows all digits, its pixels in an order of its own. One task is in memory at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.split_mnist.digits import Digits, rows
from incremental.core.types import Data

SEED = 1234  # of the permutations and of the order of the images


class Stream(NamedTuple):
    """The two parts of MNIST and the orders of their pixels."""

    train: Digits
    test: Digits
    pixels: np.ndarray  # [T, 784] int, a permutation each

    def trained(self, t: int) -> Data:
        """The training images of task t, in an order of its own."""
        return of(self.train, self.pixels[t], t, np.random.default_rng((SEED, t)).permutation(len(self.train.digits)))

    def tested(self, t: int) -> Data:
        """The test images of task t."""
        return of(self.test, self.pixels[t], t, np.arange(len(self.test.digits)))

    def joint(self) -> Data:
        """The training images of all tasks as one task: T times their bytes."""
        images = np.concatenate([self.train.images[:, pixels] for pixels in self.pixels])
        shown = np.tile(self.train.digits, len(self.pixels))
        return rows(Digits(images, shown), range(10), 0, "class", len(shown))


def stream(train: Digits, test: Digits, tasks: int) -> Stream:
    """`tasks` uniform permutations, the first task's too."""
    rng = np.random.RandomState(SEED)
    return Stream(train, test, np.stack([rng.permutation(train.images.shape[1]) for _ in range(tasks)]))


def of(digits: Digits, pixels: np.ndarray, t: int, order: np.ndarray) -> Data:
    """The images in this order, their pixels in that one, as increment t."""
    return rows(Digits(digits.images[order][:, pixels], digits.digits[order]), range(10), t, "class", len(order))


def piece(data: Data, start: int, stop: int) -> Data:
    """The rows `start` to `stop` of an increment, to train on as a part of its one epoch; of the increment's shapes, so
    that all parts share a program."""
    size: Any = jnp.int32(stop - start)
    return data._replace(rows=jax.tree.map(lambda leaf: np.roll(leaf, -start, 0), data.rows), size=size)
