"""Tasks: what is predicted of an event. A task gives labels and their vocabulary, which are the candidates too."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from incremental.data.features import Feature, mean_text, own_text, tokens
from incremental.data.ids import normal
from incremental.data.interactions import Interactions, Kind, Side
from incremental.domains import Finite, checked
from incremental.errors import UserError


class Task(NamedTuple):
    """What the labels are.

    Attributes:
        labels: the kind of ids that an event's label is
        features: inputs that belong to the task
        classes: the labels are few and may come again: each has a report, and what a user had is no reason to leave it
            out
    """

    labels: str = "item"
    features: Mapping[str, Feature] = {}
    classes: bool = False


Make = Callable[[Interactions, int], tuple[Interactions, Task]]
"""(log, L) -> the log with the labels' kind, and the task"""


def next_item() -> Make:
    """Which item comes next, of all items: the label is the event's item."""
    return lambda log, _length: (log, Task())


@checked
def behaviour(*, liked: Finite | None = None) -> Make:
    """Which behaviour follows; with `liked` whether the rating is at least that: "liked" or "disliked".

    The item is part of the question: an example asks, given the texts of a user's last items and of one more item, what
    the user did with it.
    """

    def make(log: Interactions, length: int) -> tuple[Interactions, Task]:
        names: tuple[str, ...]
        if liked is not None:
            if log.rating is None:
                raise UserError(
                    f"data.task.liked={liked}: the data has no ratings; name their column (data.source.rating), or set "
                    "it to null"
                )
            codes, names = (log.rating >= liked).astype(np.int32), ("disliked", "liked")
        elif log.behaviour is None:
            raise UserError(
                "data.task: the data has no behaviours; name their column (data.source.behaviour), or set "
                "data.task.liked"
            )
        else:
            codes, names = log.behaviour.astype(np.int32), log.behaviours
        return asked(log, length, "behaviour", codes, names)

    return make


def click(*, clicked: list[str]) -> Make:
    """Click or no click: whether the event's behaviour is among `clicked`."""

    def make(log: Interactions, length: int) -> tuple[Interactions, Task]:
        if log.behaviour is None:
            raise UserError("data.task: the data has no behaviours; name their column (data.source.behaviour)")
        names = [normal(str(name)) for name in clicked]
        unknown = [name for name in names if name not in log.behaviours]
        if unknown or not clicked:
            raise UserError(
                f"data.task.clicked={clicked}: expected of the data's behaviours, {', '.join(log.behaviours)}"
            )
        codes = np.isin(log.behaviour, [log.behaviours.index(name) for name in names]).astype(np.int32)
        return asked(log, length, "click", codes, ("no click", "click"))

    return make


def asked(
    log: Interactions, length: int, kind: str, codes: npt.NDArray[np.int32], names: tuple[str, ...]
) -> tuple[Interactions, Task]:
    """The task whose labels are these codes [N] of `names`, with the texts that a model reads of past and item."""
    text = log.side["text"].values if "text" in log.side else None
    if text is None or text.ndim != 2:
        have = "null" if text is None else "states of tokens"
        raise UserError(
            f"data.task needs one vector an item, or its tokens; data.text is {have}; e.g. +text@data.text=hashed_words"
        )
    present = len(np.unique(codes))
    if present < 2:
        raise UserError(f"data.task: every event is {names[codes[0]]!r}; there is nothing to predict")
    blank: Any = np.where(np.arange(len(text))[:, None] > 0, text, text.dtype.type(0))
    own = replace(log, further={**log.further, kind: Kind(codes + 1, ["", *names])}, side={"text": Side("item", blank)})
    if text.dtype == np.int32:
        return own, Task(kind, {"tokens": tokens(text, length)}, classes=True)
    return own, Task(kind, {"past": mean_text(text), "asked": own_text(text)}, classes=True)
