"""Promotion and rollback: records of the log, which say what serves from now on."""

import time
import uuid
from pathlib import Path

from incremental.errors import UserError
from incremental.log.records import Choice
from incremental.serve.live import versions
from incremental.serve.live.tail import Tail
from incremental.serve.live.versions import LEARNERS


def serving(folder: Path, champion: str, tail: Tail) -> tuple[str, int | None]:
    """The learner that serves and its version, by the newest choice, else the champion's newest; None: none yet."""
    if not tail.choices:
        return champion, versions.newest(folder / LEARNERS / champion)
    choice = [*tail.choices.values()][-1]
    return choice.learner, versions.newest(
        folder / LEARNERS / choice.learner
    ) if choice.version is None else choice.version


def promotion(folder: Path, learner: str, version: int | None = None, reason: str = "") -> Choice:
    """The record by which a learner serves: its newest versions, or always this one. A UserError where it has none."""
    there = versions.numbers(folder / LEARNERS / learner)
    if not there:
        known = sorted(each.name for each in (folder / LEARNERS).glob("*/") if versions.numbers(each))
        raise UserError(
            f"{folder / LEARNERS / learner}: this learner has no version yet; those that have one: "
            f"{', '.join(known) or 'none'}"
        )
    if version is not None and version not in there:
        raise UserError(
            f"{folder / LEARNERS / learner}: version {version} is not there; there is {', '.join(map(str, there))}"
        )
    return Choice(uuid.uuid4().hex, learner, version, time.time(), reason)


def rollback(folder: Path, champion: str, tail: Tail, version: int | None = None, reason: str = "") -> Choice:
    """The record by which an earlier version of the learner that serves does: this one, or the one before."""
    learner, now = serving(folder, champion, tail)
    if version is None:
        before = [
            number for number in versions.numbers(folder / LEARNERS / learner) if now is not None and number < now
        ]
        if not before:
            raise UserError(
                f"{folder / LEARNERS / learner}: there is no earlier version than {now}; wait for the next one"
            )
        version = before[-1]
    return promotion(folder, learner, version, reason)
