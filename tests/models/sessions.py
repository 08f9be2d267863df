"""Hand-made sessions as the data of updates, for baselines that read events and histories."""

from collections import defaultdict
from typing import Any

import jax
import numpy as np

from incremental.core.problem import Baseline
from incremental.core.spec import Sizes, next_item
from incremental.core.types import Batch, Data

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
