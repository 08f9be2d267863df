"""Features: what a model may read of an example. Each is what it holds (an `Input`), and how it comes from the log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from incremental.core.spec import Input
from incremental.data.interactions import Interactions
from incremental.domains import Count, checked

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Examples:
    """Events with what was before them, on the host. What a model reads of them are features.

    Attributes:
        event: [N] places in the log
        user: [N]
        past: [N, L] places of the user's last L events before, the last one last, -1: none; [N, 0] not asked for
        label: [N]
        increment: [N]
        of: how many events these are a sample of; None: they are no sample
        following: [N, L] places of the user's next events among those that the update trains on, the next one first,
            -1: none; None: not asked for, or nothing is trained on these
    """

    event: Ints
    user: Ints
    past: Ints
    label: Ints
    increment: Ints
    of: int | None = None
    following: Ints | None = None

    def __len__(self) -> int:
        return len(self.event)


class Feature(NamedTuple):
    """One input of a model.

    Attributes:
        input: what one example holds of it
        of: (log, examples) -> [N, ...]; it may read the examples' own events, their past and what is `following` them
        past: whether it reads what was before; where that is needed, examples without are left out of training
        following: whether it reads what comes next in the same update
    """

    input: Input
    of: Callable[[Interactions, Examples], np.ndarray]
    past: Literal["unread", "read", "needed"] = "unread"
    following: bool = False


def before(ids: np.ndarray, examples: Examples) -> Ints:
    """[N, L] the ids ([events]) of each example's past, 0 where there is none."""
    return np.where(examples.past >= 0, ids[examples.past] if len(ids) else 0, 0).astype(np.int32)


def user() -> Feature:
    """ "user" [] int32."""
    return Feature(Input((), np.dtype(np.int32), "user"), lambda _log, examples: examples.user)


@checked
def history(*, length: Count, kind: str = "item") -> Feature:
    """[length] int32: the ids of a kind of the user's last events, the last one last, left-padded with 0."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        return before(log.ids(kind), examples)

    return Feature(Input((length,), np.dtype(np.int32), kind), of, past="needed")


@checked
def following(*, length: Count, kind: str = "item") -> Feature:
    """[length] int32: the ids of a kind of the user's next events in the same update, the next one first, padded with 0
    behind. Validation and held-out events are none of them, nor is what comes in a later increment; an example that is
    not trained on has zeros."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        if examples.following is None:
            return np.zeros((len(examples), length), np.int32)
        return np.where(examples.following >= 0, log.ids(kind)[examples.following], 0).astype(np.int32)

    return Feature(Input((length,), np.dtype(np.int32), kind), of, past="read", following=True)


@checked
def times(*, length: Count) -> Feature:
    """[length] int32: seconds that each of the user's last events was before the last one of them; 0 where there is
    none. They say nothing of the event itself, so that they are known when items are recommended."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        past = examples.past
        if not len(log.time):
            return np.zeros(past.shape, np.int32)
        ages = np.where(past >= 0, log.time[past[:, -1:]] - log.time[past], 0)
        found: Ints = np.minimum(ages, np.iinfo(np.int32).max).astype(np.int32)
        return found

    return Feature(Input((length,), np.dtype(np.int32), "second"), of, past="read")


def current(*, kind: str) -> Feature:
    """[] int32: the event's own id of a kind, which must be known before its label is: a shop, a category asked for."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        found: np.ndarray = log.ids(kind)[examples.event]
        return found

    return Feature(Input((), np.dtype(np.int32), kind), of)


def event() -> Feature:
    """ "event" [] int32: the place in the log, by which the oracle finds the law."""
    return Feature(Input((), np.dtype(np.int32), "event"), lambda _log, examples: examples.event)


def mean_text(text: npt.NDArray[Any]) -> Feature:
    """[F] float32: the mean of the texts ([items, F]) in the past, 0 for an empty one."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        past, table = before(log.item, examples), log.side["text"].values
        mean = np.zeros((len(examples), table.shape[1]), np.float32)
        for place in range(past.shape[1]):  # not [N, L, F] at once
            mean += table[past[:, place]]
        return mean / np.maximum((past > 0).sum(1, keepdims=True), 1).astype(np.float32)

    return Feature(Input((text.shape[1],), np.dtype(np.float32)), of, past="read")


def own_text(text: npt.NDArray[Any]) -> Feature:
    """[F] float32: the text of the event's item."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        found: np.ndarray = log.side["text"].values[log.item[examples.event]]
        return found

    return Feature(Input((text.shape[1],), np.dtype(np.float32)), of)


def tokens(text: npt.NDArray[Any], length: int) -> Feature:
    """[(1 + length) l] int32, of titles of l tokens: the title of the event's item, then those of the past, the last
    first, without their opening tokens, one behind the other; 0 from there on."""

    def of(log: Interactions, examples: Examples) -> np.ndarray:
        past, table = before(log.item, examples), log.side["text"].values
        titles = table[np.concatenate([log.item[examples.event][:, None], past[:, ::-1]], axis=1)]
        titles[:, 1:, 0] = 0
        row = titles.reshape(len(examples), -1)
        found: Ints = np.take_along_axis(row, np.argsort(row == 0, axis=1, kind="stable"), axis=1)
        return found

    return Feature(Input(((1 + length) * text.shape[1],), np.dtype(np.int32), "token"), of, past="read")
