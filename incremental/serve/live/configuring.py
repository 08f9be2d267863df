"""The configurations of a live loop: the command line's, and those of its learners."""

from collections.abc import Mapping, Sequence
from typing import Any

from incremental.app.cli import composed, resolved
from incremental.app.experiment import named
from incremental.errors import UserError
from incremental.serve.live.settings import Live, live_of


def composed_of(overrides: Sequence[str]) -> tuple[dict[str, Any], Live]:
    """The resolved configuration of a command line, with its node `live`, and what the node makes."""
    config = resolved(composed(overrides)[0])
    return config, live_of(config)


def learner(overrides: Sequence[str], live: Live, name: str) -> dict[str, Any]:
    """The configuration of a learner's run: the champion's, or that of a challenger, whose own overrides come last."""
    if name == live.champion:
        more: Sequence[str] = ()
    elif name in live.challengers:
        more = live.challengers[name]
    else:
        raise UserError(
            f"learner {name!r}: there is {', '.join([live.champion, *live.challengers])} (live.champion, "
            "live.challengers)"
        )
    replaced = {key_of(one) for one in more}
    config, choices = composed([*(one for one in overrides if key_of(one) not in replaced), *more])
    made: Mapping[str, Any] = named(resolved(config), choices)
    return dict(made)


def key_of(override: str) -> str:
    """What an override sets."""
    return override.partition("=")[0].lstrip("+")
