"""The report of each class, against its definitions and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

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


def chosen(classes: list[int]) -> np.ndarray:
    """[N, 4]: scores by which these classes are predicted."""
    return np.where(np.arange(4) == np.array(classes)[:, None], 1.0, [-np.inf, 0.0, 0.0, 0.0]).astype(np.float32)


def test_what_is_predicted_but_does_not_occur_and_what_occurs_but_is_not_predicted() -> None:
    labels = np.array([1, 1, 1, 2], np.int32)
    told = report(chosen([1, 1, 3, 1]), labels, NAMES)
    assert told["f1"][0] == pytest.approx((2 / 3 + 0 + 0) / 3)  # not the mean over view and buy, nor view's alone
    assert [told[name][0] for name in ("precision/buy", "recall/buy", "f1/buy")] == [0.0] * 3
    assert [told[name][0] for name in ("precision/cart", "f1/cart")] == [0.0] * 2
    assert np.isnan([told["recall/cart"][0], told["auc/cart"][0]]).all()


def test_macro_f1_counts_a_class_that_is_predicted_and_does_not_occur() -> None:
    told = report(chosen([1, 1, 1, 3]), np.array([1, 1, 1, 1], np.int32), NAMES)
    assert told["f1/view"][0] == pytest.approx(6 / 7)
    assert told["f1"][0] == pytest.approx(3 / 7)


def test_certain_models_are_still_told_apart() -> None:
    """Shares of these scores are 1 or 0 in floating point."""
    own = np.array([60.0, 200.0, 90.0, 140.0, 40.0, 120.0])
    scores = np.stack([np.full(6, -np.inf), own, -own, np.zeros(6)], 1).astype(np.float32)
    labels = np.array([2, 1, 2, 1, 2, 2], np.int32)
    told = report(scores, labels, NAMES)
    assert told["auc/view"][0] == sklearn.roc_auc_score(labels == 1, own) == 1.0
    assert told["auc/buy"][0] == sklearn.roc_auc_score(labels == 2, -own) == 1.0


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([0.5, 30.0, 1000.0]))
def test_it_is_scikit_learns(seed: int, events: int, scale: float) -> None:
    """Few events: some classes do not occur, some are never predicted; scores of one decimal tie."""
    rng = np.random.default_rng(seed)
    scores = (scale * rng.normal(size=(events, 4)).round(1)).astype(np.float32)
    scores[:, 0] = -np.inf
    labels = rng.integers(1, 4, events).astype(np.int32)
    best, told = scores.argmax(1), report(scores, labels, NAMES)
    assert told["f1"][0] == pytest.approx(sklearn.f1_score(labels, best, average="macro", zero_division=0))
    aucs = []
    for c in sorted({*labels, *best}):
        name = NAMES[c]
        of_c = {"labels": [c], "average": "macro"}
        f1 = sklearn.f1_score(labels, best, **of_c, zero_division=0)
        recall = sklearn.recall_score(labels, best, **of_c, zero_division=np.nan)
        assert told[f"precision/{name}"][0] == pytest.approx(
            sklearn.precision_score(labels, best, **of_c, zero_division=0)
        )
        assert told[f"f1/{name}"][0] == pytest.approx(f1)
        assert told[f"recall/{name}"][0] == pytest.approx(recall, nan_ok=True)
        others = np.delete(scores[:, 1:].astype(float), c - 1, 1)
        log_odds = scores[:, c] - np.logaddexp(*others.T)
        if 0 < (labels == c).sum() < events:
            aucs.append(sklearn.roc_auc_score(labels == c, log_odds))
            assert told[f"auc/{name}"][0] == pytest.approx(aucs[-1])
        else:
            assert np.isnan(told[f"auc/{name}"][0])
    assert told["auc"][0] == pytest.approx(np.mean(aucs) if aucs else np.nan, nan_ok=True)


def test_mild_scores_give_scikit_learns_auc_of_the_shares() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(200, 4)).astype(np.float32)
    scores[:, 0] = -np.inf
    labels = rng.integers(1, 4, 200)
    share = np.exp(scores[:, 1:].astype(float))
    share /= share.sum(1, keepdims=True)
    expected = sklearn.roc_auc_score(labels, share, multi_class="ovr", average="macro")
    assert report(scores, labels.astype(np.int32), NAMES)["auc"][0] == pytest.approx(expected)
