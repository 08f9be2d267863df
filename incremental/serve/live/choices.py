"""Promotion and rollback: records of the log, which say what serves from now on.

`learners` is the folder of the learners' folders.
"""

import time
import uuid
from pathlib import Path

from incremental.errors import UserError
from incremental.log.records import Choice
from incremental.serve.live import versions


def serving(learners: Path, champion: str, choice: Choice | None) -> tuple[str, int | None]:
    """The learner that serves and its version, by the newest choice, else the champion's newest; None: none yet."""
    learner = champion if choice is None else choice.learner
    number = None if choice is None else choice.version
    return learner, versions.newest(learners / learner) if number is None else number


def promotion(learners: Path, learner: str, version: int | None = None, reason: str = "") -> Choice:
    """The record by which a learner serves: its newest versions, or always this one. A UserError where it has none."""
    known = {each.name: found for each in sorted(learners.glob("*/")) if (found := versions.numbers(each))}
    if learner not in known:
        there = ", ".join(known) or "none yet"
        raise UserError(f"learner {learner!r}: it has no version; choose one that has: {there}")
    if version is not None and version not in known[learner]:
        there = ", ".join(map(str, known[learner]))
        raise UserError(f"learner {learner!r}: version {version} is not there; choose one of {there}")
    return Choice(uuid.uuid4().hex, learner, version, time.time(), reason)


def rollback(learners: Path, now: tuple[str, int | None], version: int | None = None, reason: str = "") -> Choice:
    """The record by which an earlier version than the one of `now`, which serves, does: this one, or the one before."""
    learner, number = now
    if number is None:
        raise UserError(f"learner {learner!r}: no version serves yet; wait for the first one")
    before = [each for each in versions.numbers(learners / learner) if each < number]
    if not before:
        raise UserError(f"learner {learner!r}: no version before {number} is there; promote another learner, or wait")
    if version is not None and version not in before:
        there = ", ".join(map(str, before))
        raise UserError(f"learner {learner!r}: version {version} is not before {number}; choose one of {there}")
    return promotion(learners, learner, before[-1] if version is None else version, reason)
