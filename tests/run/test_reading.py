"""What a metric reads beside ranks and counts: made of the stream, and only where a metric asks for it."""

import functools
from typing import Any

import numpy as np
import polars as pl
import pytest

from incremental.core.program import Program
from incremental.core.spec import Sizes, next_item
from incremental.data.features import Examples
from incremental.data.interactions import Table
from incremental.data.stream import Stream, make_stream
from incremental.data.text import hashed_words
from incremental.errors import UserError
from incremental.metrics.metric import Metric
from incremental.metrics.named import resolved
from incremental.models.popularity import popularity
from incremental.run import loop
from incremental.run.alone import Alone
from incremental.run.executor import Executor
from incremental.run.lanes import Lanes, Programs
from incremental.run.progress import Evaluated
from incremental.run.reading import catalogue_of, field_of, given_to, refuse
from tests import lab

PARTS = [
    [("u", "a"), ("v", "a"), ("u", "b"), ("v", "c"), ("u", "a")],
    [("u", "d"), ("v", "b"), ("w", "a")],
    [("u", "e"), ("v", "d")],
]
SHOPS = {"a": "north", "b": "north", "c": "south", "d": "south", "e": ""}
TITLES = {"a": "red moon", "b": "red sun", "c": "blue sea", "d": "green tree"}
PLAIN = ("ndcg@2", "recall@1")
CHEAP = ("novelty@2", "gini@2", "new_item_exposure@2", "serendipity@2")
OF_LISTS = ("diversity@2", "diversity@2.shop", "calibration@2.shop")


@functools.cache
def stream(**protocol: Any) -> Stream:
    """Items a, b and c of the base part, d of the first increment, e of the second."""
    events = [event for part in PARTS for event in part]
    users, items = zip(*events, strict=True)
    # An item's shop is that of its first event that has one: b's first has none, a's last is another.
    shops = [SHOPS[item] for item in items]
    shops[2], shops[4] = "", "south"
    frame = {"user": users, "item": items, "shop": shops, "time": range(len(events))}
    increment = np.repeat(np.arange(len(PARTS)), [len(part) for part in PARTS]).astype(np.int32)
    source = Table(pl.DataFrame(frame), "by hand", text=TITLES, kinds=("shop",))
    given: Any = {"history": 3, "validation": 0.0, "text": hashed_words(width=64), **protocol}
    return make_stream(source=source, cut=lambda log: (increment[: len(log)], ()), **given)


@functools.cache
def program(sizes: Sizes, _numbers: Any = None) -> Program:
    """The cheapest one to compile."""
    return popularity().program(next_item(3), sizes, (1, 2))


def told(metrics: Any, lanes: int = 0) -> list[list[Any]]:
    """The records of a run, by lane."""
    way: Any = Alone(program)
    if lanes:
        way = Lanes(Programs(lambda sizes, _: program(sizes), {}, lanes), [{"number": 1.0}] * lanes, range(lanes))
    found: list[list[Any]] = [[] for _ in range(max(lanes, 1))]
    for event in loop.run_stream(lab.feed_of(stream()), Executor(way), lab.FINETUNE, metrics=metrics):
        if isinstance(event, Evaluated):
            found[event.lane] += event.records
    return found


def test_metrics_of_lists_change_no_other_number_alone_or_in_lanes() -> None:
    (plain,), (whole,) = told(PLAIN), told((*PLAIN, *CHEAP, *OF_LISTS))
    more = [record for record in whole if record.metric.split("/")[0] in (*CHEAP, *OF_LISTS)]
    assert [str(record) for record in whole if record not in more] == [str(record) for record in plain]
    for lane in told((*PLAIN, *CHEAP, *OF_LISTS), lanes=2):
        assert [str(record) for record in lane] == [str(record) for record in whole]
    value = {(record.metric, record.evaluated_on): record.value for record in more}
    # In increment 1 everyone is shown a and b, of 3 and 1 of 5 events: half of what is shown, each.
    assert value["novelty@2", 1] == pytest.approx((np.log2(5 / 3) + np.log2(5)) / 2)
    assert value["gini@2", 1] == pytest.approx((-2 * 0 + 0 * 3 + 2 * 3) / (2 * 6))
    assert value["diversity@2", 1] == pytest.approx(0.5)  # one word of two
    assert value["diversity@2.shop", 1] == 0.0
    # All are shown the north alone. So was u's past; v had a (north) and c (south); w had nothing and does not count.
    v = 0.5 * np.log(0.5 / 0.995) + 0.5 * np.log(0.5 / 0.005)
    assert value["calibration@2.shop", 1] == pytest.approx((0 + v) / 2)
    # In increment 2 a (4 events) and b (2) are shown; d is new and is not.
    assert value["new_item_exposure@2", 2] == 0.0
    assert np.isnan(value["new_item_exposure@2", 1])


def test_what_is_read_is_the_streams() -> None:
    events = np.arange(*stream().bounds(2), dtype=np.int32)
    none: Any = np.zeros((2, 0), np.int32)
    rows = Examples(events, stream().interactions.user[events], none, stream().label[events], events)
    metric = Metric("mine", lambda: None, 2, ("lists", "past", "text", "shop"))
    given = given_to(metric, stream(), 2, rows, np.arange(6).reshape(2, 3))
    names = stream().interactions.items
    assert given["lists"].tolist() == [[0, 1], [3, 4]]
    assert ["".join(names[i] for i in own) for own in given["past"]] == ["bad", "acb"]
    assert given["text"].shape == (6, 64)
    shops = stream().interactions.vocabulary("shop")
    assert [shops[i] for i in given["shop"]] == ["", "north", "north", "south", "south", ""]
    assert [shops[i] for i in field_of(stream(), "shop", 0)] == ["", "north", "", "south", "", ""]
    for t, new in ((1, [0, 4, 5]), (2, [0, 4, 5])):
        count = np.bincount(stream().label[stream().training_events(range(t))], minlength=6)
        assert np.flatnonzero(catalogue_of(stream(), t, count, count > 0).new).tolist() == new


@pytest.mark.parametrize(
    ("name", "protocol", "situation", "said"),
    [
        (
            "diversity@2",
            {"text": None},
            "a metric of text vectors without texts",
            "diversity@2 reads the items' text v",
        ),
        (
            "diversity@2.color",
            {},
            "a metric of a field that the data lacks",
            "reads the field color, .* not have .shop",
        ),
    ],
)
def test_a_metric_that_lacks_its_side_data_is_refused(
    name: str, protocol: Any, situation: str, said: str, documented: Any
) -> None:
    events = loop.run_stream(
        lab.feed_of(stream(**protocol)), Executor(Alone(program)), lab.FINETUNE, metrics=(*PLAIN, name)
    )
    with pytest.raises(UserError, match=said) as error:
        next(events)
    documented(situation, error.value)


def test_a_program_or_a_metric_that_has_no_lists_is_refused() -> None:
    own = program(Sizes(item=128, user=128))
    with pytest.raises(UserError, match="diversity@2 reads each event's first items, which the model's program does"):
        refuse(resolved(OF_LISTS), stream(), own._replace(rank_lists=None))
    with pytest.raises(UserError, match="mine reads lists, but does not say how long they are"):
        refuse([Metric("mine", lambda: None, reads=("lists",))], stream(), own)
    refuse(resolved((*PLAIN, *CHEAP, *OF_LISTS)), stream(), own)
