"""What is told of a test: on the same events for every policy, and popularity by average ranks."""

from typing import Any

import numpy as np
import pytest

from incremental.core.types import Ranks
from incremental.data.features import Examples
from incremental.data.stream import Stream
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


def test_percentiles_are_average_ranks() -> None:
    assert percentiles(np.array([4, 4, 4])).tolist() == [0.5] * 3
    assert percentiles(np.array([7, 0, 0, 9, 1])).tolist() == [0.75, 0.125, 0.125, 1.0, 0.5]
    assert percentiles(np.random.default_rng(0).poisson(1.0, 50)).mean() == pytest.approx(0.5)
