"""What models may read of an example: values by hand, and that no feature reads what is later."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.core.spec import Input
from incremental.data import features as of
from incremental.data.features import Examples, Feature
from incremental.data.interactions import Table
from incremental.data.stream import Stream, make_stream
from incremental.errors import UserError
from incremental.run.feed import Feed
from incremental.run.policy import Plan
from tests import lab

EVENTS = [  # user, item, category
    ("u", "a", "shoe"),
    ("v", "c", ""),
    ("u", "b", "shoe"),
    ("u", "c", "tea"),
    ("v", "a", "hat"),
    ("u", "a", None),
]
TEXT = np.array([[0, 0], [1, 5], [2, 7], [4, 1]], np.float32)  # of a, c, b
TITLES = np.array([[0, 0, 0], [1, 5, 2], [1, 6, 0], [1, 7, 2]], np.int32)  # 1 opens a title
WHOLE = np.dtype(np.int32)


def made(events: list[Any] = EVENTS, *, text: Any = None, **features: Feature) -> Stream:
    schema = {"user": pl.String, "item": pl.String, "category": pl.String}
    frame = pl.DataFrame(events, schema=schema, orient="row").with_columns(time=pl.int_range(pl.len()))
    names = {item: item for item in "abcdefgh"}
    return make_stream(
        source=Table(frame, "shop.csv", names, kinds=("category",)),
        cut=lambda log: ((np.arange(len(log)) // 3).astype(np.int32), ()),
        history=2,
        validation=0.0,
        text=None if text is None else lambda titles: text[: len(titles)],
        features=features,
    )


def read(name: str, stream: Stream) -> list[Any]:
    """The feature's values of all events, as a training that reads it has them."""
    rows = stream.training_examples(range(len(stream)), validation=False, inputs=(name,))
    value = stream.features[name].of(stream.interactions, rows)
    each = stream.spec.inputs[name]
    assert value.shape == (len(rows), *each.shape)
    assert value.dtype == each.dtype
    return value.tolist()


def test_a_history_of_a_further_kind_holds_its_ids_where_events_have_none_0() -> None:
    stream = made(worn=of.history(length=2, kind="category"))
    assert stream.interactions.vocabulary("category") == ["", "shoe", "tea", "hat"]
    # Events 0 and 1 have nothing before them; the second one's category is empty, and stays a place of the history.
    assert read("worn", stream) == [[0, 1], [1, 1], [0, 0], [1, 2]]
    assert stream.spec.inputs["worn"] == Input((2,), WHOLE, "category")
    assert read("history", stream) == [[0, 1], [1, 3], [0, 2], [3, 2]]
    assert stream.spec.kinds == ("item", "user", "category")


def test_what_is_following_is_of_the_same_update() -> None:
    stream = made(events=[*EVENTS, ("u", "b", "tea"), ("v", "c", "hat"), ("u", "c", None)], worn=of.history(length=2))
    feature = of.following(length=2)
    rows = stream.training_examples([0, 1], validation=False, inputs=("following",))
    ids = stream.interactions.ids("item")
    a, b, c = (ids[place] for place in (0, 2, 1))
    assert feature.of(stream.interactions, rows).tolist() == [[b, c], [a, 0], [c, a], [a, 0], [0, 0], [0, 0]]
    other = stream.training_examples([1], validation=None, inputs=("following",))
    assert not feature.of(stream.interactions, other).any()


def test_the_events_own_id_is_current() -> None:
    stream = made(shelf=of.current(kind="category"))
    assert read("shelf", stream) == [1, 0, 1, 2, 3, 0]  # none is left out: it needs no history
    assert stream.spec.inputs["shelf"] == Input((), WHOLE, "category")
    assert read("user", stream) == [1, 2, 1, 1, 2, 1]
    assert read("event", stream) == [0, 1, 2, 3, 4, 5]


def test_times_are_seconds_before_the_last_event_of_the_past() -> None:
    stream = made(times=of.times(length=2))
    # Event n happens at second n; u has events 0, 2, 3 and 5, v 1 and 4.
    assert read("times", stream) == [[0, 0], [0, 0], [0, 0], [2, 0], [0, 0], [1, 0]]
    assert stream.spec.inputs["times"] == Input((2,), WHOLE, "second")
    later = replace(stream.interactions, time=np.array([0, 1, 2**40, 3, 4, 5]))  # a time in other units
    rows = stream.training_examples(range(2), validation=False, inputs=("times",))
    assert of.times(length=2).of(later, rows)[3].tolist() == [2**31 - 1, 0]


def test_the_mean_of_texts_is_over_what_is_there_and_0_where_nothing_is() -> None:
    stream = made(text=TEXT, past=of.mean_text(TEXT), asked=of.own_text(TEXT))
    a, c, b = TEXT[1:]
    wanted = [[0, 0], [0, 0], a, (a + b) / 2, c, (b + c) / 2]
    np.testing.assert_allclose(read("past", stream), wanted)
    np.testing.assert_array_equal(read("asked", stream), [a, c, b, c, a, a])
    assert stream.spec.inputs["past"] == Input((2,), np.dtype(np.float32), None)


def test_titles_stand_one_behind_the_other_the_last_first() -> None:
    stream = made(text=TITLES, said=of.tokens(TITLES, 2))
    assert read("said", stream)[3] == [1, 6, 7, 2, 5, 2, 0, 0, 0]  # c, then b and a without their openings
    assert read("said", stream)[0] == [1, 5, 2, 0, 0, 0, 0, 0, 0]


def test_before_is_0_where_there_is_nothing() -> None:
    rows = Examples(*(np.zeros(2, np.int32),) * 2, np.array([[-1, 2], [0, 1]], np.int32), *(np.zeros(2, np.int32),) * 2)
    assert of.before(np.array([7, 8, 9]), rows).tolist() == [[0, 9], [7, 8]]
    empty = Examples(*(np.zeros(1, np.int32),) * 2, np.array([[-1]], np.int32), *(np.zeros(1, np.int32),) * 2)
    assert of.before(np.zeros(0, np.int32), empty).tolist() == [[0]]


# -- the prefix law ---------------------------------------------------------------------------------------------------


def peeking() -> Feature:
    """A planted leak: the category of the event that comes next."""

    def ahead(log: Any, examples: Examples) -> np.ndarray:
        ids: np.ndarray = log.ids("category")
        return ids[np.minimum(examples.event + 1, len(ids) - 1)]

    return Feature(Input((), WHOLE, "category"), ahead)


def counted() -> Feature:
    """Another: how often the user occurs in the whole log."""

    def often(log: Any, examples: Examples) -> np.ndarray:
        return np.bincount(log.user)[examples.user].astype(np.int32)

    return Feature(Input((), WHOLE, "count"), often)


FEATURES = {
    "worn": lambda: of.history(length=2, kind="category"),
    "shelf": lambda: of.current(kind="category"),
    "past": lambda: of.mean_text(TEXT),
    "asked": lambda: of.own_text(TEXT),
    "said": lambda: of.tokens(TITLES, 2),
    "user": of.user,
    "history": lambda: of.history(length=2),
    "following": lambda: of.following(length=2),
    "times": lambda: of.times(length=2),
    "event": of.event,
    "peeking": peeking,
    "counted": counted,
}


def later_matters(name: str) -> bool:
    """Whether the feature has, of the events up to increment t, other values once the log has gone on."""
    rng = np.random.default_rng(0)
    drawn = [(f"{rng.integers(3)}", "abcdefgh"[rng.integers(8)], f"{rng.integers(4)}") for _ in range(30)]
    text: Any = rng.integers(1, 9, (9, 3)).astype(np.int32)
    text[0] = 0
    text = text if name == "said" else text.astype(np.float32)[:, :2]

    def values(stream: Stream, t: int) -> list[Any]:
        found = []
        every = {kind: np.ones(99, bool) for kind in ("item", "category")}
        for rows in (
            stream.training_examples(range(t + 1), validation=False, inputs=("mine",)),
            stream.test_examples(t, heldout=False, trained_until=t - 1, known=every, inputs=("mine",)),
        ):
            found += [rows.event.tolist(), stream.features["mine"].of(stream.interactions, rows).tolist()]
        return found

    whole = made(drawn, text=text, mine=FEATURES[name]())
    moved = False
    for t in range(1, len(whole) - 1):
        short = made(drawn[: 3 * t + 3], text=text, mine=FEATURES[name]())
        assert len(short) == t + 1
        moved |= values(short, t) != values(whole, t)
    return moved


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_never_reads_later_events(name: str) -> None:
    assert later_matters(name) == (name in ("peeking", "counted"))


def test_a_feature_reads_the_log_by_places() -> None:
    """A text table of other ids: what stands in the examples decides, not the order in which they are asked for."""
    log: Any = SimpleNamespace(item=np.array([1, 3, 2], np.int32), side={"text": SimpleNamespace(values=TEXT)})
    one = np.zeros(2, np.int32)
    rows = Examples(np.array([2, 1], np.int32), one, np.array([[0, 1], [-1, 0]], np.int32), one, one)
    np.testing.assert_array_equal(of.mean_text(TEXT).of(log, rows), [(TEXT[1] + TEXT[3]) / 2, TEXT[1]])
    np.testing.assert_array_equal(of.own_text(TEXT).of(log, rows), [TEXT[2], TEXT[3]])


def test_a_name_that_examples_hold_already_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.features\.history: examples hold this already \(user, history"):
        lab.stream(features={"history": of.history(length=2)})


def test_a_feature_that_makes_another_shape_than_it_says_is_refused() -> None:
    stream = lab.stream(features={"long": of.history(length=3)})
    rows = stream.training_examples([0], validation=False, inputs=["long"])
    with pytest.raises(UserError, match=r"data\.features\.long: it makes \[\d+, 8\] of \d+ examples, .* holds \[3\]"):
        Feed(stream).examples(rows, ["long"], 0)


def test_an_id_without_a_table_row_is_refused_before_it_takes_another_one_s(
    documented: Callable[[str, object], None],
) -> None:
    made = of.current(kind="item")
    program: Any = SimpleNamespace(inputs={"shelf": made.input}, counting=False, sharing=None, frozen=None, window=None)
    plan = Plan(arrived=range(1), increments=range(1), newest=range(1), afresh=False)

    def refused(wrong: int) -> UserError:
        feature = made._replace(of=lambda _log, rows: np.full(len(rows), wrong, np.int32))
        feed = Feed(lab.stream(features={"shelf": feature}))
        program.sizes = feed.sizes(0)
        said = rf"data\.features\.shelf: it makes the item {wrong}; expected numbers from 0.* 1,024 rows"
        with pytest.raises(UserError, match=said) as error:
            feed.update(program, 0, plan, lambda tree: tree)
        return error.value

    refused(-1)
    documented("a feature of your own with ids that do not occur", refused(10**6))


def test_a_kind_with_a_taken_name_is_refused_from_any_source() -> None:
    table = lab.simulated()
    table = table._replace(frame=table.frame.with_columns(click=table.frame["item"]), kinds=("click",))
    with pytest.raises(UserError, match=r"data\.source\.kinds\.click: the name is taken"):
        lab.stream(table)
