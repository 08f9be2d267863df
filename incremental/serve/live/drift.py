"""Detectors of drift: numbers come one by one, and one of them says that the law behind them is another by now.

A detector is made anew after each alarm, and after each cut. Its state is plain numbers.
"""

import math
from collections.abc import Callable
from typing import Annotated, Protocol

import numpy as np
from annotated_types import Ge

from incremental.domains import Count, InnerShare, NotNegative, Positive, Whole, checked


class Detector(Protocol):
    """Watches numbers."""

    @property
    def value(self) -> float:
        """What is compared with `limit`."""
        ...

    @property
    def limit(self) -> float:
        """From where on it is an alarm."""
        ...

    def update(self, x: float) -> bool:
        """Takes the next number; whether it is an alarm."""
        ...


Make = Callable[[], Detector]


class PageHinkley:
    """A fall of the mean. With the running mean m̄ of n numbers, S ← α S + (x - m̄ + δ) and M = max S: an alarm where
    M - S > λ (Page, Biometrika 41, 1954; Hinkley, Biometrika 58, 1971; α forgets)."""

    def __init__(self, delta: float, threshold: float, alpha: float, least: int) -> None:
        self.delta, self.limit, self.alpha, self.least = delta, threshold, alpha, least
        self.number, self.mean, self.sum, self.most = 0, 0.0, 0.0, -1.0

    @property
    def value(self) -> float:
        return self.most - self.sum

    def update(self, x: float) -> bool:
        """See `Detector`."""
        self.number += 1
        self.mean += (x - self.mean) / self.number
        self.sum = self.alpha * self.sum + (x - self.mean) + self.delta
        self.most = max(self.most, self.sum)
        return self.number >= self.least and self.value > self.limit


@checked
def page_hinkley(
    *, delta: NotNegative = 0.02, threshold: Positive = 20.0, alpha: InnerShare = 0.9999, least: Count = 30
) -> Make:
    """`PageHinkley`. `delta`: what a number may lie below the mean unnoticed. `threshold`: λ, in sums of what the
    metric falls by: after a fall of 0.12 that is 200 events. `alpha`: forgets. `least`: numbers before an alarm."""
    return lambda: PageHinkley(delta, threshold, alpha, least)


class Adwin:
    """A change of the mean between an older and a newer part of all numbers since the last alarm, however they are cut
    (Bifet & Gavaldà, SDM 2007, section 4: ADWIN2).

    The window is kept as buckets: of a level i each has the sum and the variance · size of 2^i numbers; a level of more
    than `buckets` merges its two oldest. Every `clock` numbers each border between two buckets is tried: with n0 and n1
    numbers at its sides, h = 1/(n0 - k + 1) + 1/(n1 - k + 1), k = `least`, and d = ln(2 ln(n) / δ), an alarm is
    |m0 - m1| > √(2 h σ² d) + 2/3 h d.
    """

    def __init__(self, delta: float, clock: int, buckets: int, least: int, grace: int) -> None:
        self.delta, self.clock, self.buckets, self.least, self.grace = delta, clock, buckets, least, grace
        self.number, self.total, self.spread = 0, 0.0, 0.0  # of all numbers; spread: variance · number
        self.levels: list[list[tuple[float, float]]] = [[]]  # the oldest bucket of a level first
        self.value = self.limit = 0.0  # of the border that came closest to an alarm

    def update(self, x: float) -> bool:
        """See `Detector`."""
        self.number += 1
        if self.number > 1:
            self.spread += (self.number - 1) * (x - self.total / (self.number - 1)) ** 2 / self.number
        self.total += x
        self.levels[0].append((x, 0.0))
        self._merge()
        return self.number % self.clock == 0 and self.number > self.grace and self._changed()

    def _merge(self) -> None:
        """Two buckets of a full level become one of the next."""
        for level, own in enumerate(self.levels):
            if len(own) <= self.buckets:
                return
            (one, spread), (other, more) = own[0], own[1]
            del own[:2]
            if level + 1 == len(self.levels):
                self.levels.append([])
            self.levels[level + 1].append((one + other, spread + more + between(2**level, one, 2**level, other)))

    def _changed(self) -> bool:
        """Whether any border has another mean on its other side."""
        number, total, variance = 0, 0.0, self.spread / self.number
        d = math.log(2 * math.log(self.number) / self.delta)
        buckets = [(2**level, own) for level in reversed(range(len(self.levels))) for own, _ in self.levels[level]]
        self.value, self.limit, closest = 0.0, 0.0, -np.inf
        for size, own in buckets[:-1]:
            number, total = number + size, total + own
            rest = self.number - number
            if number < self.least or rest < self.least:
                continue
            h = 1 / (number - self.least + 1) + 1 / (rest - self.least + 1)
            limit = math.sqrt(2 * h * variance * d) + 2 / 3 * d * h
            value = abs(total / number - (self.total - total) / rest)
            if value - limit > closest:
                self.value, self.limit, closest = value, limit, value - limit
        return closest > 0


def between(n: int, total: float, m: int, other: float) -> float:
    """What two groups' means add to the spread of both together."""
    return n * m * (total / n - other / m) ** 2 / (n + m)


@checked
def adwin(
    *,
    delta: InnerShare = 0.002,
    clock: Count = 32,
    buckets: Annotated[int, Ge(2)] = 5,
    least: Count = 5,
    grace: Whole = 10,
) -> Make:
    """`Adwin`. `delta`: δ, how often a false alarm may come. `clock`: a test every so many numbers. `buckets`: of one
    size. `least`: numbers on each side of a border. `grace`: numbers before the first test."""
    return lambda: Adwin(delta, clock, buckets, least, grace)
