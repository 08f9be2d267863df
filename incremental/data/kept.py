"""What a run keeps of its data: the log that it was made of, and a digest of each increment.

A run belongs to its data: ids are numbers by first appearance, so the weights of another log's item 5 are another
item's. The log is kept whole, because a model reads the histories, the ids and the titles of it when it is used.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from incremental.data.interactions import Interactions, Kind, Side
from incremental.errors import UserError

VERSION = 1  # of what is kept; another one is refused
ABOUT = "data.json"

Write = Callable[[Path, bytes], None]
"""puts a file there, whole or not at all"""


class Part(NamedTuple):
    """One increment: its number of events, the number that the cut gave it, and what stands for its events and texts.

    `texts` stands for the titles of the items that came with it and their numbers, where models read them; else "".
    """

    events: int
    cut: int
    digest: str
    texts: str


class Kept(NamedTuple):
    """The data of a run, in the folder `at`: its parts, and its files by what they hold.

    `question` is the hash of the configuration without its data, `uncut` that without the cut, `place` says where the
    data lay, `contents` stands for what lay there.
    """

    at: Path
    parts: tuple[Part, ...]
    files: Mapping[str, str]
    question: str
    uncut: str
    place: str
    contents: str
    behaviours: tuple[str, ...] = ()

    @property
    def increment(self) -> np.ndarray:
        """[N] int32, each event's increment."""
        return np.repeat(np.arange(len(self.parts), dtype=np.int32), [part.events for part in self.parts])

    @property
    def cut(self) -> np.ndarray:
        """[N] int32, what the cut said of each event."""
        return self.increment if not self.parts else np.array([part.cut for part in self.parts])[self.increment]

    @property
    def events(self) -> int:
        return sum(part.events for part in self.parts)


# -- digests ---------------------------------------------------------------------------------------------------------


def columns(log: Interactions) -> dict[str, np.ndarray]:
    """What is known of each event, [N] each, by name."""
    known = {
        "user": log.user,
        "item": log.item,
        "time": log.time,
        "fraction": log.fraction,
        "rating": log.rating,
        "behaviour": log.behaviour,
        "period": log.period,
        **{f"kind {name}": kind.ids for name, kind in log.further.items()},
    }
    return {name: values for name, values in known.items() if values is not None}


def digests(log: Interactions, counts: Sequence[int], cuts: Sequence[int]) -> tuple[Part, ...]:
    """The parts of so many events each, the first ones of the log.

    A part's digest is of its events' numbers, and of the ids that are new in it: as ids are numbered by first
    appearance, the two are the events by their own ids.
    """
    arrays, first, found = columns(log), 0, []
    known = {**dict.fromkeys(log.kinds, 1), "behaviour of the log": 0}
    for count, cut in zip(counts, cuts, strict=True):
        last = first + count
        events, texts = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
        for name, values in arrays.items():
            events.update(name.encode() + np.ascontiguousarray(values[first:last]).tobytes())
        new: dict[str, slice] = {}
        for kind in known:
            own = kind in log.kinds
            ids = log.ids(kind) if own else log.behaviour
            names = log.vocabulary(kind) if own else log.behaviours
            until = known[kind] if ids is None else int(ids[first:last].max(initial=known[kind] - 1)) + 1
            new[kind], known[kind] = slice(known[kind], until), until
            events.update("\0".join([kind, *names[new[kind]]]).encode())
        if log.side:
            texts.update("\0".join((log.titles or [])[new["item"]]).encode())
        for name, side in log.side.items():
            texts.update(name.encode() + np.ascontiguousarray(side.values[new[side.kind]]).tobytes())
        found.append(Part(count, int(cut), events.hexdigest(), texts.hexdigest() if log.side else ""))
        first = last
    return tuple(found)


# -- files -----------------------------------------------------------------------------------------------------------


def keep(
    at: Path,
    log: Interactions,
    increment: np.ndarray,
    cut: np.ndarray,
    write: Write,
    *,
    question: str = "",
    uncut: str = "",
    place: str = "",
    contents: str = "",
) -> set[str]:
    """Keeps the log in the folder `at`; `write` is called for each file, the one that names the others last.

    `cut` [N] are the numbers that the cut gave the events. Returns the names of the files.
    """
    bounds = np.searchsorted(increment, np.arange(int(increment[-1]) + 2))
    parts = digests(log, np.diff(bounds).tolist(), cut[bounds[:-1]].tolist())
    known = columns(log) if log.line is None else {**columns(log), "line": log.line}
    made = {"events.parquet": parquet(known)}
    for kind in log.kinds:
        titles = {"title": log.titles} if kind == "item" and log.titles is not None else {}
        made[f"{kind}.parquet"] = parquet({"id": log.vocabulary(kind), **titles})
    for name, side in log.side.items():
        made[f"{name} of {side.kind}.npy"] = array(side.values)
    files: dict[str, str] = {}
    for name, content in made.items():
        stem, _, end = name.rpartition(".")
        files[name] = f"{stem}-{hashlib.blake2b(content, digest_size=8).hexdigest()}.{end}"
        write(at / files[name], content)
    about = {
        "version": VERSION,
        "question": question,
        "uncut": uncut,
        "place": place,
        "contents": contents,
        "behaviours": log.behaviours,
        "files": files,
        "parts": [part._asdict() for part in parts],
    }
    write(at / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
    return {ABOUT, *files.values()}


def parquet(values: Mapping[str, Any]) -> bytes:
    """A table as the bytes of a Parquet file."""
    file = io.BytesIO()
    pl.DataFrame(values).write_parquet(file)
    return file.getvalue()


def array(values: np.ndarray) -> bytes:
    """An array as the bytes of a file."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def kept(at: Path) -> Kept | None:
    """What is kept in the folder `at`; None where nothing is."""
    try:
        changed = (at / ABOUT).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return read(at, changed.st_mtime_ns, changed.st_ino)


@lru_cache(maxsize=4096)
def read(at: Path, changed: int, file: int) -> Kept:
    """What is kept in the folder `at`; its time and number are those of a file that was written again."""
    del changed, file
    try:
        about = json.loads((at / ABOUT).read_text(encoding="utf-8"))
        version = about["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{at / ABOUT}: cannot be read ({error}); take it from a copy of the run") from None
    if version != VERSION:
        raise UserError(
            f"{at / ABOUT}: it has the format of version {version}, this code reads version {VERSION}; use the code "
            "that wrote it"
        )
    if any(Path(name).name != name for name in about["files"].values()):
        raise UserError(f"{at / ABOUT}: it names files outside of its folder; take it from a copy of the run")
    parts = tuple(Part(**part) for part in about["parts"])
    own = {name: about[name] for name in ("files", "question", "uncut", "place", "contents")}
    return Kept(at, parts, behaviours=tuple(about["behaviours"]), **own)


def log_of(data: Kept) -> Interactions:
    """The log as it was kept, its law (of a simulated stream) left out."""

    def table(name: str) -> pl.DataFrame:
        return pl.read_parquet(data.at / data.files[name], glob=False)

    try:
        frame = table("events.parquet")
        found = {name: frame[name].to_numpy() for name in frame.columns}
        further = {
            name.removeprefix("kind "): Kind(ids, table(f"{name.removeprefix('kind ')}.parquet")["id"].to_list())
            for name, ids in found.items()
            if name.startswith("kind ")
        }
        sides = [name for name in data.files if name.endswith(".npy")]
        side = {
            name.partition(" of ")[0]: Side(
                name[:-4].partition(" of ")[2], np.load(data.at / data.files[name], allow_pickle=False)
            )
            for name in sides
        }
        users, items = table("user.parquet"), table("item.parquet")
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{data.at}: the run's data cannot be read ({why}); take the folder from a copy") from None
    return Interactions(
        user=found["user"],
        item=found["item"],
        time=found["time"],
        fraction=found["fraction"],
        rating=found.get("rating"),
        behaviour=found.get("behaviour"),
        period=found.get("period"),
        users=users["id"].to_list(),
        items=items["id"].to_list(),
        titles=items["title"].to_list() if "title" in items.columns else None,
        behaviours=data.behaviours,
        notes=(),
        further=further,
        side=side,
        line=found.get("line"),
    )


# -- differences -----------------------------------------------------------------------------------------------------


def difference(data: Kept, log: Interactions) -> str | None:
    """The first difference between what is kept and the first events of `log`, in words; None: there is none."""
    counts = [part.events for part in data.parts]
    now = digests(log, counts, [part.cut for part in data.parts])
    for t, (was, is_now) in enumerate(zip(data.parts, now, strict=True)):
        if was.digest != is_now.digest:
            return in_events(log_of(data), log, t, sum(counts[:t]))
        if was.texts != is_now.texts:
            return in_texts(log_of(data), log, t)
    return None


def in_events(old: Interactions, new: Interactions, t: int, first: int) -> str:
    """The first event from `first` on, of increment t, that is another one; those before are the same."""
    one, other = columns(old), columns(new)
    if one.keys() != other.keys():
        return f"an event was of {', '.join(one)}; now it is of {', '.join(other)}"
    most = min(len(old), len(new))
    places = [most]
    for name in one:
        places.append(first + first_true(one[name][first:most] != other[name][first:most]))
    pairs = [(old.ids(kind), old.vocabulary(kind), new.vocabulary(kind)) for kind in old.kinds]
    if old.behaviour is not None:
        pairs.append((old.behaviour, list(old.behaviours), list(new.behaviours)))
    for ids, was, is_now in pairs:
        number = next((i for i, both in enumerate(zip(was, is_now, strict=False)) if both[0] != both[1]), None)
        if number is not None:
            places.append(first_true(ids[:most] == number))
    event = min(places)
    then = told(old, event) if event < len(old) else "not there"
    now = told(new, event) if event < len(new) else "not there"
    return f"event {event + 1:,} in time order, in increment {t}, was {then}; now it is {now}"


def first_true(found: np.ndarray) -> int:
    """The place of the first True; the length where there is none."""
    return int(np.argmax(found)) if found.any() else len(found)


def told(log: Interactions, event: int) -> str:
    """An event in words."""
    time = int(log.time[event])
    when = datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z") if time >= 10**6 else str(time)
    when += f" and {log.fraction[event]} ns" if log.fraction[event] else ""
    words = [f"user {log.users[log.user[event]]!r}, item {log.items[log.item[event]]!r}, time {when}"]
    if log.rating is not None:
        words.append(f"rating {log.rating[event]:g}")
    if log.behaviour is not None:
        words.append(f"behaviour {log.behaviours[log.behaviour[event]]!r}")
    if log.period is not None:
        words.append(f"period {log.period[event]}")
    words += [f"{name} {kind.names[kind.ids[event]]!r}" for name, kind in log.further.items()]
    where = "" if log.line is None else f" (row {log.line[event]})"
    return ", ".join(words) + where


def in_texts(old: Interactions, new: Interactions, t: int) -> str:
    """The first item whose title is another one, or else its numbers."""
    for item, (was, is_now) in enumerate(zip(old.titles or [], new.titles or [], strict=False)):
        if was != is_now:
            return f"the title of item {old.items[item]!r}, of increment {t}, was {was!r}; now it is {is_now!r}"
    return f"the titles of increment {t} are the same, but data.text makes other numbers of them"
