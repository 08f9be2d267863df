"""Whether a learner's checkpoint belongs to a log."""

import json
from pathlib import Path

from incremental.app.rundir import write_atomically
from incremental.errors import UserError
from incremental.run.executor import Snapshot
from incremental.serve.live.tail import Tail

FILE = "log.json"


def check(folder: Path, tail: Tail, start: Snapshot | None) -> None:
    """A UserError where the checkpoint in a learner's folder was made of another log, or of more of it than there is.

    Whose log it is says its first record, which is noted before the first increment is trained.
    """
    path, advice = folder / FILE, "start with the log that it has learnt from, or in another folder (live.folder=...)"
    done = 0 if start is None else start.progress.increment + start.progress.begun
    if not done:
        write_atomically(path, json.dumps({"first": tail.first}) + "\n")
        return
    try:
        first = json.loads(path.read_text(encoding="utf-8"))["first"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: cannot be read, and says which log the checkpoint is of; take it from a copy"
        ) from None
    if first != tail.first:
        raise UserError(
            f"{folder}: its checkpoint is of a log that begins with {first}; {tail.place} begins with {tail.first}; "
            f"{advice}"
        )
    if done > len(tail.cuts):
        raise UserError(
            f"{folder}: its checkpoint has learnt {done} increments, and in {tail.place} {len(tail.cuts)} have ended: "
            f"a part of the log is lost; {advice}"
        )
