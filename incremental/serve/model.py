"""A run's model, ready to use: recommendations, scores and embeddings by the data's own ids.

>>> from incremental.serve.model import load
>>> model = load("runs/sasrec-replay-seed0-1a2b3c4d")  # doctest: +SKIP
>>> model.recommend("42", k=3)  # doctest: +SKIP
[Recommendation(item='318', title='...', score=7.1), ...]
"""

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from incremental.app.bases import restored
from incremental.core.program import Program
from incremental.core.types import State
from incremental.data.ids import normal
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.run.feed import Feed, read_by, unfit, within

BATCH = 256


class Recommendation(NamedTuple):
    """One recommended item."""

    item: str
    title: str  # "" where the data has none
    score: float


class Trained:
    """The model of a run as its last checkpoint has it, and the part of the stream that it was trained on."""

    def __init__(self, program: Program, state: State, stream: Stream) -> None:
        if why := unfit(stream, program.inputs):
            raise UserError(f"the run is of no recommender: {why}; choose the run of another model")
        self.program, self.state, self.stream = program, state, stream
        self.seen = np.asarray(state.learner.catalogue.seen)
        others = {kind: np.asarray(ids) for kind, ids in state.learner.catalogue.arrived.items()}
        self.known = {program.sizes.labels: self.seen, **others}

    @cached_property
    def users(self) -> dict[str, int]:
        """Number of each user."""
        return {raw: number for number, raw in enumerate(self.stream.interactions.users) if number}

    @cached_property
    def _scores(self) -> Any:
        return jax.jit(self.program.scores)

    @cached_property
    def _represent(self) -> Any:
        return jax.jit(self.program.represent) if self.program.represent else None

    @property
    def items(self) -> list[str]:
        """[V] the data's item ids by number; "" is padding."""
        return self.stream.interactions.items

    def title(self, item: int) -> str:
        """The item's title, "" where there is none."""
        titles = self.stream.interactions.titles
        return titles[item] if titles else ""

    def number(self, user: str) -> int:
        """The user's number, of an id as `incremental.data.ids` reads it; a UserError for one who never occurred."""
        if normal(user) in self.users:
            return self.users[normal(user)]
        close = difflib.get_close_matches(user, self.users, n=3)
        shown = ", ".join(each if each.isprintable() else repr(each) for each in close or list(self.users)[:3])
        hint = f"; similar: {shown}" if close else f"; users are, e.g., {shown}"
        raise UserError(f"user {user!r} does not occur in the run's stream{hint}")

    def numbers(self, users: Sequence[str]) -> list[int]:
        """The number of each of at most 256 users."""
        if isinstance(users, str):
            raise UserError(f"users={users!r}: expected a list of users; give [{users!r}]")
        if len(users) > BATCH:
            raise UserError(f"users: at most {BATCH} at once, got {len(users)}")
        return [self.number(user) for user in users]

    def inputs(self, users: Sequence[int]) -> dict[str, np.ndarray]:
        """The model's inputs for these users at the end of the stream, padded to `BATCH` rows."""
        padded = np.zeros(BATCH, np.int32)
        padded[: len(users)] = users
        log, sizes = self.stream.interactions, self.program.sizes
        examples = self.stream.latest(padded, read_by(self.program.inputs, self.known))
        values = {name: self.stream.features[name].of(log, examples) for name in self.program.inputs}
        return within(values, self.program.inputs, sizes)

    def scores(self, users: Sequence[str], *, exclude_seen: bool = True) -> np.ndarray:
        """[users, V] float32, at most 256 users: -inf for items that are no candidates, or were had before."""
        numbers = self.numbers(users)
        values = np.array(self._scores(self.state, self.inputs(numbers)))[: len(users)]
        if exclude_seen:
            for row, number in zip(values, numbers, strict=True):
                items = self.stream.items_of(number)
                row[items[items < len(row)]] = -np.inf
        return values

    def recommend(self, user: str, k: int = 10, *, exclude_seen: bool = True) -> list[Recommendation]:
        """The k best items for a user, best first; fewer where there are fewer candidates."""
        if k < 1:
            raise UserError(f"k={k}: expected at least 1")
        scores = self.scores([user], exclude_seen=exclude_seen)[0]
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Recommendation(self.items[item], self.title(item), float(scores[item]))
            for item in best
            if scores[item] > -np.inf
        ]

    def representations(self, users: Sequence[str]) -> np.ndarray | None:
        """[users, D] float32, at most 256 users; None for a model without any."""
        if self._represent is None:
            return None
        return np.asarray(self._represent(self.state, self.inputs(self.numbers(users))))[: len(users)]


def load(run: str | Path, *, plugins: Sequence[str] = (), data: str | None = None) -> Trained:
    """The trained model of a run directory, which holds all of it: its data may be gone, or be another by now.

    Histories end where the run's training ended. With `data`, the path of the run's data with what has come since, they
    end with it.

    `plugins` are the packages, beside this one, that the run's factories may be imported from; another is refused.
    """
    _, parts, way, (state, _, _, sizes, progress) = restored(run, plugins, data)
    program, t = way.at(sizes).program, progress.increment - 1
    if program.at is not None:
        program = program.at(Feed(parts.stream).side(t, program, way.place))
    return Trained(program, state, parts.stream if data else parts.stream.prefix(t))
