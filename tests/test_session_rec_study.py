"""The study of session-rec's lists: a hand-made sample, and the real one where it is."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments.session_rec import lists, study

TRAIN = "session,item,timestamp\n8,a,1000\n8,b,2000\n4,b,500\n4,a,700\n4,c,900\n"
TEST = "session,item,timestamp\n1,a,9000\n1,b,9500\n1,c,9900\n"
BY_HAND = {0: {"b": 2.0, "c": 1.0}, 1: {"a": 2.0, "c": 1.0}}
"""AR's scores after the first click, a, and after the second, b: a and b are together twice, c is once with each"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Two lists of AR, three items each."""
    alone = "".join(f"{20 + n},z{n},{100 + n}\n" for n in range(20))  # metrics of 20 need as many items
    (tmp_path / "train.csv").write_text(TRAIN + alone)
    (tmp_path / "test.csv").write_text(TEST)
    rows = [
        ("ar", 1, place, rank, item, score)
        for place, listed in ((0, [("b", 1.0), ("c", 0.5), ("a", 0.0)]), (1, [("a", 1.0), ("c", 0.5), ("b", 0.0)]))
        for rank, (item, score) in enumerate(listed, 1)
    ]
    names = ["method", "session", "position", "rank", "item", "score"]
    pl.DataFrame(rows, names, orient="row").write_parquet(tmp_path / "lists.parquet")
    return tmp_path


def test_lists_are_compared_score_by_score(sample: Path) -> None:
    asked = lists.read(sample, "AR")
    assert [(one.prefix, one.target) for one in asked] == [(["a"], "b"), (["a", "b"], "c")]
    assert lists.compared(asked, [BY_HAND[0], BY_HAND[1]], 1e-6) == (2, 2, 0.0)
    # Another item at the right score, a score that is off, and a fourth one above the last.
    assert lists.compared(asked, [BY_HAND[0], {"b": 2.0, "c": 1.0}], 1e-6) == (2, 1, 1.0)
    assert lists.compared(asked, [BY_HAND[0], {"a": 2.0, "c": 1.1}], 1e-6).largest == pytest.approx(0.05)
    assert lists.compared(asked, [{**BY_HAND[0], "d": 0.5}, BY_HAND[1]], 1e-6).largest == pytest.approx(0.25)


def test_ranks_in_the_list_and_with_ties_as_half() -> None:
    tied = lists.Asked(["x"], "c", ["a", "b", "c", "d"], np.array([1.0, 0.5, 0.5, 0.0]))
    scores = dict(zip(tied.items, tied.scores.tolist(), strict=True))
    assert lists.in_list(tied) == 3
    assert lists.half(scores, "c") == 2.5
    assert lists.half(scores, "d") == lists.half(scores, "e") == lists.in_list(tied._replace(target="e")) == np.inf
    found = lists.metrics([1, 5, 5.5, np.inf])
    assert found == {"hr@5": 0.5, "hr@10": 0.75, "hr@20": 0.75, "mrr@20": pytest.approx((1 + 1 / 5 + 1 / 5.5) / 4)}


@pytest.mark.slow
def test_the_study_on_the_hand_made_sample_and_again(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "| AR | 2 | 2 | 0 | 1e-06 | yes |" in study.compare(sample, sample / "runs", ["AR"])
    assert "base part" in capsys.readouterr().out
    study.compare(sample, sample / "runs", ["AR"])
    assert "base part" not in capsys.readouterr().out  # a finished run is not run again


@pytest.mark.slow
def test_the_authors_lists(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "rsc15-sample"
    if not folder.is_dir():
        pytest.skip("real data: there is no rsc15-sample")
    said = study.compare(folder, tmp_path, ["AR", "SR", "VSKNN"])
    for method in ("AR", "SR"):
        assert f"| {method} | 387 | 387 | " in said
    assert said.count("| yes |") == 3
    metrics = said.partition("Published, measured, difference:")[2]
    assert metrics.count("+0.0000") == 10 * 4
    assert "-0." not in metrics
    in_time = study.compare(folder, tmp_path, ["AR", "SR"], in_time=True)
    assert "| AR | 387 | 187 | " in in_time
    assert "| SR | 387 | 273 | " in in_time
