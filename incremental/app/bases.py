"""What the runs of a sweep share: base parts, for the rows of a table begin with one model, and compiled functions."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incremental.app.assemble import Parts, assemble
from incremental.app.rundir import identity
from incremental.core.spec import Sizes
from incremental.core.types import bytes_of
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.report.settings import read_config
from incremental.run.alone import Alone, Functions
from incremental.run.checkpoint import Checkpoints
from incremental.run.executor import Base, Snapshot

SHARED = ("seed", "data", "model", "head", "optimizer", "training", "devices")  # the keys that make a base part
MOST_BYTES = 2**30  # of the base parts that a sweep keeps; the oldest make room


ALONE = {"_target_": "incremental.core.sharding.devices"}  # whatever devices a run was trained on


class OfRun:
    """The base part of the finished run `base=RUN`."""

    required = True

    def __init__(self, run: str, config: Mapping[str, Any], stream: Stream) -> None:
        self.take = partial(base_of, run, config, stream)

    def keep(self, base: Base) -> None:
        del base


class Store:
    """What a sweep's jobs leave each other: base parts, on the host, the last one's compiled functions, notes said."""

    def __init__(self) -> None:
        self.kept: dict[str, Base] = {}
        self.built = ""
        self.functions: dict[Sizes, Functions] = {}
        self.notes: set[str] = set()

    def unsaid(self, notes: Iterable[str]) -> list[str]:
        """The notes on the data that no job before has said; now it does."""
        new = [note for note in notes if note not in self.notes]
        self.notes |= {*new}
        return new

    def compiled(self, config: Mapping[str, Any], parts: Parts) -> dict[Sizes, Functions]:
        """The functions by capacities of what the config builds: those of the job before, where it built the same."""
        nodes = [config[name] for name in ("model", "head", "optimizer", "strategies", "training", "devices")]
        data = config["data"] if parts.batch_size is None else None  # the oracle is made of its stream
        built = f"{json.dumps([nodes, data])} {parts.stream.spec} {parts.evaluation.metrics}"
        if built != self.built:
            self.built, self.functions = built, {}
        return self.functions

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


def restored(run: str | Path) -> tuple[dict[str, Any], Parts, Alone, Snapshot]:
    """A run directory's config and parts, and what its last checkpoint holds, an increment at least finished."""
    directory = Path(run)
    path = directory / "config.yaml"
    if not path.is_file():
        raise UserError(f"{directory}: not a run directory (no config.yaml); give one that `incremental` wrote")
    config = read_config(path)  # its values are resolved: not again
    parts = assemble({**config, "devices": ALONE})
    way = Alone(parts.build)
    found = Checkpoints(directory / "checkpoint", identity(config)).restore(lambda sizes: way.at(sizes).like())
    if found is None or found.progress.increment == 0:
        raise UserError(f"{directory}: no checkpoint of a finished increment; let the run go on first")
    return config, parts, way, found


def base_of(run: str | Path, config: Mapping[str, Any], stream: Stream, sizes: Sizes) -> Base:
    """The base part as `run` has trained it, in tables of `sizes`, for a run of `config` on `stream` to begin with."""
    theirs, parts, way, (state, _, _, theirs_at, progress) = restored(run)
    for key in ("seed", "model", "head", "optimizer", "training"):
        if theirs[key] != config[key]:
            raise UserError(f"base={run}: its {key} is another; a base part is shared by runs that differ after it")
    if theirs["strategies"]:
        raise UserError(f"base={run}: it has strategies ({', '.join(sorted(theirs['strategies']))}); name one without")
    if int(state.learner.increment) > 0:
        raise UserError(f"base={run}: it has gone on training after its base part; make one with update=static")
    if not same_rows(parts.stream.prefix(0), stream.prefix(0)):
        raise UserError(f"base={run}: its base part has other training rows; data must be the same up to its end")
    reads = way.at(theirs_at).program.at is not None
    texts = [each.prefix(0).interactions.side for each in (parts.stream, stream)]
    if reads and "text" in texts[0] and not np.array_equal(texts[0]["text"].values, texts[1]["text"].values):
        raise UserError(f"base={run}: its items' texts are others; data.text must be the same")
    if any(theirs_at[kind] > sizes[kind] for kind in sizes):
        raise UserError(
            f"base={run}: its tables are made for more ids ({said(theirs_at)}) than this run begins with "
            f"({said(sizes)}); set devices.tables=whole here too"
        )
    grown = state if theirs_at == sizes else way.at(sizes).grow(state)
    return Base(grown.learner, progress.costs[0], sizes)


def said(sizes: Sizes) -> str:
    """Capacities in words."""
    return ", ".join(f"{kind} {size:,}" for kind, size in sizes.items())


def same_rows(one: Stream, other: Stream) -> bool:
    """Whether two streams train and validate on the same examples."""

    def drawn(each: Stream) -> tuple[Any, ...]:
        log, task = each.interactions, each.task.labels
        return log.user, log.item, each.label, task, each.heldout, each.validation, each.history, each.ties

    return all(np.array_equal(a, b) for a, b in zip(drawn(one), drawn(other), strict=True))
