"""What the runs of a sweep share: base parts, for the rows of a table begin with one model, and compiled functions."""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incremental.app import config as schema
from incremental.app.assemble import KEYS, Parts, assemble
from incremental.app.contents import of_run
from incremental.app.continuing import DATA, grown_since, kept_stream, protocol
from incremental.app.rundir import settings
from incremental.app.trust import refuse_strangers
from incremental.core.spec import Sizes
from incremental.core.types import bytes_of
from incremental.data.kept import Kept, difference, digests, kept, log_of
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.report.settings import read_config
from incremental.run.alone import Alone, Functions
from incremental.run.checkpoint import Checkpoints
from incremental.run.executor import Base, Snapshot
from incremental.run.feed import Feed
from incremental.run.records import cutoffs

SHARED = ("seed", "data", "model", "head", "optimizer", "training", "devices")  # the keys that make a base part
DRAWN = ("history", "heldout", "validation", "validate_on", "exclude_seen", "seed", "ties", "task", "features", "roles")
"""the keys of the data that say, with its events, what a base part trains on, and when it stops"""
MOST_BYTES = 2**30  # of the base parts that a sweep keeps; the oldest make room


ALONE = {"_target_": "incremental.core.sharding.devices"}  # whatever devices a run was trained on


class OfRun:
    """The base part of the finished run `base=RUN`."""

    required = True

    def __init__(self, run: str, config: Mapping[str, Any], stream: Stream) -> None:
        if not run.strip():
            raise UserError(
                "base is empty: expected the directory of a run; name one (is a variable of the shell not set?), or "
                "leave base out"
            )
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
        measured = cutoffs(parts.evaluation.metrics), parts.evaluation.new_users
        built = f"{json.dumps([nodes, data])} {parts.stream.spec} {measured}"
        if built != self.built:
            self.built, self.functions = built, {}
        return self.functions

    def of(self, config: Mapping[str, Any]) -> "Shared":
        """What a run of `config` takes from here and leaves here."""
        return Shared(self, json.dumps([*(config[key] for key in SHARED), ranks_new(config)]))


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


def config_of(run: Path) -> dict[str, Any]:
    """The config of a run directory, literally: nothing in it is resolved or imported."""
    path = run / "config.yaml"
    if not path.is_file():
        why = "it has no config.yaml" if run.is_dir() else "there is no such folder"
        raise UserError(f"{run}: not a run directory ({why}); give one that `incremental` wrote")
    config = read_config(path)  # its values are resolved: not again
    missing = [key for key in KEYS if key not in config and key != "continue"]
    if missing or not isinstance(config["data"], dict):
        raise UserError(f"{path}: not the configuration of a run ({', '.join(missing[:3]) or 'data'} is not there)")
    return config


def data_of(run: Path) -> Kept:
    """What the run keeps of its data."""
    data = kept(run / DATA)
    if data is None:
        raise UserError(
            f"{run}: the run has no {DATA}/data.json, which says what data it was made of; take it from a copy. "
            "For a learner of a live loop, run the loop's log (incremental experiment=live), and give that run. Where "
            "an older version wrote the run, run it again in another folder with runs=..."
        )
    return data


def restored(
    run: str | Path, plugins: Sequence[str] = (), data_path: str | None = None
) -> tuple[dict[str, Any], Parts, Alone, Snapshot]:
    """A run directory's config and parts, and what its last checkpoint holds, an increment at least finished.

    All of it is from the directory: the stream too, as the run has kept it; or that of the data at `data_path`, which
    must be the run's own and may have more at its end. `plugins` are the packages, beside this one, whose factories
    may be imported.
    """
    directory = Path(run)
    config = config_of(directory)
    data = data_of(directory)
    used = needed(config)
    used = used if data_path is None else {**used, "data": config["data"]}
    refuse_strangers(used, plugins, str(directory / "config.yaml"))
    if "stream" in inspect.signature(schema.partial(config["model"], "model").func).parameters:
        raise UserError(
            f"{directory}: the run's model reads the law of past events of a simulated stream (the oracle), and knows "
            "nothing of what is to come; choose the run of another model"
        )
    if data_path is None:
        stream = kept_stream(config, log_of(data), data.increment)
    else:
        stream = grown_since(config, data, data_path)
    parts = assemble({**config, "devices": ALONE}, stream)
    way = Alone(parts.build)
    return config, parts, way, last(directory, config, way)


def needed(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's config its model is made of again: no tracker, and of the data what reads the kept events."""
    return {**{key: value for key, value in config.items() if key != "tracking"}, "data": protocol(config)}


def last(run: Path, config: Mapping[str, Any], way: Alone) -> Snapshot:
    """The last save of a run, an increment at least finished."""
    saves = run / "checkpoint"
    found = None
    if saves.is_dir():
        found = Checkpoints(saves, settings(config), writes=False).restore(lambda sizes: way.at(sizes).like())
    if found is None or found.progress.increment == 0:
        raise UserError(f"{run}: no checkpoint of a finished increment; let the run go on first")
    return found


def base_of(run: str | Path, config: Mapping[str, Any], stream: Stream, sizes: Sizes) -> Base:
    """The base part as `run` has trained it, in tables of `sizes`, for a run of `config` on `stream` to begin with.

    Nothing that the other run names is imported: what is the same is made of this run's own config.
    """
    try:
        theirs = config_of(Path(run))
    except UserError as error:
        raise UserError(f"base={error}") from None
    for key in ("seed", "model", "head", "optimizer", "training"):
        if its_own(theirs, key) != its_own(config, key):
            more = "; a sweep over seeds leaves base out, for it trains one base part for each seed" * (key == "seed")
            raise UserError(
                f"base={run}: its {key} is another; a base part is shared by runs that differ after it{more}"
            )
    if ranks_new(theirs) != ranks_new(config):
        raise UserError(f"base={run}: its evaluation.new_users is another, which says when the base part stops")
    if theirs["strategies"]:
        raise UserError(f"base={run}: it has strategies ({', '.join(sorted(theirs['strategies']))}); name one without")
    ahead = int(config["data"].get("validate_on") == "next")  # then the next part says when the base part stops
    data, own = data_of(Path(run)), stream.prefix(ahead).interactions
    parts = data.parts[: 1 + ahead]
    ours = digests(own, [last - first for first, last in map(stream.bounds, range(1 + ahead))], range(1 + ahead))
    drawn = [key for key in DRAWN if theirs["data"].get(key) != config["data"].get(key)]
    if len({each["data"].get("unseen_items") == "known" for each in (theirs, config)}) > 1:
        drawn.append("unseen_items")
    if [each.digest for each in parts] != [each.digest for each in ours] or drawn:
        other = difference(data._replace(parts=parts), own)
        why = other or f"it has {' + '.join(f'{part.events:,}' for part in parts)} events, and this run's {len(own):,}"
        raise UserError(
            f"base={run}: its base part trained on, or stopped by, other rows ("
            f"{f'its data.{drawn[0]} is another' if drawn else why}); data must be the same up to its end"
        )
    texts = parts[0].texts == ours[0].texts
    if stream.unseen_items == "known":
        log = log_of(data)
        if len(log.items) != len(stream.interactions.items):
            raise UserError(
                f"base={run}: its data has {len(log.items) - 1:,} items, and this run's "
                f"{len(stream.interactions.items) - 1:,}; with data.unseen_items=known all are candidates in the base "
                "part, so that both need the same whole data"
            )
        sides = ((log.side.get(name), own) for name, own in stream.interactions.side.items())
        texts = texts and all(other and np.array_equal(other.values, own.values) for other, own in sides)
    way = Alone(assemble({**config, "strategies": {}, "devices": ALONE}, stream).build)
    at = Feed(stream).sizes(0)
    if way.at(at).program.at is not None and not texts:
        raise UserError(f"base={run}: its items' texts are others; data.text must be the same")
    if of_run(Path(run)) is None:  # its identity is part of this run's, and it has none yet
        raise UserError(f"base={run}: the run is not finished; let it go on to its end first, by its own command")
    state, _, _, theirs_at, progress = last(Path(run), theirs, way)
    if int(state.learner.increment) > 0:
        raise UserError(f"base={run}: it has gone on training after its base part; make one with update=static")
    if any(theirs_at[kind] > sizes[kind] for kind in sizes):
        raise UserError(
            f"base={run}: its tables are made for more ids ({said(theirs_at)}) than this run begins with "
            f"({said(sizes)}); set devices.tables=whole here too"
        )
    grown = state if theirs_at == sizes else way.at(sizes).grow(state)
    return Base(grown.learner, progress.costs[0], sizes)


def ranks_new(config: Mapping[str, Any]) -> Any:
    """What ranks for new users, in validation too."""
    return config["evaluation"].get("new_users", "popularity")


def its_own(config: Mapping[str, Any], key: str) -> Any:
    """What must be the same where a base part is taken over: updates may have another number of epochs than it had, and
    a graph another window, which at the base part has the same edges."""
    node, free = config[key], {"training": "epochs", "model": "window"}.get(key)
    return {**node, free: None} if free is not None and isinstance(node, Mapping) else node


def said(sizes: Sizes) -> str:
    """Capacities in words."""
    return ", ".join(f"{kind} {size:,}" for kind, size in sizes.items())
