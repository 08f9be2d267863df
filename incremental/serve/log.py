"""The `incremental-log` command: a live log as Parquet files, or as a second log."""

import argparse
import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import polars as pl

from incremental.data import ids
from incremental.data.sources import log as source
from incremental.data.titles import in_time
from incremental.errors import UserError
from incremental.log.columns import Events
from incremental.log.engine import Log
from incremental.log.place import open_log
from incremental.log.records import Cut, Event, Record, Title
from incremental.shell import enter, path, status

PLACE = "a file, nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC"
BLOCK = 1000  # records copied at once


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports or copies a log."""
    parser = argparse.ArgumentParser(prog="incremental-log", description="Export or copy the log of incremental-serve.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("export", help="Parquet files, one an increment, that data=columns reads")
    verb.add_argument("place", help=PLACE)
    verb.add_argument("--to", type=path, required=True, help="folder for the files; must not hold such files yet")
    verb = verbs.add_parser(
        "copy", help="a second log with the same records and offsets, also while the first is served"
    )
    verb.add_argument("place", help=PLACE)
    verb.add_argument("to", help="likewise; must have no records yet")
    verb.add_argument("--without-user", action="append", default=[], metavar="ID", help="leave this user's events out")
    verb.add_argument(
        "--titles-first", action="store_true", help="before all events, so that late ones are the items' texts too"
    )
    enter()
    options = parser.parse_args(arguments)

    def work() -> None:
        if options.verb == "copy":
            number, left = copy(options.place, options.to, options.without_user, first=options.titles_first)
            print(f"copied: {number:,} records")
            for user in options.without_user:
                print(f"left out: {left[ids.normal(user)]:,} events of user {user!r}")
            return
        files = export(options.place, options.to)
        print(f"written: {files[0]} to {files[-1].name}, {len(files):,} files")

    return status(work)


def export(place: str, to: Path) -> list[Path]:
    """Writes a log's increments into the folder `to`, and returns their files.

    Columns as the stream has them: user, item, behaviour (the event's type) str, time (UTC, microseconds; the largest
    so far), period (the increment) int32, title (of the item; null: the stream has none) str. Beside them: offset
    int64, event_id str, sent (the event's own time); learner str, version int32 and slate list of str, of what was
    served; and fields.NAME str for each further field.
    """
    if taken := sorted(to.glob("increment-*.parquet")):
        raise UserError(f"{taken[0]} exists and is not overwritten; choose another folder with --to")
    frame = table(place)
    to.mkdir(parents=True, exist_ok=True)
    parts = {int(name): part for (name,), part in frame.group_by("period", maintain_order=True)}
    paths = [to / f"increment-{number:06}.parquet" for number in parts]
    halves = [one.with_name(f".{one.name}.new") for one in paths]
    for half, part in zip(halves, parts.values(), strict=True):
        part.write_parquet(content := io.BytesIO())
        # By Python, whose errors name the file; a view of the buffer, kept by such an error, ends Python 3.12.1.
        half.write_bytes(content.getvalue())
    for half, whole in zip(halves, paths, strict=True):
        half.replace(whole)
    return paths


def table(place: str) -> pl.DataFrame:
    """The events of all increments, with the columns of `export`."""
    events, titles, cuts = source.sealed(place)
    made = source.table(Events(events, titles), cuts, origin=place)
    stream, text = made.frame, in_time(made.text, made.since, made.frame)
    known = [event for _, event in events[: stream.height]]
    fields = sorted({name for event in known for name in event.fields})
    shown = [event.served for event in known]
    micro = pl.Series([round((event.time or 0.0) * source.MICRO) for event in known], dtype=pl.Int64)
    return stream.select(
        "user",
        "item",
        "behaviour",
        moments(pl.col("time") * source.MICRO + pl.col("fraction") // 1000).alias("time"),
        "period",
        pl.Series("title", [text.get(event.item) for event in known], dtype=pl.String),
        pl.col("line").alias("offset"),
        pl.Series("event_id", [event.event_id for event in known], dtype=pl.String),
        moments(pl.lit(micro)).alias("sent"),
        pl.Series("learner", [one and one.learner for one in shown], dtype=pl.String),
        pl.Series("version", [one and one.version for one in shown], dtype=pl.Int32),
        pl.Series("slate", [one and one.items for one in shown], dtype=pl.List(pl.String)),
        *(pl.Series(f"fields.{name}", [event.fields.get(name) for event in known], dtype=pl.String) for name in fields),
    )


def moments(micro: pl.Expr) -> pl.Expr:
    """Microseconds since 1970 as times."""
    return micro.cast(pl.Datetime("us", "UTC"))


def copy(place: str, to: str, without: Collection[str] = (), *, first: bool = False) -> tuple[int, Counter[str]]:
    """Appends a log's records to an empty log; what comes meanwhile may be missing. Returns their number, and how many
    events of each user were left out.

    The events of the users `without` are left out. Then later offsets are smaller, the cuts are moved with them, and an
    increment that had no other events is none. `first`: the titles come before all else.
    """
    with closing(open_log(place)) as log:
        until = log.last()
        if not until:
            raise UserError(f"{place}: the log has no records; nothing was copied")
        with empty(to) as other:
            titles = [title for _, title in source.everything(log)[1]] if first else []
            for start in range(0, len(titles), BLOCK):
                other.append(titles[start : start + BLOCK])
            left = Left({ids.normal(user) for user in without}, titles)
            after = 0
            while after < until and (block := log.read(after, min(BLOCK, until - after))):
                other.append([kept for offset, record in block if (kept := left.moved(offset, record)) is not None])
                after = block[-1][0]
    return len(titles) + after - len(left.out), left.users_out


@contextmanager
def empty(to: str) -> Iterator[Log]:
    """An empty log to write to. A new file gets its name once all is written, so that none is a part of a log."""
    path = Path(to).expanduser()
    if "://" in to or path.exists():
        with closing(open_log(to, create=True)) as there:
            if there.last():
                raise UserError(f"{to}: a log with records is not overwritten; choose another place")
            yield there
        return
    half = path.with_name(f".{path.name}.new")
    files = [Path(f"{half}{end}") for end in ("", "-wal", "-shm")]
    try:
        for each in files:
            each.unlink(missing_ok=True)  # of a copy that was killed
        with closing(open_log(str(half), create=True)) as there:
            yield there
        if files[1].exists():
            raise UserError(f"{to}: the copy is not all in one file; free some space, and copy again")
        half.replace(path)
    finally:
        for each in files:
            each.unlink(missing_ok=True)


class Left:
    """What is left of a log without some users, and without the `titles`, which are there already."""

    def __init__(self, users: Collection[str], titles: Collection[Title] = ()) -> None:
        self.users, self.titles = users, {title.item for title in titles}
        self.users_out: Counter[str] = Counter()  # events that are left out
        self.out: list[int] = []  # offsets that are left out
        self.events: list[int] = []  # offsets of the events that are left
        self.cuts, self.sealed = 0, 0  # cuts that are left, and the events up to the last one

    def moved(self, offset: int, record: Record) -> Record | None:
        """The next record as it is now; None: it is left out."""
        if isinstance(record, Event):
            if record.user not in self.users:
                self.events.append(offset)
                return record
            self.users_out[record.user] += 1
            self.out.append(offset)
            return None
        if isinstance(record, Title) and record.item in self.titles:
            self.out.append(offset)
            return None
        if isinstance(record, Cut):
            sealed = bisect_right(self.events, record.until)
            if sealed == self.sealed:
                self.out.append(offset)
                return None
            moved = len(self.titles) + record.until - bisect_right(self.out, record.until)
            record = msgspec.structs.replace(record, number=self.cuts, until=moved)
            self.cuts, self.sealed = self.cuts + 1, sealed
        return record
