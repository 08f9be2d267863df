"""Continual-learning metrics: numbers that sum up how quality develops over a stream of increments.

Everything here starts from two float64 arrays, with T the number of increments:

- ``R`` [T, T]: ``R[i, j]`` is a quality metric (NDCG@K, Recall@K ...) on the held-out part of increment j
  after training on increment i;
- ``b`` [T]: ``b[j]`` is the same metric on increment j before any training.

The formulas count increments from 1, as the papers do; the arrays count from 0, and so do the files of a
run, where 0 is the base part. So the base part is the formulas' increment 1, and a run with increments 1..N
has T = N + 1.

NaN (or an infinity) means *not measured*. A metric that needs an entry which was not measured is None,
never 0. The same names mean different numbers elsewhere: see each function's formula.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

HELD_OUT = "heldout/"
ERROR = "/standard_error"


# One row of evaluations.csv: (trained_until, evaluated_on, metric, value, count). The first two count
# increments, 0 being the base part; trained_until = -1 is before any training. value is a mean over count.
Evaluation = tuple[int, int, str, float, int]


def final_average(R: ArrayLike) -> float | None:
    """(1/T) Σ_j R[T, j] of R [T, T]; Lopez-Paz & Ranzato 2017, arXiv 1706.08840."""
    return _mean(_square(R)[-1])


def average_incremental(R: ArrayLike) -> float | None:
    """(1/T) Σ_i (1/i) Σ_{j≤i} R[i, j] of R [T, T]; iCaRL 2017, arXiv 1611.07725."""
    matrix = _square(R)
    return anytime_average(matrix, np.arange(1, len(matrix) + 1))


def anytime_average(quality: ArrayLike, seen: ArrayLike | None = None) -> float | None:
    """Mean over evaluation times of the mean over increments seen so far; De Lange 2023, 2205.13452.

    ``quality`` [N, T] has one row for each of N evaluation times, ``seen`` [N] says how many increments had
    begun by then. By default the times are the ends of the increments (N = T, seen = 1..T), where the
    number equals :func:`average_incremental`; it differs when a model is also evaluated within increments.
    """
    rows = _measured(quality)
    counts = np.arange(1, len(rows) + 1) if seen is None else np.asarray(seen, dtype=np.int64)
    return _mean(np.array([np.mean(row[:count]) for row, count in zip(rows, counts, strict=True)]))


def learning_accuracy(R: ArrayLike) -> float | None:
    """(1/T) Σ_j R[j, j] of R [T, T]: how well each increment is learnt; Riemer 2019, arXiv 1810.11910."""
    return _mean(np.diag(_square(R)))


def learning_average(R: ArrayLike) -> float | None:
    """R[T, T] of R [T, T]: the newest increment after training on it; plasticity. Lee et al. 2024, arXiv 2405.19046.

    Of the last update alone, where :func:`learning_accuracy` is the mean over all of them. The pair after an earlier
    update k is that of R[1..k, 1..k].
    """
    return _mean(_square(R)[-1, -1:])


def retained_average(R: ArrayLike) -> float | None:
    """1/(T-1) Σ_{j<T} R[T, j] of R [T, T]: the past increments at the end; stability. Lee et al. 2024.

    Together with :func:`learning_average` it is the last row of R in two parts. None where T = 1.
    """
    return _mean(_square(R)[-1, :-1])


def harmonic_mean(R: ArrayLike) -> float | None:
    """2 a b / (a + b) of R [T, T], a and b the learning and the retained average; Lee et al. 2024. None where T = 1.

    The H-mean: high only where both are. 0 where both are 0.
    """
    learnt, kept = learning_average(R), retained_average(R)
    if learnt is None or kept is None:
        return None
    return 2 * learnt * kept / (learnt + kept) if learnt + kept else 0.0


def backward_transfer(R: ArrayLike) -> float | None:
    """1/(T-1) Σ_{j<T} (R[T, j] - R[j, j]) of R [T, T]; Lopez-Paz & Ranzato 2017. None where T = 1."""
    matrix = _square(R)
    return _mean((matrix[-1] - np.diag(matrix))[:-1])


def forward_transfer(R: ArrayLike, b: ArrayLike) -> float | None:
    """1/(T-1) Σ_{j>1} (R[j-1, j] - b[j]) of R [T, T], b [T]; Lopez-Paz & Ranzato 2017. None where T = 1."""
    before = _measured(b)
    return _mean(np.diag(_square(R), k=1) - before[1:])


def forgetting(R: ArrayLike) -> float | None:
    """Mean over j<T of max_{l in j..T-1} R[l, j] - R[T, j] of R [T, T]. None where T = 1.

    Ours: only rows after j was trained on count, so that a lucky score before j is not a thing to forget.
    Positive means that quality was lost.
    """
    matrix = _square(R)
    best = np.array([np.max(matrix[j:-1, j]) for j in range(len(matrix) - 1)])
    return _mean(best - matrix[-1, :-1])


def forgetting_chaudhry(R: ArrayLike) -> float | None:
    """Mean over j<T of max_{l in 1..T-1} R[l, j] - R[T, j] of R [T, T]; Chaudhry 2018, arXiv 1801.10112.

    Equal to :func:`forgetting` where rows before j are lower. None where T = 1.
    """
    matrix = _square(R)
    if len(matrix) == 1:
        return None
    return _mean(np.max(matrix[:-1, :-1], axis=0) - matrix[-1, :-1])


def intransigence(R: ArrayLike, joint: ArrayLike, k: int | None = None) -> float | None:
    """a*_k - R[k, k] of R [T, T] and ``joint`` = a* [T]; Chaudhry 2018, arXiv 1801.10112.

    a*_k is the quality on increment k of a model trained jointly on 1..k. ``k`` counts from 1; by default
    it is T. A run trains no such model, so that its summary has None: this function is for an a* from elsewhere.
    """
    matrix = _square(R)
    last = len(matrix) if k is None else k
    if not 1 <= last <= len(matrix):
        raise ValueError(f"k counts increments from 1 to {len(matrix)}, got {k}")
    return _mean(_measured(joint)[last - 1 : last] - matrix[last - 1, last - 1])


def prequential(R: ArrayLike) -> float | None:
    """1/(T-1) Σ_{j>1} R[j-1, j] of R [T, T]: test, then train; None where T = 1.

    Gama 2013, "On evaluating stream learning algorithms". A run measures its prequential curve on the whole
    of each increment, not on the held-out part: :func:`summarise` averages that curve, and this function is
    for a matrix from elsewhere.
    """
    return _mean(np.diag(_square(R), k=1))


def slope(values: ArrayLike) -> float | None:
    """Least-squares slope per increment of a curve ``values`` [T]; None with fewer than two measured points.

    Points that were not measured are left out, and the others keep their place on the axis.
    """
    curve = np.asarray(values, dtype=np.float64)
    measured = np.isfinite(curve)
    if measured.sum() < 2:
        return None
    x = np.flatnonzero(measured).astype(np.float64)
    x -= x.mean()
    return float(x @ (curve[measured] - curve[measured].mean()) / (x @ x))


FROM_MATRIX: Mapping[str, Callable[[Array], float | None]] = {
    "final_average": final_average,
    "average_incremental": average_incremental,
    "anytime_average": anytime_average,
    "learning_accuracy": learning_accuracy,
    "learning_average": learning_average,
    "retained_average": retained_average,
    "harmonic_mean": harmonic_mean,
    "backward_transfer": backward_transfer,
    "forgetting": forgetting,
    "forgetting_chaudhry": forgetting_chaudhry,
    "prequential": prequential,
}


def summary(R: ArrayLike, b: ArrayLike, joint: ArrayLike | None = None) -> dict[str, float | None]:
    """Every metric of R [T, T], b [T] and, where given, a* ``joint`` [T]; None where not measured.

    >>> R = [[.90, .70, .10], [.95, .50, .20], [.75, .60, .85]]
    >>> numbers = summary(R, [.10, .15, .05])
    >>> {name: round(numbers[name], 4) for name in ("learning_accuracy", "backward_transfer", "forgetting")}
    {'learning_accuracy': 0.75, 'backward_transfer': -0.025, 'forgetting': 0.05}
    """
    matrix = _square(R)
    numbers = {name: formula(matrix) for name, formula in FROM_MATRIX.items()}
    numbers["forward_transfer"] = forward_transfer(matrix, b)
    numbers["intransigence"] = None if joint is None else intransigence(matrix, joint)
    return numbers


class Matrices(NamedTuple):
    """What a run measured of one metric, float64, NaN where not measured; N increments follow the base."""

    prequential: Array  # [N]: on the whole of increments 1..N, each before training on it
    R: Array  # [N + 1, N + 1]: on held-out parts, the base part first
    b: Array  # [N + 1]: on held-out parts before any training


def matrices(evaluations: Iterable[Evaluation], metric: str) -> Matrices:
    """Sort a run's evaluations of ``metric`` (named without ``heldout/``) into the curve, R and b.

    A row named ``metric`` with ``trained_until`` = ``evaluated_on`` - 1 is a point of the prequential
    curve; one named ``heldout/`` + ``metric`` is an entry of R, or of b where ``trained_until`` is -1;
    other rows do not belong to either. N is the highest increment in any of the evaluations, so that all
    metrics of a run have the same shapes.
    """
    rows = list(evaluations)
    last = max((max(trained, on) for trained, on, *_ in rows), default=0)
    found = Matrices(np.full(last, np.nan), np.full((last + 1, last + 1), np.nan), np.full(last + 1, np.nan))
    known: set[tuple[int, int, str]] = set()
    for trained_until, evaluated_on, name, value, _ in rows:
        if name not in (metric, HELD_OUT + metric):
            continue
        if (trained_until, evaluated_on, name) in known:
            raise ValueError(f"{name} on increment {evaluated_on} after {trained_until} was measured twice")
        known.add((trained_until, evaluated_on, name))
        if name == HELD_OUT + metric:
            target = found.b if trained_until == -1 else found.R[trained_until]
            target[evaluated_on] = value
        elif trained_until == evaluated_on - 1 and evaluated_on >= 1:
            found.prequential[evaluated_on - 1] = value
    return found


def summarise(evaluations: Iterable[Evaluation], *, after: int = 0) -> dict[str, dict[str, float | None]]:
    """Sum up a run: ``{metric: {"prequential": ..., "slope": ..., "forgetting": ..., ...}}``, ready for JSON.

    ``evaluations`` are rows (trained_until, evaluated_on, metric, value, count). ``prequential`` is the
    plain mean over the increments that have a value (an increment without a cold user has none for cold
    users) and ``slope`` is that curve's; the others are :func:`summary` of the ``heldout/`` rows of the
    same metric, None where not measured. With ``after`` = n increments 1..n and the base part are left out of all
    of them: R and b then begin with increment n + 1. Where tests were sampled there is ``standard_error``, that of
    ``prequential``: √Σ e² / T over the T increments that have a value, e the ``/standard_error`` of each, whose samples
    are independent; None where one of them is not known.

    >>> rows = [(0, 1, "ndcg@10", 0.25, 80), (1, 2, "ndcg@10", 0.5, 90)]
    >>> numbers = summarise(rows)["ndcg@10"]
    >>> numbers["prequential"], numbers["slope"], numbers["forgetting"]
    (0.375, 0.25, None)
    """
    rows = list(evaluations)
    metrics = dict.fromkeys(name.removeprefix(HELD_OUT) for _, _, name, *_ in rows if not name.endswith(ERROR))
    sampled = {name.removesuffix(ERROR) for _, _, name, *_ in rows if name.endswith(ERROR)}
    numbers: dict[str, dict[str, float | None]] = {}
    for metric in metrics:
        whole = matrices(rows, metric)
        first = after + 1 if after else 0  # of R and b, which have the base part before increment 1
        found = Matrices(whole.prequential[after:], whole.R[first:, first:], whole.b[first:])
        measured = found.prequential[np.isfinite(found.prequential)]
        curve = {"prequential": _mean(measured), "slope": slope(found.prequential)}
        numbers[metric] = summary(found.R, found.b) | curve
        if metric in sampled:
            own = matrices(rows, metric + ERROR).prequential[after:][np.isfinite(found.prequential)]
            mean = _mean(own**2)
            numbers[metric]["standard_error"] = None if mean is None else (mean / len(own)) ** 0.5
    return numbers


def _square(R: ArrayLike) -> Array:
    matrix = _measured(R)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"R must be [T, T] with T ≥ 1, got shape {matrix.shape}")
    return matrix


def _measured(values: ArrayLike) -> Array:
    """``values`` as float64, with NaN for infinities: inf - inf would warn and not say "not measured"."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def _mean(values: Array) -> float | None:
    """Mean of ``values`` [n]; None where there are none or one was not measured."""
    if not values.size or not np.isfinite(values).all():
        return None
    return float(np.mean(values))
