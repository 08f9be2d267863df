"""How well each class of a small catalogue is told from the others."""

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float32]


def report(scores: Floats, labels: npt.NDArray[np.int32], names: list[str]) -> dict[str, tuple[float, int]]:
    """Metric -> value and the events it is taken over; nan where it is not defined.

    `scores` [N, C], a model's logits, -inf for what is no candidate; `labels` [N] int32; `names` [C]; class 0 is
    padding. The predicted class is the one of the highest score. With tp, fp and fn of a class c as usual:

    - "precision/c": tp / (tp + fp); 0 where c occurs and is never predicted, nan where it does neither.
    - "recall/c": tp / (tp + fn); nan where c does not occur.
    - "f1/c": 2 tp / (2 tp + fp + fn), so 0 where c occurs and is never predicted, or is predicted and does not occur.
    - "auc/c": the probability that an event of c has a higher share of c, softmax(scores)_c, than another event, ties
      counted as half (Hanley & McNeil 1982). Shares are compared by their log-odds, which do not round to 0 or 1.
    - "f1": the mean of "f1/c" over the classes that occur or are predicted. "auc": that of "auc/c" over those that
      occur.

    They are scikit-learn's: `precision_score` (zero_division=0), `recall_score` (zero_division=nan), `f1_score`
    (average="macro") and `roc_auc_score` of the log-odds.
    """
    finite = np.where(np.isfinite(scores).any(1, keepdims=True), scores, 0.0).astype(np.float64)
    best = finite.argmax(1)
    found: dict[str, tuple[float, int]] = {}
    for c, name in list(enumerate(names))[1:]:
        own, given = labels == c, best == c
        events, predicted, right = int(own.sum()), int(given.sum()), int((own & given).sum())
        precision = 0.0 if events and not predicted else _share(right, predicted)
        found[f"precision/{name}"] = precision, predicted
        found[f"recall/{name}"] = _share(right, events), events
        found[f"f1/{name}"] = _share(2 * right, events + predicted), events
        above = pl.Series(_log_odds(finite, c)).rank().to_numpy()[own].sum() - events * (events + 1) / 2
        found[f"auc/{name}"] = _share(above, events * (len(labels) - events)), events
    for metric in ("f1", "auc"):
        values = np.array([value for name, (value, _) in found.items() if name.startswith(f"{metric}/")])
        defined = ~np.isnan(values)
        found[metric] = float(values[defined].mean()) if defined.any() else float("nan"), len(labels)
    return found


def _log_odds(scores: npt.NDArray[np.float64], c: int) -> npt.NDArray[np.float64]:
    """[N]: log(p / (1 - p)), p = softmax(scores)_c."""
    from scipy.special import logsumexp  # not above: most runs have no classes, and each imports this file

    others = np.delete(scores, c, axis=1)
    with np.errstate(divide="ignore"):  # where only c is a candidate
        return scores[:, c] - logsumexp(others, axis=1)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
