"""The node `live`: where a live loop is, when its increments end, who learns, and what its server takes."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Le

from incremental.app import config as schema
from incremental.app.rundir import write_atomically
from incremental.data import ids
from incremental.domains import AtLeast1, Count, NotNegative, Positive, checked
from incremental.errors import UserError
from incremental.serve.live.cuts import Cuts
from incremental.serve.live.versions import LEARNERS

NAME = "live"
CHAMPION = "champion"
NOTE = "live.json"
"""in a live folder: where its log is, and who its champion"""


class Live(NamedTuple):
    """What `live` makes of the node.

    Attributes:
        folder: of all that the loop keeps
        log: its place (`incremental.log.place`)
        cut: when an increment ends
        champion: the name of the learner that ends increments, and serves until a choice says another
        challengers: by name, the overrides in which a further learner differs
        keep_versions: of each learner that stay on disk
        host: the server's address; other than loopback only where there are tokens
        port
        types: what users do; empty: whatever comes
        body: bytes of a request at most
        batch: events of a request at most
        queue: events that wait for their commit at most
        requests: recommendations that wait for the model at most
        rate: requests a second of one token
        burst: requests at once, before `rate` counts
        new_items: items a second that no event had before
        most: items that a client may ask for
        ahead: seconds that an event may lie in the future
        access_log
    """

    folder: Path
    log: str
    cut: Cuts
    champion: str
    challengers: Mapping[str, list[str]]
    keep_versions: int
    host: str
    port: int
    types: tuple[str, ...]
    body: int
    batch: int
    queue: int
    requests: int
    rate: float
    burst: float
    new_items: float
    most: int
    ahead: float
    access_log: Literal["paths", "ids", "off"]

    def at(self, learner: str) -> Path:
        """The folder of a learner."""
        return self.folder / LEARNERS / learner


@checked
def live(
    *,
    folder: Path,
    log: str,
    cut: Cuts,
    champion: str = CHAMPION,
    challengers: dict[str, str | list[str]] | None = None,
    keep_versions: Count = 20,
    host: str = "127.0.0.1",
    port: Annotated[int, Ge(1), Le(65535)] = 8765,
    types: list[str] | None = None,
    body: Count = 1 << 20,
    batch: Count = 1000,
    queue: Count = 20_000,
    requests: Count = 1024,
    rate: Positive = 1000.0,
    burst: AtLeast1 = 2000.0,
    new_items: Positive = 500.0,
    most: Count = 100,
    ahead: NotNegative = 60.0,
    access_log: Literal["paths", "ids", "off"] = "paths",
) -> Live:
    """`Live`, checked: names are those of folders, and no challenger is the champion.

    A challenger's overrides are a list, or one text, `method=replay training.epochs=5`.
    """
    given = challengers or {}
    others = {name: shlex.split(own) if isinstance(own, str) else own for name, own in given.items()}
    for name in (champion, *others):
        if not re.fullmatch(r"\w[\w.-]{0,63}", name):
            raise UserError(f"live: the learner's name {name!r} may have letters, digits, _ . - only, at most 64")
    if champion in others:
        raise UserError(f"live.challengers.{champion}: this is the champion's name; choose another")
    return Live(
        folder.expanduser(),
        log,
        cut,
        champion,
        others,
        keep_versions,
        host,
        port,
        tuple(ids.normal(each) for each in types or ()),
        body,
        batch,
        queue,
        requests,
        rate,
        burst,
        new_items,
        most,
        ahead,
        access_log,
    )


def live_of(config: Mapping[str, Any]) -> Live:
    """The settings in a resolved config."""
    if NAME not in config:
        raise UserError("live: the configuration has no such node; give experiment=live, or one of yours that has it")
    made: Live = schema.build(config[NAME], NAME)
    return made


def note(live: Live) -> None:
    """Notes in the live folder what commands on it need, which may be given anywhere."""
    place = live.log if "://" in live.log else str(Path(live.log).expanduser().absolute())
    write_atomically(live.folder / NOTE, json.dumps({"log": place, "champion": live.champion}) + "\n")


def noted(folder: Path) -> tuple[str, str]:
    """The place of a live folder's log, and the champion's name."""
    try:
        about = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return str(about["log"]), str(about["champion"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder}: no live folder ({NOTE} is not there); give one that incremental-serve made"
        ) from None
