from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from incremental.core.spec import Sizes
from incremental.core.types import Data
from incremental.data.cutting import equal_counts
from incremental.data.simulator import simulate
from incremental.data.stream import Stream, make_stream
from incremental.errors import UserError
from incremental.models.oracle import oracle


@pytest.fixture(scope="module")
def stream() -> Stream:
    table = simulate(users=12, items=30, events=300, days=6, topics=3, groups=2, seed=1)
    return make_stream(source=table, cut=equal_counts(increments=2, base=0.5), history=4)


def test_scores_are_the_laws_own_logits_over_the_items_seen(stream: Stream) -> None:
    items = len(stream.interactions.items)
    sizes = Sizes(item=items + 5, user=len(stream.interactions.users))
    program = oracle(stream).program(stream.spec, sizes, ())
    arrived = stream.interactions.item[: stream.bounds(0)[1]]
    events = np.arange(*stream.bounds(1), dtype=np.int32)[::7]
    fields: list[Any] = [None, np.int32(1), np.int32(0), arrived, {"user": np.ones_like(arrived)}]
    data = Data(*fields)

    @jax.jit
    def scores(events: Any) -> Any:
        state = program.begin(program.init(jax.random.key(0)), data)
        state, _ = program.run_epoch(state, data)
        return program.scores(state, {"event": events})

    found = np.asarray(scores(events))
    assert stream.interactions.law is not None
    expected = stream.interactions.law.scores(events)
    seen = np.isin(np.arange(items), arrived)
    assert not seen[1:].all()  # some items come later
    assert np.isfinite(expected[:, seen]).any()
    np.testing.assert_allclose(found[:, :items][:, seen], expected[:, seen], rtol=1e-5, atol=1e-5)
    assert (found[:, :items][:, ~seen] == -np.inf).all()
    assert (found[:, items:] == -np.inf).all()


def test_a_catalogue_smaller_than_the_streams_scores_its_own_items(stream: Stream) -> None:
    program = oracle(stream).program(stream.spec, Sizes(item=8, user=8), ())
    params = jax.jit(program.init)(jax.random.key(0)).learner.params
    assert stream.interactions.law is not None
    np.testing.assert_array_equal(params["vectors"], stream.interactions.law.vectors[:8].T)


def test_a_stream_without_a_law_is_refused(stream: Stream) -> None:
    lawless = replace(stream, interactions=replace(stream.interactions, law=None))
    with pytest.raises(UserError, match="model=oracle: only the built-in stream"):
        oracle(lawless)
