from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from incremental.core import negatives
from incremental.core.negatives import BLOCK, SHARE, draw, drawn, nothing, powers, proposal
from incremental.core.types import Batch, Catalogue, Learner
from incremental.errors import UserError
from incremental.heads.bpr import bpr

NUMBER = 8192
SEEN: Any = np.array([0, 1, 1, 0, 1, 1, 1, 0, 0], bool)  # row 0 is padding
EVENTS: Any = np.array([0, 1, 5, 0, 20, 2, 60, 0, 0], np.float32)
NONE: Any = None
BATCH = Batch({}, NONE, NONE, NONE, NONE)


def learner(seen: Any, events: Any) -> Learner:
    return Learner({}, (), Catalogue(seen, events, {}), NONE)


@jax.jit
@jax.vmap
def drawn_by(power: Any, seen: Any, events: Any, key: Any) -> Any:
    """Negatives, log_q and the state after `begin`, from a state that an earlier increment left."""
    strategy = drawn(NUMBER, power)
    earlier = learner(~seen, 1.0 + events)
    state, _ = strategy.begin(strategy.init(earlier), earlier, NONE, key)
    state, _ = strategy.begin(state, learner(seen, events), NONE, key)
    batch = strategy.batch(state, BATCH, key)
    return batch.negatives, batch.log_q


POWERS: Any = np.array([0.0, 0.75, 1.0], np.float32)


@pytest.fixture(scope="module")
def draws() -> Any:
    keys = jax.random.split(jax.random.key(3), len(POWERS))
    return [np.asarray(part) for part in drawn_by(POWERS, np.stack([SEEN] * 3), np.stack([EVENTS] * 3), keys)]


def shares(power: float) -> Any:
    weight = np.where(SEEN, np.maximum(EVENTS, 1.0).astype(np.float64) ** power, 0.0)
    return weight / weight.sum()


@pytest.mark.parametrize(("case", "power"), list(enumerate(POWERS)))
def test_items_are_drawn_in_proportion_to_a_power_of_their_events(draws: Any, case: int, power: float) -> None:
    counts = np.bincount(draws[0][case], minlength=len(SEEN))
    expected = NUMBER * shares(float(power))
    assert stats.chisquare(counts[SEEN], expected[SEEN]).pvalue > 1e-4


def test_only_items_seen_so_far_are_drawn(draws: Any) -> None:
    assert SEEN[draws[0]].all()


@pytest.mark.parametrize(("case", "power"), list(enumerate(POWERS)))
def test_log_q_is_the_log_of_the_expected_number_of_draws(draws: Any, case: int, power: float) -> None:
    negatives, log_q = draws[0][case], draws[1][case]
    np.testing.assert_allclose(log_q, np.log(NUMBER * shares(float(power))[negatives]), rtol=1e-5)


def test_an_impossible_number_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="bpr: negatives=0: expected a whole number >= 1"):
        bpr(negatives=0)


def test_shares_hold_across_blocks_of_the_running_sums() -> None:
    rng = np.random.default_rng(0)
    weight = rng.gamma(0.5, size=3 * BLOCK + 5).astype(np.float32)
    seen = rng.random(len(weight)) < 0.4
    many = jax.jit(lambda weight, seen: draw(proposal(weight, seen, nothing(len(seen))), 1 << 18, jax.random.key(0)))
    items, log_q = (np.asarray(part) for part in many(weight, seen))
    q = np.where(seen, weight, 0.0) / weight[seen].sum(dtype=np.float64)
    np.testing.assert_allclose(log_q, np.log(q[items]), rtol=1e-4)
    group = np.arange(len(weight)) % 97  # enough draws of each
    counts, expected = np.bincount(group[items]), len(items) * np.bincount(group, q)
    assert stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize("size", [1, 5, 64, BLOCK + 3])
def test_a_draw_is_the_first_item_whose_running_sum_is_above_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its block: the inverse of the sums, found by numpy. The search is written in two ways."""

    @jax.jit
    def by_both(weight: Any) -> Any:
        key, made, found = jax.random.key(size), proposal(weight, weight > 0, nothing(size)), []
        for backend in ("cpu", "gpu"):
            monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
            found.append(draw(made, NUMBER, key)[0])
        monkeypatch.undo()
        return negatives.uniform(key, 2 * NUMBER).reshape(2, -1), made.within, made.blocks, found

    weight = np.arange(1, size + 1, dtype=np.float32)
    (of_block, of_place), sums, blocks, found = jax.tree.map(np.asarray, by_both(weight))
    block = np.searchsorted(blocks, of_block * blocks[-1], side="right")
    place = [np.searchsorted(sums[b], u * sums[b, -1], side="right") for b, u in zip(block, of_place, strict=True)]
    assert len(found) == 2
    for items in found:
        np.testing.assert_array_equal(items, np.minimum(block * BLOCK + np.array(place), size - 1))


@pytest.mark.parametrize("size", [1, 3, 64, 2049, BLOCK, 2 * BLOCK + 3])
def test_of_equal_weights_the_search_and_the_whole_part_are_one(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, for a power that a sweep traces is searched for; also at the ends of what may be drawn."""
    ends = np.array([0.0, 1 - 2.0**-24, 0.5, 0.5 - 2.0**-25, 1 / 3], np.float32)
    several = np.concatenate(
        [np.stack(np.meshgrid(ends, ends)).reshape(2, -1), np.random.default_rng(0).random((2, 999))], 1
    )
    monkeypatch.setattr(negatives, "uniform", lambda _key, number: jax.numpy.float32(several.reshape(-1)[:number]))
    seen: Any = np.arange(size + 5) < size

    @jax.jit
    def both(power: Any) -> Any:
        made = proposal(powers(5.0 * seen, power), seen, nothing(len(seen)))
        return [draw(made, several.shape[1], jax.random.key(0), ones=ones) for ones in (False, True)]

    for found, wanted in zip(*both(0.0), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_the_last_proposal_was_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list is taken over only as far as it is the same one."""
    monkeypatch.setattr(negatives, "CHUNK", 7)  # of 40 items
    rng, made = np.random.default_rng(0), jax.jit(proposal)
    weight, seen = rng.gamma(0.5, size=40).astype(np.float32), rng.random(40) < 0.5
    alone = made(weight, seen, nothing(40))
    first, second = alone.items[:2]
    swapped = alone._replace(items=alone.items.at[:2].set((second, first)))  # by which they are seen to be taken over
    np.testing.assert_array_equal(made(weight, seen, swapped).items, swapped.items)
    first, last = np.flatnonzero(seen)[[0, -1]]
    without = [seen & (np.arange(40) != each) for each in (first, 20, last)]
    for other in (~seen, np.roll(seen, 1), seen | True, seen | (np.arange(40) > last), *without):
        earlier = made(weight[::-1], other, nothing(40))
        np.testing.assert_array_equal(earlier.items[: other.sum()], np.flatnonzero(other))
        for found, wanted in zip(made(weight, seen, earlier), alone, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("last", [3.0, 2.5, 1e6])
def test_powers_that_are_looked_up_are_those_that_are_computed(last: float) -> None:
    """Bit for bit; where all are whole numbers and few, where one is not, and where one is large."""
    events = np.random.default_rng(0).geometric(0.01, SHARE * BLOCK).astype(np.float32)
    events[:2] = last, 0.0
    both = jax.jit(lambda events, power: (powers(events, power), powers(events[1:], power)))
    for power in (0.75, 0.3):
        found, computed = both(events, power)
        np.testing.assert_array_equal(found[1:], computed)
        assert found[0] == jax.numpy.float32(last) ** power


@pytest.mark.slow
def test_a_catalogue_of_ten_million_items_is_drawn_from_evenly() -> None:
    """A running sum over 10^7 weights in float32 would leave out whole items and favour others."""
    size = 10_000_000
    seen = jax.numpy.arange(size) % 2 == 1  # the first is padding
    made = jax.jit(proposal)(jax.numpy.ones(size), seen, nothing(size))
    items, log_q = (np.asarray(part) for part in jax.jit(draw, static_argnums=1)(made, 1 << 20, jax.random.key(0)))
    assert (items % 2 == 1).all()
    np.testing.assert_allclose(log_q, -np.log(size / 2), rtol=1e-6)
    # Over the catalogue, within a block of the sums, and from an item to its neighbour.
    for place, kinds in ((items // (size // 500), 500), (items // 2 % BLOCK // 8, 512), (items // 2 % 2, 2)):
        counts = np.bincount(place, minlength=kinds)
        share = np.bincount(np.arange(size // 2) % BLOCK // 8 if kinds == 512 else np.arange(kinds), minlength=kinds)
        assert stats.chisquare(counts, len(items) * share / share.sum()).pvalue > 1e-4
    # Of n draws from m items about n²/2m pairs are equal.
    pairs = len(items) - len(np.unique(items))
    assert pairs == pytest.approx(len(items) ** 2 / size, rel=0.15)
