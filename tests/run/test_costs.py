"""What an update is charged with."""

import time
from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.types import bytes_of
from incremental.run.alone import Bound
from incremental.run.feed import BYTES_AN_INTERACTION, Feed
from tests import lab

pytestmark = pytest.mark.usefixtures("shared_programs", "one_shape")
PLAIN = lab.Spec()


def test_costs_of_the_policies() -> None:
    stream = lab.stream()
    results = {name: lab.run(lab.build(PLAIN), stream, policy) for name, policy in lab.POLICIES.items()}
    first = {"static": 9, "finetune": 0, "window": -1, "retrain": -9}  # relative to t
    for name, result in results.items():
        assert [cost.increment for cost in result.costs] == [0, 1, 2, 3]
        base = result.costs[0]
        assert base.examples == base.epochs * lab.rows_of(stream, 0) > 0
        for cost in result.costs[1:]:
            t = cost.increment
            used = range(max(t + first[name], 0), t + 1)
            assert cost.examples == cost.epochs * lab.rows_of(stream, *used)
            past = [
                e for e in range(len(stream.increment)) if stream.increment[e] in used[:-1] and not stream.heldout[e]
            ]
            assert cost.memory_bytes == BYTES_AN_INTERACTION * len(past)
            assert (cost.parameters_written > 0) == (name != "static")
            assert (cost.epochs > 0) == (name != "static")
            assert cost.seconds >= 0
    for one in results.values():
        assert one.costs[0][5:] == results["static"].costs[0][5:]  # all rows of a table share the base part
    weights = sum(leaf.size for leaf in jax.tree.leaves(results["retrain"].state.learner.params))
    assert results["retrain"].costs[1].parameters_written > 0.9 * weights


def test_no_update_is_charged_for_waiting_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a live learner waits, for minutes."""
    wait, waiting = Feed.wait, 0.5

    def slow(feed: Feed, t: int) -> bool:
        time.sleep(waiting)
        return wait(feed, t)

    monkeypatch.setattr(Feed, "wait", slow)
    start = time.perf_counter()
    result = lab.run(lab.build(PLAIN), lab.stream(), lab.POLICIES["static"])
    passed = time.perf_counter() - start
    assert sum(cost.wall_seconds for cost in result.costs) <= passed - len(result.costs) * waiting


def test_replayed_rows_and_memories_are_charged() -> None:
    result = lab.run(lab.build(lab.Spec("replay+ewc")), lab.stream())
    steps = [cost.epochs * -(-lab.rows_of(lab.stream(), t) // 32) for t, cost in enumerate(result.costs)]
    for t, (cost, number) in enumerate(zip(result.costs, steps, strict=True)):
        replayed = cost.examples - cost.epochs * lab.rows_of(lab.stream(), t)
        assert replayed == (16 * number if t else 0)  # the base part is plain training
        assert cost.memory_bytes == bytes_of(result.state.strategy)
    assert bytes_of(result.state.strategy["replay"]) == 96 * (4 + 4 + 4 + 1 + 4 + 4) + 4


def test_parameters_written_are_those_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, sums, taken = lab.stream(), Bound.sums, []

    def noted(bound: Bound, state: Any) -> Any:
        if isinstance(state.key, jax.Array):  # and not a shape, to compile ahead
            taken.append(bound.program.sizes)
        return sums(bound, state)

    monkeypatch.setattr(Bound, "sums", noted)
    result = lab.run(lab.baseline_build("popularity"), stream)
    items = stream.interactions.item[~stream.heldout]
    increment = stream.increment[~stream.heldout]

    def weight(until: int) -> np.ndarray:
        total = np.zeros(200)
        for i in range(until + 1):
            total += 0.5 ** (until - i) * np.bincount(items[increment == i], minlength=200)
        return total

    for t, cost in enumerate(result.costs):
        # Decay halves what an item had; a weight whose new events exactly replace what it lost stays.
        old, new = weight(t - 1), weight(t)
        assert cost.parameters_written == (old != new).sum()
        assert cost.examples == (increment == t).sum()  # all that arrived: it needs no validation part
    # Once an update, for what one leaves is where the next one starts, and once at the start of each size.
    assert len(taken) == len(result.costs) + len(set(taken))
