"""Which directory a configuration's run is in, and whether the data is still what the run was made of.

Data is the same, has grown at its end, or is another. A run that is begun goes on with the same data only; with more of
it where `continue=true` says so; and never out of two cuts.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from incremental.app import config as schema
from incremental.app.assemble import stream_of
from incremental.app.contents import at_places, has_more, places, within
from incremental.app.rundir import RunDirectory, question, short, write_atomically
from incremental.core.sharding import first_process
from incremental.data.interactions import Interactions
from incremental.data.kept import Kept, Write, difference, keep, kept
from incremental.data.stream import Stream
from incremental.errors import UserError

DATA = "data"
"""the folder of a run directory that has its data"""
PROTOCOL = "incremental.data.stream.stream_of"


class Found(NamedTuple):
    """Where a run is, and its stream.

    Attributes:
        directory
        stream: cut as the run has it; None: it was not read, for the run is over
        cut: [N] the numbers that the cut gives the events now
        summary: of a finished run, with nothing left to do
        own: the increments are not those that the cut alone would make
        grown: the run goes on with events that it has not seen
        notes
    """

    directory: RunDirectory
    stream: Stream | None
    cut: np.ndarray
    summary: dict[str, Any] | None = None
    own: bool = False
    grown: bool = False
    notes: tuple[str, ...] = ()

    def open(self, config: Mapping[str, Any]) -> None:
        """Opens the directory and keeps the data there; a summary of less data is no longer the run's."""
        self.directory.open()
        at, stream = self.directory.path / DATA, self.stream
        if stream is None or not first_process() or (not self.grown and kept(at) is not None):
            return
        (self.directory.path / "summary.json").unlink(missing_ok=True)
        files = keep(
            at,
            stream.interactions,
            stream.increment,
            self.cut,
            beside(self.directory.root),
            question=question(config),
            uncut=question(config, cut=False),
            place=place(config),
            contents=contents(config),
        )
        for other in at.iterdir():
            if other.name not in files:
                other.unlink()


def find(config: Mapping[str, Any]) -> Found:
    """The run of a config; a UserError where its data is not what it was, and what can be done."""
    directory = RunDirectory(Path(config["runs"]), config["name"], config)
    known, asked = begun(directory, config), config.get("continue")
    if not known and directory.summary is not None:  # an older version kept no data
        return Found(directory, None, np.zeros(0), directory.summary)
    now = contents(config)
    over = next((data for data in known if now and data.contents == now), None)
    if over is not None and (there := directory.at(over.at.parent)).summary is not None:
        return Found(there, None, np.zeros(0), there.summary)  # the same bytes are the same events
    stream = stream_of(config)
    log, cut = stream.interactions, stream.increment
    notes = ("continue=true: there is no earlier run of this configuration; this one begins",) if asked else ()
    differences, same_question = {data.at: difference(data, log) for data in known}, question(config)
    known = [
        data
        for data in known
        if data.question == same_question
        or (differences[data.at] is None and np.array_equal(data.cut, cut[: data.events]))
    ]
    for data in known:
        if differences[data.at] is None and data.events == len(log):
            refuse_moved(config, data, stream, f"{data.at.parent}: ")
            own = not np.array_equal(data.increment, cut)
            stream = recut(config, stream, data.increment) if own else stream
            there = directory.at(data.at.parent)
            return Found(there, stream, cut, there.summary, own=own)
    if asked is False:
        if directory.path.exists() and known:
            raise UserError(f"{directory.path}: {differences[known[0].at]}; choose another folder with runs=...")
        return Found(directory, stream, cut)
    same = [data for data in known if asked or data.at.parent == directory.path or data.place == place(config)]
    grown = [data for data in same if differences[data.at] is None]
    if grown:
        return go_on(config, directory, stream, max(grown, key=lambda data: data.events))
    if same:
        ahead = [step.name for step in stream.cleaning if step.uses_future]
        why = f" (data.cleaning: '{ahead[0]}' reads later events, so that new ones change the old)" if ahead else ""
        raise UserError(
            f"{same[0].at.parent}: the data is not what the run was made of: {differences[same[0].at]}{why}. Put the "
            "data back to go on with that run, or make a run of its own with continue=false"
        )
    return Found(directory, stream, cut, notes=notes)


def summary_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of a finished run; data is read only where a run of the question has begun."""
    directory = RunDirectory(Path(config["runs"]), config["name"], config)
    return find(config).summary if begun(directory, config) else directory.summary


def has_own_cut(config: Mapping[str, Any]) -> bool:
    """Whether the run has increments that the cut alone would not make."""
    directory = RunDirectory(Path(config["runs"]), config["name"], config)
    return bool(begun(directory, config)) and find(config).own


def begun(directory: RunDirectory, config: Mapping[str, Any]) -> list[Kept]:
    """What is kept of the runs of this question; that of the same contents first, then the longest."""
    same = kept(directory.path / DATA)
    if same is not None and same.contents and same.contents == contents(config):
        return [same]
    asked, uncut = question(config), question(config, cut=False)
    known = [kept(folder) for folder in directory.root.glob(f"*-seed{config['seed']}-*/{DATA}")]
    others = config.get("continue") is True  # of another cut, which may be the same for what the run has seen
    own = [data for data in known if data and (data.question == asked or (others and data.uncut == uncut))]
    return sorted(own, key=lambda data: (data.at.parent != directory.path, -data.events))


def go_on(config: Mapping[str, Any], directory: RunDirectory, stream: Stream, data: Kept) -> Found:
    """The run of `data`, whose log has grown: refused with what can be done, or with `continue=true` to go on."""
    path, log, cut = data.at.parent, stream.interactions, stream.increment
    more = len(log) - data.events
    state = "" if (path / "summary.json").exists() else ", and was stopped before its end"
    grown = f"{path}: the run was made of {data.events:,} events{state}; the data has {more:,} more since"
    refuse_moved(config, data, stream, f"{grown}, and ")
    if not config.get("continue"):
        raise UserError(
            f"{grown}. continue=true trains on the new increments only; continue=false makes a run of its own of all "
            "events"
        )
    if config["evaluation"]["matrix"]:
        raise UserError(
            f"{grown}. evaluation.matrix=true tests each model on later increments too, which that run has not done "
            "for the new ones; make a run of its own with continue=false"
        )
    if why := of_the_future(config["data"]):
        raise UserError(
            f"{grown}. {why}, so that the run would be another one from its start; "
            "continue=false makes a run of its own of all events"
        )
    fresh = cut[data.events :]
    later = len(data.parts) - 1 + np.cumsum(np.diff(fresh, prepend=fresh[0] - 1) > 0)
    increment = np.concatenate([data.increment, later]).astype(np.int32)
    notes: tuple[str, ...] = (f"{more:,} events are new: the run goes on with increment {len(data.parts)}",)
    rest = int((fresh == data.parts[-1].cut).sum())
    if rest:
        notes = (
            *notes,
            f"increment {len(data.parts) - 1} was not over when the run trained on it; the other {rest:,} events of it "
            f"are increment {len(data.parts)}",
        )
    own = not np.array_equal(increment, cut)
    made = recut(config, stream, increment) if own else stream
    return Found(directory.at(path), made, cut, own=True, grown=True, notes=notes)


def of_the_future(data: Mapping[str, Any]) -> str | None:
    """What of a run's protocol reads the end of its data, so that no run can go on where there is more; or None."""
    targets = data.get("targets", "all")
    said = {
        "data.unseen_items=known makes all items candidates from the start": data["unseen_items"] == "known",
        "data.validate_on=next stops the last update by the increment that has come now": data["validate_on"] == "next",
        f"data.targets={targets} tests other events of old increments too": targets in ("last", "random"),
    }
    return next((what for what, chosen in said.items() if chosen), None)


def refuse_moved(config: Mapping[str, Any], data: Kept, stream: Stream, before: str) -> None:
    """A UserError where the cut gives an old event another increment than it did, with a cut that does not."""
    was, is_now = data.cut, stream.increment[: data.events]
    if np.array_equal(was, is_now):
        return
    event = int(np.argmax(was != is_now))
    base, *counts = (part.events for part in data.parts)
    each = max(counts, default=base)
    last = int(stream.interactions.time[base - 1])
    if str(config["data"]["cut"].get("_target_")).endswith(".calendar"):
        other, exact = f"data.cut.base={datetime.fromtimestamp(last + 1, UTC):%Y-%m-%dT%H:%M:%S}", True
    else:
        other = f"data/cut=fixed data.cut.base={base} data.cut.each={each} (and no other key of data.cut)"
        exact = set(counts[:-1]) <= {each}
    raise UserError(
        f"{before}the cut moves with the length of the log: event {event + 1:,} of {len(stream.interactions):,} was in "
        f"increment {was[event]} and would be in {is_now[event]}. A cut that does not move is {other}; "
        + ("it cuts what the run has seen as before: give it with continue=true to go on. " if exact else "")
        + "continue=false makes a run of its own"
    )


def recut(config: Mapping[str, Any], stream: Stream, increment: np.ndarray) -> Stream:
    """The stream with these increments in place of those of its cut."""
    made = kept_stream(config, stream.interactions, increment)
    return replace(made, cleaning=stream.cleaning, notes=stream.notes)


def protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the config's data says how a log that is cut is read: a node."""
    keys = schema.keywords({"_target_": PROTOCOL}, DATA)
    return {"_target_": PROTOCOL, **{key: value for key, value in config["data"].items() if key in keys}}


def kept_stream(config: Mapping[str, Any], log: Interactions, increment: np.ndarray) -> Stream:
    """The stream of a log and its increments, under the protocol of the config."""
    made: Stream = schema.build(protocol(config), DATA, log, increment)
    return made


def grown_since(config: Mapping[str, Any], data: Kept, path: str) -> Stream:
    """The stream of the data at `path`, which may go on where what is kept ends: what is new is one increment more."""
    now = {**config["data"], "source": {**config["data"]["source"], "path": path}}
    try:
        log = stream_of({**config, "data": now}).interactions
    except UserError as error:  # which names the key of a run
        raise UserError(str(error).replace("data.source.path", "--data")) from error
    if (why := difference(data, log)) is not None:
        raise UserError(f"--data {path}: it is not what the run was made of, nor that and more: {why}")
    rest = np.full(len(log) - data.events, len(data.parts), np.int32)
    return kept_stream(config, log, np.concatenate([data.increment, rest]))


def place(config: Mapping[str, Any]) -> str:
    """Where the data lies."""
    return json.dumps(places(config["data"]))


def contents(config: Mapping[str, Any]) -> str:
    """What stands for all that the data is read from; "" where that is more than files whose bytes are known."""
    data = within(config["data"])
    unknown = [value for value in at_places(data) if not value.startswith("content ")]
    source = data.get("source")
    ours = isinstance(source, Mapping) and str(source.get("_target_")).startswith("incremental.")
    more = any(has_more(value) for value in at_places(config["data"]))
    return short(data) if ours and not unknown and not more else ""


def beside(root: Path) -> Write:
    """Writes a file of a run's data, or links it to that of another run in `root` with the same name, so content."""

    def write(path: Path, content: bytes) -> None:
        if path.suffix != ".json":
            for other in root.glob(f"*/{DATA}/{path.name}"):
                if other.stat().st_size == len(content):
                    return link(other, path, content)
        return write_atomically(path, content)

    return write


def link(other: Path, path: Path, content: bytes) -> None:
    """A hard link where the file system has them."""
    if other == path:
        return
    try:
        path.parent.mkdir(exist_ok=True)
        path.hardlink_to(other)
    except OSError:
        write_atomically(path, content)
