"""Base parts that runs share: the rows of a table begin with one model, and a sweep trains it once."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from incremental.data.stream import Stream
from incremental.loop import Base
from incremental.trained import base_of
from incremental.types import Sizes, bytes_of

SHARED = ("seed", "data", "model", "head", "optimizer", "training", "devices")  # the keys that make a base part
MOST_BYTES = 2**30  # of the base parts that a sweep keeps; the oldest make room


class OfRun:
    """The base part of the finished run `base=RUN`."""

    required = True

    def __init__(self, run: str, config: Mapping[str, Any], stream: Stream) -> None:
        self.take = partial(base_of, run, config, stream)

    def keep(self, base: Base) -> None:
        del base


class Store:
    """The base parts that the jobs of a sweep have trained so far, on the host."""

    def __init__(self) -> None:
        self.kept: dict[str, Base] = {}

    def of(self, config: Mapping[str, Any]) -> "Shared":
        """What a run of `config` takes from here and leaves here."""
        return Shared(self, json.dumps([config[key] for key in SHARED]))


class Shared:
    """The base part of one configuration in a `Store`."""

    required = False

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key

    def take(self, sizes: Sizes) -> Base | None:
        """The base part, where a run with tables of these sizes has left it."""
        base = self.store.kept.get(self.key)
        return base if base is not None and base.sizes == sizes else None

    def keep(self, base: Base) -> None:
        """Leaves it for the runs that follow."""
        kept = self.store.kept
        kept[self.key] = base
        while len(kept) > 1 and sum(bytes_of(each.learner) for each in kept.values()) > MOST_BYTES:
            del kept[next(iter(kept))]
