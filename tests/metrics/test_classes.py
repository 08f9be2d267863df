"""The report of each class, against its definitions."""

import numpy as np
import pytest

from incremental.metrics.classes import report

NAMES = ["", "view", "buy", "cart"]


def test_every_number_is_as_defined() -> None:
    rng = np.random.default_rng(0)
    scores = np.tile(rng.normal(size=(30, 4)).astype(np.float32), (2, 1))  # with ties
    scores[:, 0] = -np.inf
    labels = rng.integers(1, 4, 60).astype(np.int32)
    told = report(scores, labels, NAMES)
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    best = scores.argmax(1)
    for c in (1, 2, 3):
        right = ((best == c) & (labels == c)).sum()
        precision, recall = right / (best == c).sum(), right / (labels == c).sum()
        assert told[f"precision/{NAMES[c]}"] == (pytest.approx(precision), (best == c).sum())
        assert told[f"recall/{NAMES[c]}"] == (pytest.approx(recall), (labels == c).sum())
        assert told[f"f1/{NAMES[c]}"][0] == pytest.approx(2 / (1 / precision + 1 / recall))
        own, other = share[labels == c, c][:, None], share[labels != c, c][None]
        assert told[f"auc/{NAMES[c]}"][0] == pytest.approx(((own > other) + 0.5 * (own == other)).mean())
    for metric in ("f1", "auc"):
        assert told[metric][0] == pytest.approx(np.mean([told[f"{metric}/{name}"][0] for name in NAMES[1:]]))


def test_perfect_constant_and_missing() -> None:
    labels = np.array([1, 1, 2], np.int32)
    scores = np.full((3, 4), -np.inf, np.float32)
    scores[np.arange(3), labels] = 5.0
    scores[:, 1] = np.maximum(scores[:, 1], 0.0)
    told = report(scores, labels, NAMES)
    assert [told[name][0] for name in ("auc", "f1", "recall/buy", "precision/view")] == [1.0] * 4
    assert np.isnan([told[f"{name}/cart"][0] for name in ("auc", "f1", "recall", "precision")]).all()  # does not occur
    same = report(np.tile(np.array([-np.inf, 900.0, 3.0, 1.0], np.float32), (3, 1)), labels, NAMES)
    assert (same["auc/view"][0], same["auc/buy"][0], same["recall/view"][0]) == (0.5, 0.5, 1.0)
    nothing = report(np.full((3, 4), -np.inf, np.float32), labels, NAMES)  # of an untrained model
    assert nothing["auc"][0] == 0.5
