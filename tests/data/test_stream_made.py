"""How a stream is made: its parts, where it ends, and what is refused."""

from dataclasses import fields
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.data import cutting
from incremental.data.cleaning import cleaning
from incremental.data.interactions import Table
from incremental.data.stream import make_stream
from incremental.errors import UserError
from tests import lab
from tests.data.streams import (
    cut_at,
    table,
)


def test_held_out_and_validation_never_overlap() -> None:
    pairs = [(i % 7, i % 11) for i in range(400)]
    events = make_stream(source=table(pairs), cut=cutting.equal_counts(increments=3, base=0.25), heldout=0.3)
    assert not (events.heldout & events.validation).any()
    assert [int(events.heldout[slice(*events.bounds(t))].sum()) for t in range(4)] == [30] * 4
    assert events.validation.sum() > 0
    again = make_stream(source=table(pairs), cut=cutting.equal_counts(increments=3, base=0.25), heldout=0.3)
    np.testing.assert_array_equal(events.heldout, again.heldout)
    other = make_stream(source=table(pairs), cut=cutting.equal_counts(increments=3, base=0.25), heldout=0.3, seed=1)
    assert (events.heldout != other.heldout).any()


def test_a_stream_until_an_increment_is_its_prefix() -> None:
    pairs = [(i % 7, i % 11 + i // 100) for i in range(400)]
    protocol: dict[str, Any] = {"cut": cutting.equal_counts(increments=3, base=0.25), "heldout": 0.3}
    whole, short = make_stream(source=table(pairs), **protocol), make_stream(source=table(pairs), **protocol, until=2)
    assert len(short) == 3
    assert len(make_stream(source=table(pairs), **protocol, until=3)) == len(whole) == 4  # the last one is one of them
    for field in fields(whole):
        one, other = getattr(short, field.name), getattr(whole.prefix(2), field.name)
        if field.name == "interactions":
            one, other = one.item, other.item
        if field.name == "features":
            one, other = short.spec, whole.prefix(2).spec
        np.testing.assert_equal(one, other, field.name)


def test_what_comes_later_moves_nothing_before_the_end() -> None:
    """With as many events, once they are cleaned, and the same last day."""
    rng = np.random.default_rng(0)
    head = [(int(u), int(i)) for u, i in zip(rng.integers(0, 30, 345), rng.integers(0, 100, 345), strict=True)]
    times = sorted(rng.integers(0, 30 * 86_400, 400).tolist())  # the last of them ends the stream
    tails = [[(30 + n % 5, base + n) for n in range(55)] for base in (0, 500)]  # known items; new ones alone
    cuts = cutting.equal_counts(increments=4, base=0.5), cutting.calendar(interval="1w", base=0.5)
    steps: dict[str, Any] = {"duplicates": "first", "minimum_rating": 2.0, "before": "1970-01-31"}
    for cut in cuts:
        for ties in ("strict", "item", "hash"):
            one, other = (
                make_stream(source=rated(head + tail, times), cut=cut, ties=ties, cleaning=cleaning(**steps), until=1)
                for tail in tails
            )
            assert len(one) == 2
            assert len(one.interactions) > 200
            for field in fields(one):
                if field.name in ("interactions", "cleaning", "notes", "features"):
                    continue
                np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name), field.name)
            assert one.spec == other.spec
            for name in ("user", "item", "time", "rating", "users", "items"):
                np.testing.assert_equal(getattr(one.interactions, name), getattr(other.interactions, name), name)


def rated(pairs: list[tuple[int, int]], times: list[int]) -> Table:
    made = table(pairs, times)
    return made._replace(frame=made.frame.with_columns(rating=pl.Series([3.0] * len(pairs), dtype=pl.Float32)))


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"k_core": 2}, "2-core"),
        ({"minimum_session": 2}, "sessions of at least 2"),
        ({"duplicates": "last"}, "duplicates: last"),
    ],
)
def test_a_cleaning_that_reads_on_is_refused_where_the_stream_ends_early(step: dict[str, Any], named: str) -> None:
    source = table([(i % 7, i % 11) for i in range(400)])
    protocol: dict[str, Any] = {"cut": cutting.equal_counts(increments=3), "cleaning": cleaning(**step)}
    assert len(make_stream(source=source, **protocol)) == 4
    with pytest.raises(UserError, match=rf"data\.until=2: the cleaning step '{named}' reads events after increment 2"):
        make_stream(source=source, **protocol, until=2)


# -- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heldout": 1.0}, "heldout=1.0: expected a number >= 0 and < 1"),
        ({"heldout": -0.1}, "heldout=-0.1"),
        ({"validation": 1.5}, "validation=1.5: expected a number >= 0 and < 1"),
        ({"history": 0}, "history=0: expected a whole number >= 1"),
        ({"history": 3, "minimum_history": 4}, r"data\.minimum_history=4: expected 0 to data\.history=3"),
        ({"minimum_history": -1}, "minimum_history=-1: expected a whole number >= 0"),
        ({"unseen_items": "dropped"}, r"data\.unseen_items='dropped': expected miss, drop, listed or known"),
        ({"ties": "id"}, r"data\.ties='id': expected one of strict, file, item, hash"),
        ({"until": 2}, r"data\.until=2: expected an increment of the stream, 1 to 1"),
        ({"until": 0}, "until=0: expected a whole number >= 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_stream(source=table([(0, 0), (0, 1)]), cut=cut_at([0, 1]), **arguments)


def test_a_cut_may_end_early_and_cleaning_is_reported() -> None:
    pairs = [(0, 0), (0, 0), (0, 1), (1, 2), (1, 3), (1, 4)]
    events = make_stream(
        source=table(pairs), cut=lambda _: (np.array([0, 1], np.int32), ()), cleaning=cleaning(duplicates="first")
    )
    assert len(events) == 2
    assert events.interactions.items == ["", "i0", "i1"]
    assert [(step.removed, step.remaining) for step in events.cleaning] == [(1, 5)]


def test_an_event_without_an_id_of_a_kind_stays_history() -> None:
    """As in training: only ids that the model does not know take an event out of what was before."""
    table = lab.simulated()
    shop = pl.Series("shop", ["" if row % 2 else "a" for row in range(len(table.frame))])
    stream = lab.stream(table._replace(frame=table.frame.with_columns(shop), kinds=("shop",)))
    shops: Any = np.array([False, True])  # as a catalogue has them: id 0 is padding
    users = np.unique(stream.interactions.user)[:9]
    for known in ({"shop": shops}, {"shop": ~shops & False}):
        rows = stream.test_examples(1, heldout=False, trained_until=0, known=known, inputs=("history",))
        everything = stream.test_examples(1, heldout=False, trained_until=0, known={}, inputs=("history",))
        last, whole = stream.latest(users, known), stream.latest(users, {})
        same = np.array_equal(rows.past, everything.past), np.array_equal(last.past, whole.past)
        assert same == ((True, True) if known["shop"].any() else (False, False))
