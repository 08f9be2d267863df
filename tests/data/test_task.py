"""What is predicted of an event: the next item, which behaviour, click or no click."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.data.features import Examples
from incremental.data.interactions import Table
from incremental.data.stream import Stream, make_stream
from incremental.data.task import behaviour, click, next_item
from incremental.data.text import hashed_words
from incremental.errors import UserError
from incremental.models.popularity import popularity
from incremental.run.feed import Feed
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
            "task": behaviour(),
            **chosen,
        }
    )
    return replace(stream, heldout=np.isin(np.arange(len(EVENTS)), heldout))


READ = ("past", "asked")


def value(name: str, stream: Stream, rows: Examples) -> np.ndarray:
    """An input of examples."""
    return stream.features[name].of(stream.interactions, rows)


def mean(*items: str) -> Any:
    return np.mean([OF[item] for item in items], axis=0)


def test_an_event_asks_for_its_behaviour_after_the_texts_before_it() -> None:
    stream = made()
    rows = stream.training_examples(range(2), validation=False, inputs=READ)
    assert rows.label.tolist() == stream.label.tolist() == [1, 2, 2, 1, 3, 3]
    assert stream.labels == ["", "view", "buy", "cart"]
    assert stream.interactions.items == ["", "a", "c", "b"]  # items stay items
    assert stream.interactions.kinds == ("item", "user", "behaviour")
    assert stream.spec.labels == "behaviour"
    np.testing.assert_array_equal(value("asked", stream, rows), [OF[item] for _, item, *_ in EVENTS])
    nothing = np.zeros(32)
    wanted = [nothing, nothing, mean("a"), mean("a", "b"), mean("c"), mean("b", "c")]  # the last two
    np.testing.assert_allclose(value("past", stream, rows), wanted, atol=1e-7)


def test_what_has_the_same_time_is_not_asked_after() -> None:
    wanted = {"strict": [mean("a"), mean("a"), mean("b", "c")], "file": [mean("a"), mean("a", "b"), mean("b", "c")]}
    for ties, past in wanted.items():
        stream = made(times=[0, 1, 2, 2, 3, 4], ties=ties)
        rows = stream.training_examples(range(2), validation=False, inputs=READ)
        np.testing.assert_allclose(value("past", stream, rows)[[2, 3, 5]], past, atol=1e-7)


def test_training_does_not_read_the_heldout_events() -> None:
    stream = made(heldout=[2])
    rows = stream.training_examples(range(2), validation=False, inputs=READ)
    assert rows.event.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(value("past", stream, rows)[[2, 4]], [mean("a"), mean("a", "c")], atol=1e-7)
    tested = stream.test_examples(1, heldout=False, trained_until=0, known={}, inputs=READ)
    np.testing.assert_allclose(value("past", stream, tested)[2], mean("b", "c"), atol=1e-7)


class Told(Feed):
    """Notes which ids' events a test is to leave out."""

    def tests(self, program: Any, known: Any, *rest: Any, **more: Any) -> Any:
        found = super().tests(program, {kind: np.zeros_like(ids) for kind, ids in known.items()}, *rest, **more)
        self.past = found[0].past
        return found


def test_a_test_reads_texts_of_items_that_the_model_does_not_know() -> None:
    """Items are no ids to this model: it knows all of them by their texts."""
    stream, read = made(), ("past", "asked")
    inputs = {name: stream.spec.inputs[name] for name in read}
    feed = Told(stream)
    program: Any = SimpleNamespace(inputs=inputs, sizes=feed.sizes(1, inputs), frozen=None, window=None)
    known = {"behaviour": np.ones(8, bool), "item": np.ones(1024, bool), "user": np.ones(1024, bool)}
    feed.tests(program, known, 1, 0, lambda tree: tree, heldout=False)
    assert feed.past.tolist() == [[0, 2], [-1, 1], [2, 3]]


def test_a_cut_stream_asks_the_same() -> None:
    whole, short = made(), made().prefix(0)
    rows, other = (each.training_examples([0], validation=False, inputs=READ) for each in (whole, short))
    np.testing.assert_array_equal(rows.label, other.label)
    for name in READ:
        np.testing.assert_array_equal(value(name, whole, rows), value(name, short, other))
    assert short.labels == ["", "view", "buy"]
    assert len(short.interactions.side["text"].values) == 4


def test_liked_or_not() -> None:
    stream = made(task=behaviour(liked=8.0), minimum_history=1)
    assert stream.labels == ["", "disliked", "liked"]
    assert stream.training_examples(range(2), validation=False).label.tolist() == [1, 2, 2, 1, 1, 2]
    tested = stream.test_examples(0, heldout=False, trained_until=0, known={}, inputs=READ)
    assert tested.event.tolist() == [2]
    np.testing.assert_allclose(value("asked", stream, tested), [OF["b"]])


def test_click_or_not() -> None:
    stream = made(task=click(clicked=["buy", "cart"]))
    assert stream.labels == ["", "no click", "click"]
    assert stream.label.tolist() == [1, 2, 2, 1, 2, 2]
    assert stream.spec.labels == "click"
    assert {*READ} <= {*stream.spec.inputs}
    assert made(task=click(clicked=["view"])).label.tolist() == [2, 1, 1, 2, 1, 1]
    assert stream.task.classes
    assert "behaviour" not in stream.interactions.kinds


def test_the_next_item() -> None:
    for chosen in ({"task": next_item()}, {"task": None}):
        stream = made(**chosen, text=None)
        assert stream.label.tolist() == stream.interactions.item.tolist() == [1, 2, 3, 2, 1, 1]
        assert stream.labels == ["", "a", "c", "b"]
        assert stream.spec.labels == "item"
        assert stream.spec.kinds == ("item", "user")
        assert {"user", "history"} <= {*stream.spec.inputs}
        assert not {*READ} & {*stream.spec.inputs}
        assert not stream.task.classes


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"text": None}, r"data.text is null; e.g. \+text@data.text=hashed_words"),
        ({"text": lambda titles: np.zeros((len(titles), 3, 4), np.float32)}, "data.text is states of tokens"),
        ({"columns": ("rating",)}, r"no behaviours; name their column \(data.source.behaviour\), or set data.task"),
        ({"columns": (), "task": behaviour(liked=8.0)}, r"liked=8.0: the data has no ratings; name .*source.rating"),
        (
            {"columns": ("rating",), "task": click(clicked=["buy"])},
            r"no behaviours; name their column \(data.source.beh",
        ),
        (
            {"task": click(clicked=["buy", "bought"])},
            r"data.task.clicked=\['buy', 'bought'\]: expected of the data's behaviours, view, buy, cart",
        ),
        ({"task": click(clicked=[])}, r"data.task.clicked=\[\]: expected of the data's behaviours"),
        ({"task": click(clicked=["view", "buy", "cart"])}, "every event is 'click'; there is nothing to predict"),
        ({"task": behaviour(liked=0.0)}, "every event is 'liked'; there is nothing to predict"),
        ({"exclude_seen": True}, "exclude_seen=true: such a label may come again; set it to false"),
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
        task=behaviour(),
    )


def test_a_behaviour_that_comes_with_an_increment_is_a_miss_there_and_a_candidate_behind_it() -> None:
    model = popularity()
    build = lambda sizes: model.program(late().spec, sizes, (1,))  # noqa: E731
    result = lab.run(build, late(), update(), metrics=("recall@1",))
    assert result.sizes.slots == 10  # nine and the padding row
    found = {(record.evaluated_on, record.metric): record for record in result.records}
    new = [found[1, f"recall/b{c}"] for c in range(2, 9)]
    assert [(record.value, record.events) for record in new] == [(0.0, 5 if 4 <= c < 8 else 4) for c in range(2, 9)]
    assert [found[1, f"auc/b{c}"].value for c in range(2, 9)] == [0.5] * 7
    # What comes later has no line before it.
    short = lab.run(build, late(until=1), update(), metrics=("recall@1",))
    assert [str(record) for record in short.records] == [str(r) for r in result.records if r.evaluated_on == 1]
