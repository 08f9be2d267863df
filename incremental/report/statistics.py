"""Intervals over seeds, the paired t-test, and Holm's correction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95

# Differences whose spread is below this share of their size are equal: it is rounding, not a seed's noise.
ROUNDING = 1e-12


class Estimate(NamedTuple):
    """Mean over ``n`` seeds, and half the width of its 95 % interval; None where it cannot be had."""

    mean: float | None
    half_width: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and t-interval of ``values`` [n]: half-width t(0.975, n-1) s / √n (Student 1908); None for n = 1.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, half_width=2.484..., n=3)
    """
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]) if n else None, None, n)
    from scipy.special import stdtrit

    error = float(np.std(values, ddof=1)) / n**0.5
    return Estimate(float(np.mean(values)), float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error, n)


def same_difference(differences: Sequence[float]) -> bool:
    """Whether all ``differences`` [n], n ≥ 2, are equal up to rounding, so that t is 0/0 or infinite."""
    return len(differences) > 1 and float(np.ptp(differences)) <= ROUNDING * float(np.max(np.abs(differences)))


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test (Student 1908) from ``differences`` [n], one a seed.

    None for n < 2, and where every seed gives the same difference: then the seeds are no sample of it.

    >>> round(paired_p([1.0, 2.0, 3.0]), 4)
    0.0742
    >>> paired_p([0.5, 0.5]), paired_p([0.5])
    (None, None)
    """
    n = len(differences)
    if n < 2 or same_difference(differences):
        return None
    from scipy.special import stdtr

    t = float(np.mean(differences)) / (float(np.std(differences, ddof=1)) / n**0.5)
    return 2 * float(stdtr(n - 1, -abs(t)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979) of ``p_values`` [m]; None is no comparison and stays None.

    The i-th smallest of m is multiplied by m - i + 1; none is below a smaller one's, none above 1.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        corrected[place] = highest
    return corrected
