"""The shapes of what a feed will give, found by counting: nothing is cut, encoded or copied for them."""

from typing import Any

import jax
import numpy as np

from incremental.core.graph import EDGES
from incremental.core.program import Program
from incremental.core.types import Data, PyTree, Seen
from incremental.run.feed import Feed, Given
from incremental.run.policy import Plan


def update(feed: Feed, program: Program, plan: Plan) -> Given:
    """What `Feed.update` will give, in arrays without content."""
    stream, inputs = feed.stream, program.inputs
    if program.counting:
        rows = stream.trained_on(plan.arrived, validation=None, inputs=inputs)
    else:
        rows = stream.trained_on(plan.increments, validation=False, inputs=inputs)
    newest = stream.trained_on(plan.newest, validation=True, inputs=inputs)
    kept = plan.increments if stream.validate_on == "own" else range(0)
    every = stream.trained_on(kept, validation=True, inputs=inputs)
    seen = feed.seen(newest, heldout=False) if stream.exclude_seen else None
    until = plan.increments[-1]
    data = examples(feed, program, until, len(rows), len(stream.training_events(plan.arrived)))
    checked = examples(feed, program, until, len(newest))
    validated = examples(feed, program, until, len(every)).rows
    return Given(data._replace(validation=validated, listed=feed.known(program.sizes)), checked, seen)


def tests(feed: Feed, program: Program, t: int, trained_until: int, *, heldout: bool) -> tuple[Data, Seen | None]:
    """What `Feed.tests` will give of increment t for the device, in arrays without content."""
    stream = feed.stream
    events = stream.tested_on(t, heldout=heldout, trained_until=trained_until)
    if feed.sample is not None:
        events = feed.sample.of(events, t, *stream.bounds(t))
    seen = feed.seen(events, heldout=True) if stream.exclude_seen else None
    data = examples(feed, program, trained_until, len(events))
    listed: Any = np.zeros(program.sizes.slots, bool) if feed.listed and not heldout else None
    return data._replace(listed=listed), seen


def examples(feed: Feed, program: Program, until: int, rows: int, new: int = 0) -> Data:
    """`Feed.examples` of so many rows and new events, and the side tables, the graph as of increment `until`."""
    stream, room = feed.stream, feed.capacities.rows
    one = feed.examples(stream.latest(np.zeros(1, np.int32), {}), program.inputs, 0)
    side: dict[str, Any] = {
        name: stretched(table.values, program.sizes[table.kind]) for name, table in stream.interactions.side.items()
    }
    if program.frozen is not None:
        side["frozen"] = program.frozen
    if program.window is not None:
        side[EDGES] = stretched(
            np.zeros((1, 2), np.int32), feed.capacities.edges(len(feed.linked(until, program.window)))
        )
    return one._replace(
        rows=jax.tree.map(lambda leaf: stretched(leaf, room(rows)), one.rows),
        events=stretched(one.events, room(new)),
        arrived={kind: stretched(ids, room(new)) for kind, ids in one.arrived.items()},
        side=side,
    )


def stretched(leaf: Any, rows: int) -> Any:
    """An array of the leaf's kind with so many rows, which takes no memory."""
    return np.broadcast_to(leaf[:1], (rows, *leaf.shape[1:]))


def shapes(tree: PyTree) -> PyTree:
    """ShapeDtypeStructs as JAX would place the arrays."""
    return jax.eval_shape(lambda tree: tree, tree)
