"""Hand-made sessions as the data of updates, for baselines that read events and histories."""

from collections import defaultdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from incremental.core.problem import Baseline
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Data
from tests import lab

Event = tuple[int, int]
"""user, item"""


def updates(increments: list[list[Event]], *, length: int, room: int) -> list[Data]:
    """The data of each increment: histories of `length`, and `room` events and examples, the padding full of rubbish.

    Events without an earlier one are no examples, as for every model that needs histories.
    """
    past: defaultdict[int, list[int]] = defaultdict(list)
    found = []
    for t, events in enumerate(increments):
        history, labels = np.full((room, length), 1, np.int32), np.full(room, 2, np.int32)
        owner = np.ones(room, np.int32)
        size = 0
        for user, item in events:
            if past[user]:
                history[size] = ([0] * length + past[user])[-length:]
                labels[size], owner[size], size = item, user, size + 1
            past[user].append(item)
        pairs = np.zeros((room, 2), np.int32)
        pairs[: len(events)] = np.array(events, np.int32).reshape(-1, 2)
        valid: Any = np.arange(room) < size
        rows = Batch({"history": history}, labels, valid, valid, valid, owner)  # type: ignore[arg-type]
        own: list[Any] = [np.int32(size), np.int32(t), pairs[:, 1], {"user": pairs[:, 0]}]
        found.append(Data(rows, *own))
    return found


def drawn(rng: Any, *, users: int, items: int, events: int, increments: int = 3) -> list[list[Event]]:
    """Increments of uniform events, of the users and items below these numbers."""
    one = range(events)
    return [[(int(rng.integers(1, users)), int(rng.integers(1, items))) for _ in one] for _ in range(increments)]


def had(increments: list[list[Event]], sizes: Sizes) -> Any:
    """[W, V] float64: 1 where a user had an item."""
    x = np.zeros((sizes["user"], sizes.slots))
    for part in increments:
        for user, item in part:
            x[user, item] = 1
    return x


class Made:
    """A baseline's program, compiled once; increments are trained on one after the other."""

    def __init__(self, model: Baseline, sizes: Sizes, *, length: int = 8, room: int = 64) -> None:
        self.program = model.program(next_item(length), sizes, ())
        self.length, self.room, self.init = length, room, jax.jit(self.program.init)
        self.update = jax.jit(lambda state, data: self.program.run_epoch(self.program.begin(state, data), data)[0])
        self.ask = jax.jit(self.program.scores)

    def trained(self, increments: list[list[Event]]) -> Any:
        """The state after all."""
        state = self.init(jax.random.key(0))
        for data in updates(increments, length=self.length, room=self.room):
            state = self.update(state, data)
        return state

    def scores(self, state: Any, histories: list[list[int]], users: list[int] | None = None) -> Any:
        """[B, V]; by default of user 0, which is nobody."""
        asked: dict[str, Any] = {
            "history": np.array([([0] * self.length + one)[-self.length :] for one in histories], np.int32),
            "user": np.array(users or [0] * len(histories), np.int32),
        }
        return np.asarray(self.ask(state, {name: asked[name] for name in self.program.inputs}))

    def assert_packed_lanes_are_runs_alone(self) -> None:
        """Two runs of different pasts, in one vmapped program: each has the state and the scores that it has alone."""
        pasts: list[list[Event]] = [
            [(1, 1), (1, 2), (1, 3), (2, 4), (2, 1)],
            [(3, 4), (4, 4), (4, 1), (3, 2), (3, 3), (3, 1)],
        ]
        (data,) = updates([[(1, 4), (5, 1), (5, 2), (3, 2)]], length=self.length, room=self.room)
        inputs: dict[str, Any] = {
            "history": np.array([[0] * (self.length - 2) + [4, 1]], np.int32),
            "user": np.array([6], np.int32),
        }
        asked = {name: inputs[name] for name in self.program.inputs}

        @partial(jax.vmap, in_axes=(0, None))
        def packed(state: Any, data: Data) -> Any:
            state, _ = self.program.run_epoch(self.program.begin(state, data), data)
            return state, self.program.scores(state, asked)

        begun = [self.trained([past]) for past in pasts]
        alone = [self.update(state, data) for state in begun]
        together = jax.jit(lambda begun, data: packed(jax.tree.map(lambda *leaves: jnp.stack(leaves), *begun), data))
        lanes, scores = lab.on_host(together(begun, data))
        assert np.abs(scores[0, :, 1:5] - scores[1, :, 1:5]).max() > 1e-3  # of all items that were seen
        for lane, state in enumerate(alone):
            lab.assert_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes), lab.on_host(state))
            np.testing.assert_allclose(scores[lane], self.ask(state, asked), rtol=1e-5, atol=1e-6)
