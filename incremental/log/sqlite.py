"""The embedded engine: one SQLite file. A transaction is on disk before `append` returns."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from incremental.errors import UserError
from incremental.log.engine import Written
from incremental.log.records import Record, decode, encode

APPLICATION = 0x696E636C  # "incl", in the file's header: whose file it is
VERSION = 2  # of new logs, which may have titles
READS = 1, 2  # one of version 1 has none; who may write to it makes it one of version 2
POLL = 0.02  # seconds between two looks at a log that waits for records
BUSY = 30.0  # seconds that a writer waits for another
COPY = "check the disk, and take the log from a copy"
SCHEMA = "CREATE TABLE records (offset INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body BLOB NOT NULL) STRICT"


class SQLite:
    """A log in the file `path`, which is made if `create`. Offsets are row numbers, without gaps.

    Several processes may read and append; each call is safe in any thread.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.is_file():
            raise UserError(f"{path}: no such log; incremental-serve makes one")
        self.path, self.lock = path, threading.Lock()
        try:
            self.database = sqlite3.connect(
                address(path), BUSY, isolation_level=None, check_same_thread=False, uri=True
            )
            if create and self._empty():
                self.database.execute("PRAGMA journal_mode = WAL")
                with self._transaction():
                    self._make()
            if self._check() < VERSION and create:
                self.database.execute(f"PRAGMA user_version = {VERSION}")
            self.database.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise UserError(f"{path}: {said(error)}") from error

    def _one(self, query: str) -> int:
        return int(self.database.execute(query).fetchone()[0])

    def _empty(self) -> bool:
        return not self._one("SELECT count(*) FROM sqlite_schema")

    def _make(self) -> None:
        if self._empty():  # still: two processes may begin at once
            self.database.execute(SCHEMA)
            self.database.execute(f"PRAGMA application_id = {APPLICATION}")
            self.database.execute(f"PRAGMA user_version = {VERSION}")

    def _check(self) -> int:
        """The file's version. Whose it is is read before anything is written."""
        if self._one("PRAGMA application_id") != APPLICATION:
            raise UserError(f"{self.path}: a database, but no log; give the file that incremental-serve made")
        if (version := self._one("PRAGMA user_version")) not in READS:
            raise UserError(
                f"{self.path}: a log of version {version}, this code reads up to {VERSION}; use the code that wrote it"
            )
        return version

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def append(self, records: Sequence[Record]) -> list[Written]:
        """See `Log`. A UserError where the disk is full: then none of the records is kept."""
        found: list[Written] = []
        bodies = [encode(record) for record in records]
        try:
            with self.lock, self._transaction():
                for record, body in zip(records, bodies, strict=True):
                    row = self.database.execute(
                        "INSERT INTO records (key, body) VALUES (?, ?) ON CONFLICT DO NOTHING", (record.key, body)
                    )
                    if row.rowcount:
                        found.append(Written(row.lastrowid or 0, True))
                        continue
                    own = self.database.execute("SELECT offset FROM records WHERE key = ?", (record.key,)).fetchone()
                    found.append(Written(own[0], False))
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: {said(error)}") from error
        return found

    def read(self, after: int, most: int, wait: float = 0.0) -> list[tuple[int, Record]]:
        """See `Log`."""
        until = time.monotonic() + wait
        query = "SELECT offset, body FROM records WHERE offset > ? ORDER BY offset LIMIT ?"
        while True:
            try:
                with self.lock:
                    rows = self.database.execute(query, (after, most)).fetchall()
            except sqlite3.Error as error:
                raise UserError(f"{self.path}: {said(error)}") from error
            if rows or time.monotonic() >= until:
                return [(offset, self._decoded(offset, body)) for offset, body in rows]
            time.sleep(min(POLL, max(until - time.monotonic(), 0.0)))

    def _decoded(self, offset: int, body: bytes) -> Record:
        try:
            return decode(body)
        except msgspec.MsgspecError as error:
            raise UserError(f"{self.path}: the record at offset {offset} is none ({error}); {COPY}") from error

    def last(self) -> int:
        """See `Log`."""
        try:
            with self.lock:
                return self._one("SELECT coalesce(max(offset), 0) FROM records")
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: {said(error)}") from error

    def close(self) -> None:
        """Lets the file go."""
        with self.lock:
            self.database.close()


def address(path: Path) -> str:
    """The file's address for SQLite. One at rest in a folder that nobody may write to is read as it is: beside others
    SQLite keeps two files while they are open."""
    still = path.is_file() and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()
    return f"file:{quote(str(path.absolute()))}{'?immutable=1' if still else ''}"


def said(error: sqlite3.Error) -> str:
    """What SQLite refuses, and what to do."""
    what = str(error)
    if "full" in what:
        return f"{what}; nothing of this was written: free some space, and send it again"
    if "locked" in what or "busy" in what:
        return f"{what} for {BUSY:g} s by another process; stop that one, or give another log"
    if "unable to open" in what:
        return f"{what}; check that it is a file, and that its folder is there and may be written"
    if "readonly" in what:
        return f"{what}; ask its owner for the right to write, or copy the log to a folder of your own"
    if "not a database" in what:
        return "no log, nor any database; give the file that incremental-serve made"
    return f"{what}; {COPY}"
