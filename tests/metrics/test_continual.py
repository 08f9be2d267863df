import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from incremental.metrics import continual

R = np.array([[0.90, 0.70, 0.10], [0.95, 0.50, 0.20], [0.75, 0.60, 0.85]])
B = np.array([0.10, 0.15, 0.05])
NAN = math.nan


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("final_average", 0.7333),
        ("average_incremental", 0.7861),
        ("anytime_average", 0.7861),
        ("learning_accuracy", 0.75),
        ("learning_average", 0.85),
        ("retained_average", 0.675),  # (.75 + .60) / 2
        ("harmonic_mean", 0.7525),  # 2 · .85 · .675 / 1.525
        ("backward_transfer", -0.0250),
        ("forward_transfer", 0.3500),
        ("forgetting", 0.0500),
        ("forgetting_chaudhry", 0.1500),
        ("prequential", 0.4500),
    ],
)
def test_published_vector(name: Any, expected: Any) -> None:
    assert continual.summary(R, B)[name] == pytest.approx(expected, abs=5e-5)


def test_intransigence_compares_joint_training_with_the_diagonal() -> None:
    joint = [0.9, 0.8, 0.95]
    assert continual.summary(R, B)["intransigence"] is None
    assert continual.summary(R, B, joint)["intransigence"] == pytest.approx(0.95 - 0.85)
    assert continual.intransigence(R, joint, k=2) == pytest.approx(0.8 - 0.5)
    assert continual.intransigence(R, [NAN, NAN, 0.95], k=1) is None
    with pytest.raises(ValueError, match="from 1 to 3"):
        continual.intransigence(R, joint, k=0)


def test_anytime_average_with_evaluations_within_an_increment() -> None:
    quality = [[0.2, NAN], [0.4, NAN], [0.4, 0.8]]
    assert continual.anytime_average(quality, [1, 1, 2]) == pytest.approx((0.2 + 0.4 + 0.6) / 3)


# Which entries each metric reads, written out by hand: 1 = needed, over the 3 x 3 matrix and then b.
LOWER = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
NEEDS = {
    "final_average": ([[0, 0, 0], [0, 0, 0], [1, 1, 1]], [0, 0, 0]),
    "average_incremental": (LOWER, [0, 0, 0]),
    "anytime_average": (LOWER, [0, 0, 0]),
    "learning_accuracy": ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 0, 0]),
    "learning_average": ([[0, 0, 0], [0, 0, 0], [0, 0, 1]], [0, 0, 0]),
    "retained_average": ([[0, 0, 0], [0, 0, 0], [1, 1, 0]], [0, 0, 0]),
    "harmonic_mean": ([[0, 0, 0], [0, 0, 0], [1, 1, 1]], [0, 0, 0]),
    "backward_transfer": ([[1, 0, 0], [0, 1, 0], [1, 1, 0]], [0, 0, 0]),
    "forward_transfer": ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [0, 1, 1]),
    "forgetting": ([[1, 0, 0], [1, 1, 0], [1, 1, 0]], [0, 0, 0]),
    "forgetting_chaudhry": ([[1, 1, 0], [1, 1, 0], [1, 1, 0]], [0, 0, 0]),
    "prequential": ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], [0, 0, 0]),
}


@pytest.mark.parametrize("hole", [NAN, math.inf])
@pytest.mark.parametrize("name", NEEDS)
def test_none_exactly_where_a_needed_entry_is_not_measured(name: Any, hole: Any) -> None:
    of_matrix, of_b = NEEDS[name]
    whole = continual.summary(R, B)[name]
    for place, needed in np.ndenumerate(np.array(of_matrix)):
        holed = R.copy()
        holed[place] = hole
        assert continual.summary(holed, B)[name] == (None if needed else whole)
    for place, needed in np.ndenumerate(np.array(of_b)):
        holed = B.copy()
        holed[place] = hole
        assert continual.summary(R, holed)[name] == (None if needed else whole)


def test_one_increment_has_averages_and_no_transfer() -> None:
    averages = {"final_average", "average_incremental", "anytime_average", "learning_accuracy", "learning_average"}
    numbers = continual.summary([[0.4]], [0.1], [0.5])
    for name, value in numbers.items():
        expected = 0.4 if name in averages else None
        assert value == (pytest.approx(0.1) if name == "intransigence" else expected)


@pytest.mark.parametrize("shape", [(2, 3), (0, 0), (3,)])
def test_a_matrix_that_is_not_square_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"R must be \[T, T\]"):
        continual.summary(np.zeros(shape), np.zeros(shape[0]))


unit = st.floats(0, 1, allow_subnormal=False)
squares = st.integers(2, 6).flatmap(lambda n: hnp.arrays(np.float64, (n, n), elements=unit))


@given(squares)
def test_laws_between_the_metrics(matrix: Any) -> None:
    size = len(matrix)
    numbers = {name: value for name, value in continual.summary(matrix, np.zeros(size)).items() if value is not None}
    gap = numbers["final_average"] - numbers["learning_accuracy"]
    learnt, past = numbers["learning_average"], numbers["retained_average"]
    assert learnt + (size - 1) * past == pytest.approx(size * numbers["final_average"], abs=1e-9)
    assert min(learnt, past) - 1e-12 <= numbers["harmonic_mean"] <= (learnt + past) / 2 + 1e-12
    assert numbers["backward_transfer"] * (size - 1) == pytest.approx(gap * size, abs=1e-9)
    assert numbers["forgetting_chaudhry"] >= numbers["forgetting"] - 1e-12
    assert numbers["forgetting"] >= -numbers["backward_transfer"] - 1e-12
    assert numbers["forward_transfer"] == pytest.approx(numbers["prequential"])
    lower = np.tril(matrix)
    assert continual.forgetting(lower) == pytest.approx(continual.forgetting_chaudhry(lower))


@given(squares, st.floats(-1, 1))
def test_a_constant_moves_averages_and_not_differences(matrix: Any, shift: Any) -> None:
    b = np.linspace(0, 1, len(matrix))
    before, after = continual.summary(matrix, b), continual.summary(matrix + shift, b + shift)
    for name in NEEDS:
        old, new = before[name], after[name]
        assert old is not None
        if name == "harmonic_mean":  # neither: it grows with a factor
            assert continual.harmonic_mean(3 * matrix) == pytest.approx(3 * old, abs=1e-9)
            continue
        moved = 0 if "transfer" in name or "forgetting" in name else shift
        assert new == pytest.approx(old + moved, abs=1e-9)


@given(hnp.arrays(np.float64, st.integers(2, 8), elements=unit), st.floats(-1, 1))
def test_slope_is_the_least_squares_slope(curve: Any, tilt: Any) -> None:
    fitted = np.polyfit(np.arange(len(curve)), curve, 1)[0]
    assert continual.slope(curve) == pytest.approx(fitted, abs=1e-9)
    assert continual.slope(curve + tilt * np.arange(len(curve))) == pytest.approx(fitted + tilt, abs=1e-9)


def test_slope_with_gaps() -> None:
    assert continual.slope([0.0, NAN, NAN, 3.0]) == pytest.approx(1.0)
    assert continual.slope([NAN, 2.0]) is None
    assert continual.slope([]) is None


ROWS = [
    (-1, 0, "ndcg@10", 0.9, 5),  # on the base part before training: no point of the curve
    (0, 1, "ndcg@10", 0.30, 5),
    (1, 2, "ndcg@10", 0.10, 5),
    (1, 1, "ndcg@10", 0.99, 5),  # not a test before training
    (0, 1, "ndcg@10/cold_users", NAN, 0),
    (1, 2, "ndcg@10/cold_users", 0.2, 1),
    *[(i, j, "heldout/ndcg@10", float(R[i, j]), 3) for i in range(3) for j in range(3)],
    *[(-1, j, "heldout/ndcg@10", float(B[j]), 3) for j in range(3)],
]


def test_matrices_sort_rows_by_name_and_place() -> None:
    found = continual.matrices(ROWS, "ndcg@10")
    np.testing.assert_array_equal(found.prequential, [0.30, 0.10])
    np.testing.assert_array_equal(found.R, R)
    np.testing.assert_array_equal(found.b, B)
    cold = continual.matrices(ROWS, "ndcg@10/cold_users")
    np.testing.assert_array_equal(cold.prequential, [NAN, 0.2])
    assert np.isnan(cold.R).all()
    assert cold.R.shape == (3, 3)


def test_a_place_measured_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="ndcg@10 on increment 1 after 0 was measured twice"):
        continual.matrices([ROWS[1], ROWS[1]], "ndcg@10")


def test_summarise_joins_the_curve_and_the_held_out_matrix() -> None:
    numbers = continual.summarise(ROWS)
    assert list(numbers) == ["ndcg@10", "ndcg@10/cold_users"]
    ndcg, cold = numbers["ndcg@10"], numbers["ndcg@10/cold_users"]
    assert ndcg["prequential"] == pytest.approx(0.20)  # of the curve, where the matrix's own is 0.45
    assert ndcg["slope"] == pytest.approx(-0.20)
    assert ndcg["forgetting"] == pytest.approx(0.05)
    assert ndcg["forward_transfer"] == pytest.approx(0.35)
    assert cold["prequential"] == pytest.approx(0.2)
    assert cold["slope"] is None
    assert cold["forgetting"] is None
    json.dumps(numbers, allow_nan=False)


def test_summarise_of_nothing_is_empty() -> None:
    assert continual.summarise([]) == {}


def test_summarise_joins_the_errors_of_sampled_tests() -> None:
    rows = [(t - 1, t, "ndcg@10", 0.5, 9) for t in (1, 2, 3)]
    errors = [(t - 1, t, "ndcg@10/standard_error", e, 9) for t, e in ((1, 0.3), (2, 0.4), (3, 0.0))]
    numbers = continual.summarise([*rows, *errors])
    assert list(numbers) == ["ndcg@10"]
    assert numbers["ndcg@10"]["standard_error"] == pytest.approx(0.5 / 3)
    assert continual.summarise([*rows, *errors], after=1)["ndcg@10"]["standard_error"] == pytest.approx(0.4 / 2)
    assert continual.summarise([*rows, *errors[:2], (*errors[2][:3], NAN, 1)])["ndcg@10"]["standard_error"] is None
    assert "standard_error" not in continual.summarise(rows)["ndcg@10"]


def test_unmeasured_upper_triangle_leaves_what_does_not_need_it() -> None:
    rows = [row for row in ROWS if not (row[2].startswith("heldout/") and row[0] < row[1])]
    numbers = continual.summarise(rows)["ndcg@10"]
    assert numbers["forgetting"] == pytest.approx(0.05)
    assert numbers["forgetting_chaudhry"] is None
    assert numbers["forward_transfer"] is None
