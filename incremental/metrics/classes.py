"""How well each class of a small catalogue is told from the others."""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float32]


def report(scores: Floats, labels: npt.NDArray[np.int32], names: list[str]) -> dict[str, tuple[float, int]]:
    """Metric -> value and the events it is taken over; nan where there are none.

    `scores` [N, C] with -inf for what is no candidate, `labels` [N] int32, `names` [C]; class 0 is padding.
    "precision/c", "recall/c", "f1/c": of the class with the highest score. "auc/c": the probability that an event of c
    has a higher share of c, softmax(scores)_c, than another event, ties counted as half (Hanley & McNeil 1982). "f1"
    and "auc" are their means over the classes that occur.
    """
    finite = np.where(np.isfinite(scores).any(1, keepdims=True), scores, 0.0)
    share = np.exp(finite - finite.max(1, keepdims=True))
    share = share / share.sum(1, keepdims=True)
    best = finite.argmax(1)
    found: dict[str, tuple[float, int]] = {}
    for c, name in list(enumerate(names))[1:]:
        own = labels == c
        events, given = int(own.sum()), int((best == c).sum())
        right = int((own & (best == c)).sum())
        precision, recall = _share(right, given), _share(right, events)
        both = events + given
        found[f"precision/{name}"] = precision, given
        found[f"recall/{name}"] = recall, events
        found[f"f1/{name}"] = (_share(2 * right, both) if events else float("nan")), events
        above = rankdata(share[:, c])[own].sum() - events * (events + 1) / 2
        found[f"auc/{name}"] = _share(above, events * (len(labels) - events)), events
    for metric in ("f1", "auc"):
        values = np.array([value for name, (value, _) in found.items() if name.startswith(f"{metric}/")])
        occurs = ~np.isnan(values)
        found[metric] = float(values[occurs].mean()) if occurs.any() else float("nan"), len(labels)
    return found


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
