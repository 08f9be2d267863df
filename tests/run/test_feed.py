"""What a feed gives to an update: validation parts, seen items, arrivals, texts; on the host, where it can."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.spec import Sizes
from incremental.data.interactions import Side
from incremental.data.stream import Stream
from incremental.run.feed import Given
from incremental.run.policy import Plan
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs", "one_shape")


@pytest.mark.parametrize(("unseen", "texts"), [("known", 4), ("miss", 3)])
def test_items_that_are_known_from_the_start_have_their_texts_too(unseen: str, texts: int) -> None:
    """The last one comes in increment 1."""
    stream = lab.written([[("a", "x"), ("b", "y"), ("a", "z")], [("a", "w"), ("b", "x")]], unseen_items=unseen)
    text = Side("item", np.eye(5, 4, -1, np.float32))
    stream = replace(stream, interactions=replace(stream.interactions, side={"text": text}))
    program: Any = SimpleNamespace(sizes=lab.SIZES, frozen=None, window=None)
    side = lab.feed_of(stream).side(0, program, lambda tree: tree)["text"]
    assert side.sum() == texts


def given(stream: Stream) -> Given:
    """What the update at increment 1 reads, on the host."""
    at: Any = {"inputs": lab.user_alone(stream), "counting": False, "sharing": "none", "sizes": lab.SIZES}
    program: Any = SimpleNamespace(**at, frozen=None, window=None)
    return lab.feed_of(stream).update(program, 1, lab.FINETUNE.plan(1, [0], {}, 0), lambda tree: tree)


PARTS = [[("a", "x"), ("b", "y"), ("a", "z")], [("a", "w"), ("a", "v"), ("b", "x")], [("a", "u"), ("b", "z")]]


def test_no_memory_gets_what_an_update_stops_by_where_it_is_to_come() -> None:
    for validate_on, kept in (("own", 2), ("next", 0)):
        found = given(lab.written(PARTS, heldout=0.0, validation=0.5, validate_on=validate_on))
        assert found.validation.size > 0
        assert found.data.validation is not None
        assert found.data.validation.valid.sum() == kept


def test_a_validation_leaves_out_no_item_that_is_held_out() -> None:
    stream = lab.written(PARTS, heldout=0.0, exclude_seen=True)
    stream = replace(stream, heldout=np.arange(8) == 3, validation=np.arange(8) == 4)
    seen = given(stream).seen
    assert seen is not None
    assert seen.log[seen.start[0] : seen.stop[0]].tolist() == [1, 3]  # x and z, and not w


def test_who_is_to_come_has_row_0_in_a_validation_on_the_next_increment() -> None:
    events = lab.written(
        [[("a", "x"), ("b", "y")] * 8, [("a", "x"), ("c", "z")] * 8], validation=0.5, validate_on="next"
    )
    feed, plan = lab.feed_of(events), Plan(range(1), range(1), range(1), False)
    program = lab.build(lab.Spec())(Sizes(item=3, user=3))
    validated = feed.update(program, 0, plan, jax.device_put).validation
    users = np.asarray(validated.rows.inputs["user"])[: int(validated.size)]
    assert {*users.tolist()} == {0, 1}


@pytest.mark.parametrize("counting", [False, True])
def test_a_user_of_validation_events_alone_has_not_arrived(counting: bool) -> None:
    parts = [[("a", "x"), ("b", "y")] * 8, [(f"new{i}", "x") for i in range(8)]]
    stream = lab.written(parts, validation=0.5)
    program: Any = lab.build(lab.Spec())(lab.sizes_at(stream, 1))
    plan = Plan(range(1, 2), range(1, 2), range(2), False)
    data = lab.feed_of(stream).update(program._replace(counting=counting), 1, plan, jax.device_put).data
    events = stream.training_events(range(2))
    read = events if counting else events[~stream.validation[events]]
    met, every = ({*stream.interactions.user[of].tolist()} for of in (read, events))
    assert {*np.asarray(data.arrived["user"]).tolist()} - {0} == met
    assert (met == every) == counting  # tests/plugin/test_third_kind.py has a kind that histories hold
    np.testing.assert_array_equal(np.asarray(data.events)[: len(events)], stream.label[events])  # as candidates
