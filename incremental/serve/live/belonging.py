"""Whether a learner's checkpoint belongs to a log."""

import json
from pathlib import Path

import msgspec

from incremental.app.rundir import write_atomically
from incremental.errors import UserError
from incremental.log.records import Cut, decode, encode
from incremental.run.executor import Snapshot
from incremental.serve.live.tail import Tail

FILE = "log.json"


def check(folder: Path, tail: Tail, start: Snapshot | None) -> None:
    """A UserError where the checkpoint in a learner's folder was made of another log, or of more of it than there is.

    Whose log it is say its first record, and the cuts of the last increments: two logs may begin alike. Both are noted
    before an increment is trained.
    """
    path, advice = folder / FILE, "start with the log that it has learnt from, or in another folder (live.folder=...)"
    done = 0 if start is None else start.progress.increment + start.progress.begun
    if not done:
        write_atomically(path, json.dumps({"first": tail.first, "cuts": {}}) + "\n")
        return
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        first, noted = about["first"], {int(t): decode(cut) for t, cut in about["cuts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError):
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
    for t, cut in noted.items():
        if t < done and cut not in tail.cuts:
            raise UserError(
                f"{folder}: its checkpoint has learnt increment {t} of a log with {encode(cut).decode()}; "
                f"{tail.place} begins like it, and has no such record; {advice}"
            )


def note(folder: Path, t: int, cut: Cut) -> None:
    """Notes what increment t, which is trained next, ends with. The notes of two increments stay: a checkpoint has
    learnt one of them at least."""
    path = folder / FILE
    about = json.loads(path.read_text(encoding="utf-8"))
    cuts = {**about["cuts"], str(t): encode(cut).decode()}
    about["cuts"] = {each: cuts[each] for each in sorted(cuts, key=int)[-2:]}
    write_atomically(path, json.dumps(about) + "\n")
