"""Updates and tests by the compiled functions alone: a loop compiles a base part, a validation and sums as well."""

from typing import Any

import jax
import numpy as np

from incremental.core.types import State
from incremental.data.stream import Stream
from incremental.run import alone
from incremental.run.alone import Build
from incremental.run.lanes import Lanes
from tests import lab


def classified(build: Build, stream: Stream, epochs: int, **feed: Any) -> tuple[State, float]:
    """The state after increments 0 and 1, without a base part, a validation or a loop; the accuracy on the third."""
    own = lab.feed_of(stream, **feed)
    f = lab.functions(build(own.sizes(2)))
    state = f.init(jax.random.key(0))
    for t in (0, 1):
        data, _ = lab.update_data(stream, f.program, t, **feed)
        state = f.begin(state, data)
        for _ in range(epochs):
            state, _ = f.run_epoch(state, data)
        state = f.end(state, data)
    rows, tested, _ = own.tests(f.program, {}, 2, 1, jax.device_put, heldout=False)
    assert len(rows) > 100
    return state, float((np.asarray(f.rank(state, tested, None).rank)[: len(rows)] < 1).mean())


def assert_lane_is_alone(lanes: Lanes, f: alone.Functions, stream: Stream, known: Any, **feed: Any) -> None:
    """The second of two lanes trains increments 0 and 1, and ranks increment 2, as the run of seed 0 alone."""
    packed, on = lanes.at(lab.SIZES), lanes.on([0, 1])
    both, one = packed.init(), f.init(jax.random.key(0))
    for t in (0, 1):
        data, _ = lab.update_data(stream, f.program, t, **feed)
        there = lanes.place(data)
        one, both = f.begin(one, data), packed.begin(on, both, there)
        for number in range(2):
            one, told = f.run_epoch(one, data)
            both, all_told = packed.epoch(on, both, number, there, base=False)
            np.testing.assert_allclose(all_told.loss[1], told.loss, rtol=1e-4)
        one, both = f.end(one, data), packed.end(on, both, there)
    lab.assert_close(jax.tree.map(lambda leaf: leaf[1], lab.on_host(both)), one, rtol=1e-4, atol=1e-4)
    _, tested, _ = lab.feed_of(stream, **feed).tests(f.program, known, 2, 1, jax.device_put, heldout=False)
    found = packed.of_lanes(packed.ranks(both, lanes.place(tested), None))[1].rank
    assert np.mean(np.asarray(f.rank(one, tested, None).rank) != found) < 0.01
