"""What the data says of an example."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incremental.core.spec import Input, Sizes, Spec, next_item

capacities = st.dictionaries(st.sampled_from(["item", "user", "category"]), st.integers(1, 99), min_size=1)


@st.composite
def drawn(draw: Any) -> Sizes:
    own = draw(capacities)
    return Sizes(labels=draw(st.sampled_from(sorted(own))), **own)


@given(drawn())
def test_sizes_are_a_mapping_whose_slots_are_those_of_the_labels(sizes: Sizes) -> None:
    assert dict(sizes) == {kind: sizes[kind] for kind in sizes}
    assert len(sizes) == len({*sizes})
    assert sizes.slots == sizes[sizes.labels]
    assert eval(repr(sizes)) == sizes


@given(drawn(), drawn())
def test_equal_sizes_are_one_key(one: Sizes, other: Sizes) -> None:
    assert (one == other) == (dict(one) == dict(other) and one.labels == other.labels)
    turned = Sizes(labels=one.labels, **dict(reversed([*one.items()])))
    assert turned == one
    assert hash(turned) == hash(one)
    assert {one: 1}[turned] == 1
    assert one != dict(one)


@given(drawn(), st.integers(1, 99))
def test_a_replaced_capacity_changes_no_other(sizes: Sizes, size: int) -> None:
    before = dict(sizes)
    for kind in sizes:
        changed = sizes.replace(**{kind: size})
        assert dict(changed) == {**before, kind: size}
        assert changed.labels == sizes.labels
    assert dict(sizes) == before


@given(drawn(), capacities)
def test_at_least_raises_what_the_other_has_more_of(sizes: Sizes, other: dict[str, int]) -> None:
    found = sizes.at_least(other)
    assert dict(found) == {kind: max(size, other.get(kind, 0)) for kind, size in sizes.items()}  # no kind is added
    assert found.labels == sizes.labels
    assert found.at_least(other) == found
    assert sizes.at_least({}) == sizes


def test_a_kind_that_there_is_not_has_no_capacity() -> None:
    with pytest.raises(KeyError):
        Sizes(item=3)["user"]


def test_specs_are_keys_and_differ_in_what_they_say() -> None:
    whole = np.dtype(np.int32)
    spec = next_item(3)
    items = Input((3,), whole, "item")
    assert spec.inputs == {"user": Input((), whole, "user"), "history": items, "following": items}
    assert (spec.labels, spec.kinds, spec.side) == ("item", ("item", "user"), {})
    assert spec == next_item(3)
    assert hash(spec) == hash(next_item(3))
    side = {"text": Input((4,), np.dtype(np.float32), "item")}
    others = [
        next_item(4),
        Spec(spec.inputs, "click", ("item", "user", "click")),
        Spec(spec.inputs, side=side),
        Spec({**spec.inputs, "history": Input((3,), whole, "category")}),
    ]
    assert len({spec, *others}) == 5
