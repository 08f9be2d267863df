"""Streams whose labels are behaviours."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.core.spec import next_item
from incremental.data.behaviour import behaviour
from incremental.data.interactions import Table
from incremental.data.stream import Stream, make_stream
from incremental.data.text import hashed_words
from incremental.errors import UserError
from incremental.models.popularity import popularity
from incremental.run.policy import update
from tests import lab

TITLES = {"a": "red shoe", "b": "blue shoe", "c": "tea"}
EVENTS = [  # user, item, behaviour, rating
    ("u", "a", "view", 3.0),
    ("v", "c", "buy", 9.0),
    ("u", "b", "buy", 8.0),
    ("u", "c", "view", 2.0),
    ("v", "a", "cart", 7.0),
    ("u", "a", "cart", 8.5),
]
WORDS = hashed_words(width=32)
OF = dict(zip(TITLES, WORDS(list(TITLES.values())), strict=True))


def made(
    *,
    columns: tuple[str, ...] = ("behaviour", "rating"),
    heldout: list[int] = [],  # noqa: B006
    times: list[int] = [*range(len(EVENTS))],  # noqa: B006
    **chosen: Any,
) -> Stream:
    frame = pl.DataFrame(EVENTS, schema=["user", "item", "behaviour", "rating"], orient="row")
    frame = frame.with_columns(time=pl.Series(times)).select("user", "item", "time", *columns)
    stream = make_stream(
        **{
            "source": Table(frame, "shop.csv", TITLES),
            "cut": lambda events: (np.array([0, 0, 0, 1, 1, 1], np.int32)[: len(events)], ()),
            "history": 2,
            "heldout": 0.0,
            "validation": 0.0,
            "text": WORDS,
            "predict": behaviour(),
            **chosen,
        }
    )
    return replace(stream, heldout=np.isin(np.arange(len(EVENTS)), heldout))


def mean(*items: str) -> Any:
    return np.mean([OF[item] for item in items], axis=0)


def test_an_event_asks_for_its_behaviour_after_the_texts_before_it() -> None:
    rows = made().training_examples(range(2), validation=False)
    assert rows.label.tolist() == [1, 2, 2, 1, 3, 3]
    assert made().interactions.items == ["", "view", "buy", "cart"]
    np.testing.assert_array_equal(rows.asked, [OF[item] for _, item, *_ in EVENTS])
    nothing = np.zeros(32)
    wanted = [nothing, nothing, mean("a"), mean("a", "b"), mean("c"), mean("b", "c")]  # the last two
    np.testing.assert_allclose(rows.past, wanted, atol=1e-7)


def test_what_has_the_same_time_is_not_asked_after() -> None:
    wanted = {"strict": [mean("a"), mean("a"), mean("b", "c")], "file": [mean("a"), mean("a", "b"), mean("b", "c")]}
    for ties, past in wanted.items():
        rows = made(times=[0, 1, 2, 2, 3, 4], ties=ties).training_examples(range(2), validation=False)
        np.testing.assert_allclose(rows.past[[2, 3, 5]], past, atol=1e-7)


def test_training_does_not_read_the_heldout_events() -> None:
    stream = made(heldout=[2])
    rows = stream.training_examples(range(2), validation=False)
    assert rows.event.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(rows.past[[2, 4]], [mean("a"), mean("a", "c")], atol=1e-7)
    known = np.zeros(8, bool)  # a test reads all that came before, of items the model knows or not
    tested = stream.test_examples(1, heldout=False, trained_until=0, known={"item": known})
    np.testing.assert_allclose(tested.past[2], mean("b", "c"), atol=1e-7)


def test_a_cut_stream_asks_the_same() -> None:
    whole, short = made(), made().prefix(0)
    rows, other = (each.training_examples([0], validation=False) for each in (whole, short))
    for name in ("label", "past", "asked"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(other, name))
    assert short.interactions.items == ["", "view", "buy"]
    assert short.question is not None
    assert len(short.question.text) == 4


def test_liked_or_not() -> None:
    stream = made(predict=behaviour(liked=8.0), minimum_history=1)
    assert stream.interactions.items == ["", "disliked", "liked"]
    assert stream.training_examples(range(2), validation=False).label.tolist() == [1, 2, 2, 1, 1, 2]
    tested = stream.test_examples(0, heldout=False, trained_until=0, known={"item": np.ones(8, bool)})
    assert tested.event.tolist() == [2]
    np.testing.assert_allclose(tested.asked, [OF["b"]])


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"text": None}, r"data.text is null; e.g. \+text@data.text=hashed_words"),
        ({"text": lambda titles: np.zeros((len(titles), 3, 4), np.float32)}, "data.text is states of tokens"),
        ({"columns": ("rating",)}, "no behaviours; name their column, or set data.task.liked"),
        ({"columns": (), "predict": behaviour(liked=8.0)}, r"liked=8.0: the data has no ratings"),
        ({"predict": behaviour(liked=0.0)}, "every event is 'liked'; there is nothing to predict"),
        ({"exclude_seen": True}, "exclude_seen=true: a behaviour may come again; set it to false"),
    ],
)
def test_what_cannot_be_asked(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made(**chosen)


def late(until: int | None = None) -> Stream:
    """Three parts of 40 events: two behaviours in the base part, nine from then on; a table begins with room for 8."""
    kinds = [f"b{i % (2 if i < 40 else 9)}" for i in range(120 if until is None else 40 * (until + 1))]
    events = [(f"u{i % 5}", f"i{i % 7}", i, kind) for i, kind in enumerate(kinds)]
    return make_stream(
        source=Table(
            pl.DataFrame(events, schema=["user", "item", "time", "behaviour"], orient="row"),
            "shop.csv",
            {f"i{i}": f"word{i}" for i in range(7)},
        ),
        cut=lambda events: ((np.arange(len(events)) // 40).astype(np.int32), ()),
        history=1,
        heldout=0.0,
        text=WORDS,
        predict=behaviour(),
    )


def test_a_behaviour_that_comes_with_an_increment_is_a_miss_there_and_a_candidate_behind_it() -> None:
    model = popularity()
    build = lambda sizes: model.program(next_item(8), sizes, (1,))  # noqa: E731
    result = lab.run(build, late(), update(), metrics=("recall@1",))
    assert result.sizes.slots == 10  # nine and the padding row
    found = {(record.evaluated_on, record.metric): record for record in result.records}
    new = [found[1, f"recall/b{c}"] for c in range(2, 9)]
    assert [(record.value, record.events) for record in new] == [(0.0, 5 if 4 <= c < 8 else 4) for c in range(2, 9)]
    assert [found[1, f"auc/b{c}"].value for c in range(2, 9)] == [0.5] * 7
    # What comes later has no line before it.
    short = lab.run(build, late(until=1), update(), metrics=("recall@1",))
    assert [str(record) for record in short.records] == [str(r) for r in result.records if r.evaluated_on == 1]
