from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from incremental.errors import UserError
from incremental.memory import quotas

V, C = 9, 12
SEEN: Any = np.arange(V) > 0
JITTED = {
    "proportional": jax.jit(quotas.proportional),
    "balanced": jax.jit(quotas.balanced),
    "multinomial": jax.jit(lambda counts, _capacity, key: quotas.multinomial(counts, C, key)),
    "uniform": jax.jit(lambda counts, _capacity, key: quotas.uniform(counts, C, key)),
    "uniform_seen": jax.jit(lambda counts, _capacity, key: quotas.uniform_seen(counts, SEEN, C, key)),
}
DRAWN = ("multinomial", "uniform", "uniform_seen")
MANY = {name: jax.jit(jax.vmap(function, (None, None, 0))) for name, function in JITTED.items()}
KEYS = jax.random.split(jax.random.key(0), 4000)
kinds = pytest.mark.parametrize("kind", JITTED)
counts_of = st.lists(st.one_of(st.integers(0, 4), st.integers(0, 10**6)), min_size=V, max_size=V)


def shared(kind: str, counts: Any, capacity: int = C, seed: int = 0) -> Any:
    given: Any = np.array(counts, np.int32)
    return np.asarray(JITTED[kind](given, np.int32(capacity), jax.random.key(seed)))


@kinds
@settings(max_examples=60)
@given(counts=counts_of, seed=st.integers(0, 99))
def test_quotas_sum_to_the_capacity_and_never_exceed_the_rows(kind: str, counts: list[int], seed: int) -> None:
    quota = shared(kind, counts, seed=seed)
    most = min(C, sum(counts))
    assert quota.sum() <= most if kind in DRAWN else quota.sum() == most
    assert (quota >= 0).all()
    assert (quota <= np.array(counts)).all()
    assert quota.dtype == np.int32


@settings(max_examples=80)
@given(counts=counts_of, capacity=st.sampled_from([1, C, 777, 5000, 10**6]))
def test_proportional_is_the_largest_remainder_method(counts: list[int], capacity: int) -> None:
    """In exact arithmetic; 5,000 slots times 10^6 rows do not fit into 32 bits."""
    quota = shared("proportional", counts, capacity)
    total = max(sum(counts), 1)
    shares = [Fraction(min(capacity, total) * n, total) for n in counts]
    extra = [int(q) - share.__floor__() for q, share in zip(quota, shares, strict=True)]
    assert set(extra) <= {0, 1}
    rest = [share - share.__floor__() for share in shares]
    got, left = ([r for r, e in zip(rest, extra, strict=True) if e == own] for own in (1, 0))
    assert min(got, default=Fraction(1)) >= max(left, default=Fraction(0))


@settings(max_examples=80)
@given(counts=counts_of, capacity=st.sampled_from([1, C, 777, 10**6]))
def test_balanced_labels_differ_by_one_where_their_rows_suffice(counts: list[int], capacity: int) -> None:
    quota = shared("balanced", counts, capacity)
    short = quota < np.array(counts)  # those that could have had more
    if short.any():
        assert quota[short].min() >= quota.max() - 1


@pytest.mark.parametrize("kind", ["proportional", "balanced"])
def test_ties_are_broken_at_random(kind: str) -> None:
    """Ids are older the lower they are: a fixed order would never keep new items."""
    counts: Any = np.array([0, 1, 1, 1, 1, 1, 1, 1, 0], np.int32)
    quota = np.asarray(MANY[kind](counts, np.int32(3), KEYS))
    assert (quota.sum(1) == 3).all()
    wins = quota.sum(0)
    assert wins[0] == wins[8] == 0
    # Drawn without replacement: each label's count is binomial, their sum fixed.
    statistic = ((wins[1:8] - len(KEYS) * 3 / 7) ** 2).sum() / (len(KEYS) * 3 / 7 * (1 - 3 / 7)) * 6 / 7
    assert stats.chi2(6).sf(statistic) > 1e-4


@pytest.mark.parametrize("kind", ["multinomial", "uniform"])
def test_draws_are_multinomial_where_rows_suffice(kind: str) -> None:
    counts: Any = np.array([0, 3, 1, 0, 2, 0, 0, 0, 4], np.int32) * 100
    drawn = np.asarray(MANY[kind](counts, np.int32(C), KEYS))
    share = counts if kind == "multinomial" else counts > 0
    chance, some = share / share.sum(), counts > 0
    assert (drawn.sum(1) == C).all()
    assert stats.chisquare(drawn.sum(0)[some], len(KEYS) * C * chance[some]).pvalue > 1e-4
    np.testing.assert_allclose(drawn.var(0), C * chance * (1 - chance), rtol=0.1, atol=1e-6)


def test_what_a_label_cannot_fill_stays_empty() -> None:
    """Of 12 draws a label of one row gets 3 in the mean, and keeps one if it gets any."""
    counts: Any = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0], np.int32)
    for kind in ("multinomial", "uniform"):
        drawn = np.asarray(MANY[kind](counts, np.int32(C), KEYS))
        assert (drawn <= counts).all()
        assert drawn[:, 1:5].mean() == pytest.approx(1 - 0.75**C, abs=0.01)


@kinds
def test_no_rows_make_no_quotas(kind: str) -> None:
    assert not shared(kind, [0] * V).any()


def test_an_unknown_kind_is_refused() -> None:
    kind: Any = "equal"
    with pytest.raises(UserError, match=r"strategies\.mine: quotas='equal': expected one of proportional, balanced"):
        quotas.named(kind, "mine")


@kinds
def test_a_name_stands_for_its_function(kind: Any) -> None:
    counts: Any = np.array([0, 9, 1, 0, 5, 0, 0, 2, 4], np.int32)
    key, named = jax.random.key(5), quotas.named(kind, "mine")
    found = jax.jit(lambda counts, key: named(counts, SEEN, C, key))(counts, key)
    np.testing.assert_array_equal(found, JITTED[kind](counts, np.int32(C), key))


def test_draws_over_all_labels_seen_are_lost_where_there_are_no_rows() -> None:
    """Of 12 draws over 8 labels each gets 1.5 in the mean: a label of many rows keeps them, one of a single row keeps
    1 - (7/8)^12 = .799, and the draws of the six without rows are lost. Among those with rows it were 6 and 1 - 2^-12.
    """
    counts: Any = np.array([0, 900, 1, 0, 0, 0, 0, 0, 0], np.int32)
    kept = np.asarray(MANY["uniform_seen"](counts, np.int32(C), KEYS))
    assert not kept[:, [0, 3, 4, 5, 6, 7, 8]].any()
    assert kept[:, 1].mean() == pytest.approx(1.5, abs=0.08)  # 4 standard errors
    assert kept[:, 2].mean() == pytest.approx(1 - (7 / 8) ** C, abs=0.03)
    assert np.asarray(MANY["uniform"](counts, np.int32(C), KEYS))[:, 1].mean() == pytest.approx(6, abs=0.12)
