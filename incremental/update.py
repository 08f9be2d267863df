"""Which data an update trains on, and from which weights it starts: data, not mathematics, so outside `make`."""

from typing import Literal, NamedTuple

from incremental.errors import UserError


class Update(NamedTuple):
    """The last `window` increments (None: all, 0: none after the base part), from the last weights or afresh."""

    window: int | None
    afresh: bool

    def increments(self, t: int) -> range:
        """The increments that the update at t trains on; t = 0, the base part, is ordinary training for all."""
        if t == 0:
            return range(1)
        if self.window is None:
            return range(t + 1)
        return range(max(t + 1 - self.window, 0), t + 1)


def update(*, window: int | Literal["all"] = 1, start: Literal["continue", "afresh"] = "continue") -> Update:
    """`window`: 0 = static, 1 = finetune, n = a sliding window of n increments, "all" = everything so far.

    >>> [list(update(window=window).increments(4)) for window in (0, 1, 3, "all")]
    [[], [4], [2, 3, 4], [0, 1, 2, 3, 4]]
    """
    if isinstance(window, int) and window < 0:
        raise UserError(f'update.window={window}: expected 0 (never update), a number of increments, or "all"')
    if window == 0 and start == "afresh":
        raise UserError("update.start=afresh with update.window=0: a model that is never updated cannot start afresh")
    return Update(None if window == "all" else int(window), start == "afresh")
