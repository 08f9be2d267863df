"""A stream whose question is which behaviour follows: its catalogue are the behaviours, not the items.

The item becomes part of the question: an example asks, given the texts of a user's last items and of one more item,
what the user did with it. Heads, strategies, updates and reports take the behaviours for items and stay as they are.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from incremental.data.interactions import Interactions
from incremental.errors import UserError


class Asked(NamedTuple):
    """What the events' labels are asked of."""

    item: npt.NDArray[np.int32]  # [N] the item of each event
    text: npt.NDArray[Any]  # [items, F] float32 their texts, or int32 the texts' tokens; row 0 is 0


Predict = Callable[[Interactions, npt.NDArray[Any] | None], tuple[Interactions, Asked]]
"""(interactions, the items' texts) -> interactions with labels for items, and what they are asked of"""


def behaviour(*, liked: float | None = None) -> Predict:
    """The event's behaviour; with `liked` whether its rating is at least that: "liked" or "disliked"."""

    def predict(found: Interactions, text: npt.NDArray[Any] | None) -> tuple[Interactions, Asked]:
        if text is None or text.ndim != 2:
            have = "null" if text is None else "states of tokens"
            raise UserError(
                f"data.predict needs one vector an item, or its tokens; data.text is {have}; "
                "e.g. +text@data.text=hashed_words"
            )
        names: tuple[str, ...]
        if liked is not None:
            if found.rating is None:
                raise UserError(
                    f"data.predict.liked={liked}: the data has no ratings; name their column, or set it to null"
                )
            codes, names = (found.rating >= liked).astype(np.int32), ("disliked", "liked")
        elif found.behaviour is None:
            raise UserError("data.predict: the data has no behaviours; name their column, or set data.predict.liked")
        else:
            codes, names = found.behaviour.astype(np.int32), found.behaviours
        classes = len(np.unique(codes))
        if classes < 2:
            raise UserError(f"data.predict: every event is {names[codes[0]]!r}; there is nothing to predict")
        own = replace(found, item=codes + 1, items=["", *names], titles=None, law=None)
        return own, Asked(found.item, np.where(np.arange(len(text))[:, None] > 0, text, text.dtype.type(0)))

    return predict
