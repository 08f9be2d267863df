"""A run on disk, by Orbax: the one `State`, the progress and, inside an update, the best epoch and the checksums of the
parameters at its start."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from incremental.core.sharding import agreed
from incremental.core.spec import Sizes
from incremental.core.steps import fresh_fit
from incremental.core.types import State, bytes_of
from incremental.errors import UserError
from incremental.run.alone import Kept
from incremental.run.executor import Snapshot
from incremental.run.progress import Cost, Epoch, Progress, Record

VERSION = 4  # of what is saved; another one is refused
SHARE = 0.05  # of the time, at most, goes into saves: where increments are short, some end without one …
SECONDS_BETWEEN = 5.0  # … and between two epochs the last save is at least so long ago


class Schedule:
    """When a save is worth its time."""

    def __init__(self) -> None:
        self.saved, self.took = time.monotonic(), 0.0

    def due(self, *, over: bool) -> bool:
        """Whether the last save is long enough ago, at an increment's end (`over`) or between two epochs; the same in
        every process of a run."""
        return agreed(time.monotonic() - self.saved > max(0.0 if over else SECONDS_BETWEEN, self.took / SHARE))

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Notes when saves ended and how long they took."""
        start = time.monotonic()
        yield
        self.saved = time.monotonic()
        self.took = self.saved - start


class Checkpoints:
    """The last two saves of one run, in `directory`; `settings` are those that they belong to, plain values.

    Without `writes` the directory is read only.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], *, writes: bool = True) -> None:
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what goes wrong is raised too, and told once
        self.ocp = ocp
        self.directory, self.settings = directory.absolute(), dict(settings)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2 if writes else None, create=writes, read_only=not writes, enable_async_checkpointing=False
        )
        self.manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, snapshot: Snapshot) -> None:
        """Adds a save; it counts only once it is complete, so that a kill leaves the one before."""
        state, best, before, sizes, progress = snapshot
        if not progress.begun or bool(state.fit.better):
            best = None  # the state itself is the best epoch's
        needed = 2 * bytes_of((state, best, before))
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise UserError(
                f"{self.directory}: the disk is full ({free:,} bytes free, {needed:,} needed for a checkpoint); free "
                "some space and start the same command again: it continues from the last checkpoint"
            )
        about = {
            "version": VERSION,
            "settings": self.settings,
            "sizes": {"labels": sizes.labels, **sizes},
            "progress": to_json(progress),
            "best": best is not None,
        }
        args = self.ocp.args
        step = (self.manager.latest_step() or 0) + 1
        tree: dict[str, Any] = {"learner": state.learner, "strategy": state.strategy, "key": state.key}
        if progress.begun:  # between two increments the rest says nothing new, and each array costs 2 ms
            tree |= {"fit": state.fit, "before": before, **({} if best is None else {"best": best})}
        self.manager.save(step, args=args.Composite(tree=args.StandardSave(tree), about=args.JsonSave(about)))

    def restore(self, like: Callable[[Sizes], Kept]) -> Snapshot | None:
        """The last save, or None where there is none. `like` says what is kept at given sizes, and where it lies."""
        step = self.manager.latest_step()
        if step is None:
            return None
        args = self.ocp.args
        advice = "start a run of its own in another folder with runs=..."
        earlier = [other for other in self.manager.all_steps() if other != step]
        before = f"move this folder away to go on from the save before it ({max(earlier)}), or " if earlier else ""
        broken = f"{self.directory}/{step}: the checkpoint cannot be read"
        try:
            about = self.manager.restore(step, args=args.Composite(about=args.JsonRestore()))["about"]
            version = about.get("version", 1)
        except Exception as error:
            raise UserError(f"{broken} ({_first(error)}); {before}{advice}") from None
        if version != VERSION:
            raise UserError(
                f"{self.directory}/{step}: the checkpoint has the format of version {version}, this code reads version "
                f"{VERSION}; {advice}, or go on with the code that wrote it"
            )
        if (other := differing(about["settings"], self.settings)) is not None:
            key, was, is_now = other
            raise UserError(
                f"{self.directory}/{step}: the checkpoint was made with {key}={was}, the configuration says "
                f"{key}={is_now}; set it back (in the run's config.yaml, if that was edited), or {advice}"
            )
        try:
            sizes, progress = Sizes(**about["sizes"]), from_json(about["progress"])
            state, best, before = like(sizes)
            best = best if about["best"] else None
            wanted: dict[str, Any] = {"learner": state.learner, "strategy": state.strategy, "key": state.key}
            if progress.begun:
                wanted |= {"fit": state.fit, "before": before, **({} if best is None else {"best": best})}
            tree = self.manager.restore(step, args=args.Composite(tree=args.StandardRestore(wanted)))["tree"]
        except Exception as error:
            raise UserError(f"{broken} ({_first(error)}); {before}{advice}") from None
        fit = tree["fit"] if progress.begun else fresh_fit()
        own = State(tree["learner"], tree["strategy"], fit, tree["key"])
        return Snapshot(own, tree.get("best"), tree.get("before"), sizes, progress)


def differing(was: Mapping[str, Any], is_now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first dotted key with another value, and both values; None: there is none."""
    one, other = (flatten_dict(dict(values), sep=".") for values in (was, is_now))
    for key in [*one, *(key for key in other if key not in one)]:
        pair = one.get(key, "(nothing)"), other.get(key, "(nothing)")
        if pair[0] != pair[1]:
            return key, *pair
    return None


def _first(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def to_json(progress: Progress) -> dict[str, Any]:
    """Plain values; NaN (not measured) survives Python's JSON."""
    return json.loads(json.dumps(progress._asdict()))


def from_json(values: dict[str, Any]) -> Progress:
    """The inverse of `to_json`."""
    records = tuple(Record(*record) for record in values["records"])
    costs = tuple(Cost(*cost) for cost in values["costs"])
    epochs = tuple(Epoch(*epoch) for epoch in values["epochs"])
    return Progress(**{**values, "records": records, "costs": costs, "epochs": epochs})
