"""What is told of a test: on the same events for every policy, and popularity by average ranks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from incremental.app import config
from incremental.core.spec import Sizes
from incremental.core.steps import count_arrivals, empty_catalogue
from incremental.core.types import Data, Ranks
from incremental.data.choosing import Sample
from incremental.data.features import Examples
from incremental.data.growing import released
from incremental.data.interactions import Table
from incremental.data.stream import Stream, make_stream
from incremental.data.task import behaviour
from incremental.data.text import hashed_words
from incremental.errors import UserError
from incremental.metrics.metric import Catalogue, Metric, check
from incremental.run.check import check as consistent
from incremental.run.feed import Feed
from incremental.run.progress import Record
from incremental.run.records import percentiles, prequential
from tests import lab

NONE: Any = None
GROUPS = ("cold_users", "cold_items", "rare_items")


@pytest.mark.usefixtures("shared_programs")
def test_groups_are_the_same_events_whatever_the_policy_trained_on() -> None:
    stream, events = lab.stream(heldout=0.2), {}
    for policy in ("static", "finetune", "afresh"):
        update = lab.update(start="afresh") if policy == "afresh" else lab.POLICIES[policy]
        result = lab.run(lab.baseline_build("popularity"), stream, update)
        events[policy] = {r[:3]: r.events for r in result.records if r.metric.split("/")[-1] in GROUPS}
    assert events["static"] == events["finetune"] == events["afresh"]

    users, items = stream.interactions.user, stream.interactions.item
    for t in range(1, len(stream)):
        past = np.flatnonzero(~stream.heldout & (stream.increment < t))
        times = {item: (items[past] == item).sum() for item in {*items}}
        here = np.arange(*stream.bounds(t))
        expected = {
            "cold_users": sum(users[e] not in users[past] for e in here),
            "cold_items": sum(times[items[e]] == 0 for e in here),
            "rare_items": sum(1 <= times[items[e]] < 5 for e in here),
        }
        assert {name: events["static"][t - 1, t, f"ndcg@10/{name}"] for name in GROUPS} == expected
        assert min(expected.values()) > 0


@pytest.mark.usefixtures("shared_programs")
def test_a_least_history_leaves_out_the_same_events_for_every_policy() -> None:
    stream = lab.stream(heldout=0.2, minimum_history=2)
    runs = [lab.run(lab.baseline_build("popularity"), stream, lab.POLICIES[name]) for name in ("static", "finetune")]
    static, finetune = ([r.events for r in run.records if r.metric == "ndcg@10"] for run in runs)
    assert static == finetune
    assert min(finetune) < 150  # of each increment


def told(stream: Stream, recommended: list[int], *, listed: bool = False) -> dict[str, Record]:
    """Records of increment 1 where these items were each recommended once as the first."""
    events = np.arange(*stream.bounds(1), dtype=np.int32)
    rows = Examples(events, stream.interactions.user[events], NONE, stream.interactions.item[events], NONE)
    shown = np.bincount(recommended, minlength=8)[None]
    ranks = Ranks(np.zeros(len(events), np.float32), shown)  # type: ignore[arg-type]
    return {r.metric: r for r in prequential(("recall@1",), stream, 1, 0, rows, ranks, listed=listed)}


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Items 1 to 4 have 1, 1, 1 and 3 training events; 5 is new in increment 1."""
    base = [("u", item) for item in "abcddd"]
    return lab.written([base, [("u", "e"), ("u", "d")]], heldout=0.0, validation=0.0)


def test_items_of_equal_counts_are_equally_popular(stream: Stream) -> None:
    for item in (1, 2, 3):  # whichever came first
        assert told(stream, [item])["popularity@1"].value == pytest.approx(1 / 3)
    assert told(stream, [4])["popularity@1"].value == 1.0
    assert told(stream, [1, 2, 3, 4])["popularity@1"].value == pytest.approx(0.5)
    assert np.isnan(told(stream, [])["popularity@1"].value)


def test_listed_items_are_recommended_and_candidates(stream: Stream) -> None:
    found = told(stream, [5, 5, 4], listed=True)  # of the candidates 1 to 5; e and d are listed
    assert found["popularity@1"].value == pytest.approx((0 + 0 + 1) / 3)
    assert found["coverage@1"].value == pytest.approx(2 / 5)
    assert told(stream, [5, 5, 4])["coverage@1"].value == pytest.approx(1 / 4)


def test_known_items_are_candidates_from_the_start(stream: Stream) -> None:
    known = replace(stream, unseen_items="known")
    assert told(known, [5, 5, 4])["coverage@1"].value == pytest.approx(2 / 5)
    feed = Feed(known)
    assert feed.sizes(0)["item"] >= 6
    listed = feed.known(Sizes(item=8, user=2))
    assert listed.tolist() == [False, *[True] * 5, False, False]
    assert Feed(stream).known(Sizes(item=8, user=2)) is None
    none = jnp.zeros(1, jnp.int32)
    nothing = Data(None, None, jnp.int32(0), none, {"user": none}, listed=listed)  # type: ignore[arg-type]
    catalogue = count_arrivals(empty_catalogue(Sizes(item=8, user=2)), nothing)
    assert catalogue.seen.tolist() == listed.tolist()
    assert catalogue.events.sum() == 0


def test_a_log_that_goes_on_has_no_known_end(stream: Stream, documented: Callable[[str, object], None]) -> None:
    feed = Feed(replace(stream, unseen_items="known"))
    feed.endless = True
    with pytest.raises(UserError, match="a log that goes on may bring others") as error:
        consistent(feed, NONE, lab.FINETUNE, ("recall@1",), matrix=False, batch_size=None)
    documented("a live loop that is to know all items", error.value)


def test_percentiles_are_average_ranks() -> None:
    assert percentiles(np.array([4, 4, 4])).tolist() == [0.5] * 3
    assert percentiles(np.array([7, 0, 0, 9, 1])).tolist() == [0.75, 0.125, 0.125, 1.0, 0.5]
    assert percentiles(np.random.default_rng(0).poisson(1.0, 50)).mean() == pytest.approx(0.5)


def test_the_mean_of_a_sample_has_a_standard_error(stream: Stream) -> None:
    at = np.zeros(4, np.int32)
    rows = Examples(at, at, NONE, np.array([5, 4, 4, 4], np.int32), NONE, of=16)
    ranks = Ranks(np.array([0.0, 0.0, 1.0, 1.0], np.float32), np.zeros((1, 6), int))  # type: ignore[arg-type]
    found = {r.metric: r for r in prequential(("recall@1",), stream, 1, 0, rows, ranks)}
    # Of 1, 1, 0, 0 the variance is 1/3; three quarters of the test were not drawn.
    assert found["recall@1/standard_error"].value == pytest.approx(math.sqrt(1 / 3 / 4 * 3 / 4))
    assert found["recall@1/standard_error"].events == 4
    assert np.isnan(found["recall@1/cold_items/standard_error"].value)  # of one event
    assert "coverage@1/standard_error" not in found
    whole = replace(rows, of=4)
    found = {r.metric: r for r in prequential(("recall@1",), stream, 1, 0, whole, ranks)}
    assert found["recall@1/standard_error"].value == 0.0


@pytest.mark.usefixtures("shared_programs")
def test_a_sample_of_all_events_is_the_test_itself_and_a_smaller_one_is_for_held_out_parts_too() -> None:
    stream, build = lab.stream(heldout=0.2), lab.baseline_build("popularity")
    sampled, every, none = (
        lab.run(build, stream, feed={"sample": sample}, matrix=True) for sample in (Sample(20), Sample(10_000), None)
    )
    assert {r.events for r in sampled.records if r.metric == "ndcg@10"} == {20}
    assert {r.events for r in sampled.records if r.metric == "heldout/ndcg@10"} == {20}
    errors = [r for r in every.records if r.metric.endswith("/standard_error")]
    assert errors
    assert not any(r.value for r in errors)
    assert [str(r) for r in every.records if r not in errors] == [str(r) for r in none.records]


def test_classes_whose_events_were_let_go_are_told_of() -> None:
    """A behaviour that is rare, and of no event that a log which goes on still has, stays a class."""
    did = ["view", "cart", "buy", *["view", "cart"] * 10, "view"]
    frame = pl.DataFrame({"user": "u", "item": [f"i{n % 3}" for n in range(24)], "behaviour": did, "time": range(24)})
    whole = make_stream(
        source=Table(frame, "by hand", text={f"i{n}": f"word{n}" for n in range(3)}),
        cut=lambda log: (np.repeat(np.arange(4), 6).astype(np.int32)[: len(log)], ()),
        history=2,
        validation=0.0,
        text=hashed_words(width=8),
        task=behaviour(),
    )
    few = released(whole, 2)
    assert 3 not in few.label

    def report(stream: Stream) -> list[str]:
        events = np.arange(*stream.bounds(3), dtype=np.int32)
        rows = Examples(events, stream.interactions.user[events], NONE, stream.label[events], NONE)
        scores = np.tile(np.array([-np.inf, 0, 1, 2, *[-np.inf] * 4], np.float32), (len(events), 1))  # it says "buy"
        ranks = Ranks(np.zeros(len(events), np.float32), np.zeros((1, 8), int), scores)  # type: ignore[arg-type]
        return [str(record) for record in prequential(("recall@1",), stream, 3, 2, rows, ranks)]

    assert any("precision/buy" in record for record in report(few))
    assert report(few) == report(whole)


def ones(*, name: str = "mine@1") -> Metric:
    """A plugin's metric of each event: whether its label was the first, nothing of the first event."""

    def measure(ranks: Any, recommended: Any, catalogue: Catalogue, rows: Examples) -> Any:
        assert catalogue.names[5] == "e"
        assert catalogue.events.tolist() == [0, 1, 1, 1, 3, 0]
        assert recommended[1].tolist() == [0, 0, 0, 0, 0, 1]
        assert rows.label.tolist() == [5, 4]
        return np.array([np.nan, 0.5]) if name == "mine@1" else np.float32(7.0) if name == "number" else ranks[:1]

    return Metric(name, measure)


def own(stream: Stream, *names: str) -> dict[str, Record]:
    events = np.arange(*stream.bounds(1), dtype=np.int32)
    rows = Examples(events, stream.interactions.user[events], NONE, stream.interactions.item[events], NONE)
    ranks = Ranks(np.zeros(2, np.float32), np.bincount([5], minlength=6)[None])  # type: ignore[arg-type]
    nodes = [{"_target_": f"{__name__}.ones", "name": name} for name in names]
    metrics = config.build(
        {"_target_": "incremental.app.assemble.evaluation", "metrics": ["recall@1", *nodes]}, "evaluation"
    ).metrics
    return {r.metric: r for r in prequential(metrics, stream, 1, 0, rows, ranks)}


def test_a_metric_of_ones_own_is_told_by_event_and_by_number(stream: Stream) -> None:
    found = own(stream, "mine@1", "number")
    assert (found["mine@1"].value, found["mine@1"].events) == (0.5, 1)
    assert (found["mine@1/cold_items"].events, found["mine@1/rare_items"].events) == (0, 1)
    assert (found["number"].value, found["number"].events) == (7.0, 2)
    assert "number/cold_items" not in found
    assert "mine@1" not in own(stream)


def test_a_metric_that_cannot_be_told_is_refused(stream: Stream) -> None:
    with pytest.raises(
        UserError, match=r"wrong returned values of shape \(1,\); expected one number, or one for each of the 2"
    ):
        own(stream, "wrong")
    with pytest.raises(UserError, match="the name 'a/b' may have letters"):
        own(stream, "a/b")
    with pytest.raises(UserError, match="mine@1 is there twice"):
        own(stream, "mine@1", "mine@1")
    with pytest.raises(UserError, match="number is the first; the first is what sweeps"):
        check([ones(name="number")])
