"""The embedded engine: one SQLite file. A transaction is on disk before `append` returns."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from incremental.errors import UserError
from incremental.log.engine import Written
from incremental.log.records import Record, decode, encode

APPLICATION = 0x696E636C  # "incl", in the file's header: whose file it is
VERSION = 1
POLL = 0.02  # seconds between two looks at a log that waits for records
BUSY = 30.0  # seconds that a writer waits for another
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
            self.database = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute("PRAGMA synchronous = FULL")
            self._open(create)
        except sqlite3.Error as error:
            raise UserError(f"{path}: {said(error)}") from error

    def _open(self, create: bool) -> None:
        with self._transaction():
            (mark,) = self.database.execute("PRAGMA application_id").fetchone()
            (version,) = self.database.execute("PRAGMA user_version").fetchone()
            tables = self.database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if create and not tables:
                self.database.execute(SCHEMA)
                self.database.execute(f"PRAGMA application_id = {APPLICATION}")
                self.database.execute(f"PRAGMA user_version = {VERSION}")
            elif mark != APPLICATION:
                raise UserError(f"{self.path}: a database, but no log; give the file that incremental-serve made")
            elif version != VERSION:
                raise UserError(
                    f"{self.path}: a log of version {version}, this code reads version {VERSION}; use the code that "
                    "wrote it"
                )

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
        try:
            with self.lock, self._transaction():
                for record in records:
                    row = self.database.execute(
                        "INSERT INTO records (key, body) VALUES (?, ?) ON CONFLICT DO NOTHING",
                        (record.key, encode(record)),
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
                return [(offset, decode(body)) for offset, body in rows]
            time.sleep(min(POLL, max(until - time.monotonic(), 0.0)))

    def last(self) -> int:
        """See `Log`."""
        with self.lock:
            return int(self.database.execute("SELECT coalesce(max(offset), 0) FROM records").fetchone()[0])

    def close(self) -> None:
        """Lets the file go."""
        with self.lock:
            self.database.close()


def said(error: sqlite3.Error) -> str:
    """What SQLite refuses, and what to do."""
    what = str(error)
    if "full" in what:
        return f"{what}; nothing of this was written: free some space, and send it again"
    if "locked" in what or "busy" in what:
        return f"{what} for {BUSY:.0f} s by another process; stop that one, or give another log"
    if "not a database" in what:
        return "no log, nor any database; give the file that incremental-serve made"
    return f"{what}; check the disk, or take the log from a copy"
