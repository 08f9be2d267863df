"""What the page shows: the state of the loop as JSON, and the page itself, which needs nothing from elsewhere."""

import csv
import json
import time
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from incremental.serve.live import versions
from incremental.serve.live.service import Service
from incremental.serve.live.status import FILE

STEP = 5  # seconds of a point
UPDATES = 12  # that are listed
POINTS = 500  # of a curve at most


@cache
def page() -> bytes:
    """The page."""
    return files("incremental.serve.live").joinpath("page.html").read_bytes()


def state(service: Service) -> dict[str, Any]:
    """What GET /v1/status says, as plain values."""
    model, people, chooser = service.chooser.current, service.people, service.chooser
    champion = service.settings.champion if people.choice is None else people.choice.learner
    found: dict[str, Any] = {
        "now": time.time(),
        "started": service.started,
        "problem": service.broken() or chooser.problem,
        "version": None,
        "lag": service.lag()._asdict(),
        "totals": {"events": people.events, "users": len(people.users), "items": len(people.items)},
        "queue": {"events": service.writer.length, "most": service.settings.limits.queue},
        "recent": service.metrics.recent(STEP),
        "cuts": [each._asdict() for each in people.sealed[-UPDATES - 1 :]][::-1],
        "drift": [each._asdict() for each in people.sealed if each.reason == "drift"][-UPDATES:][::-1],
        "increments": len(people.sealed),
        "learners": [],
    }
    if model is not None:
        pinned = people.choice is not None and people.choice.version is not None
        found["version"] = {
            "learner": model.learner,
            "number": model.number,
            "age": service.age,
            "items": model.items,
            "pinned": pinned,
        }
    for folder in sorted(service.learners.iterdir()) if service.learners.is_dir() else []:
        if folder.is_dir():
            found["learners"].append(
                {
                    "name": folder.name,
                    "champion": folder.name == champion,
                    "version": versions.newest(folder),
                    **quality(folder / "evaluations.csv"),
                    "published": published(folder),
                    "status": status(folder / FILE),
                }
            )
    return found


def quality(file: Path) -> dict[str, Any]:
    """The first metric of a learner's prequential tests: its name, and [increment, value, events] of each."""
    try:
        changed = file.stat()
        return read(file, changed.st_mtime_ns, changed.st_ino)
    except FileNotFoundError:
        return {"metric": "", "points": []}


@lru_cache(maxsize=64)
def read(file: Path, changed: int, number: int) -> dict[str, Any]:
    """See `quality`; a file with this time and number is read once, for it grows with the stream."""
    del changed, number
    metric, points = "", []
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        metric = metric or row["metric"]
        before, on = int(row["trained_until"]), int(row["evaluated_on"])
        if row["metric"] == metric and row["value"] and before < on:
            points.append([on, float(row["value"]), int(row["count"])])
    step = -(-len(points) // POINTS) or 1
    return {"metric": metric, "points": points[::-1][::step][::-1]}


def status(file: Path) -> dict[str, Any] | None:
    """What a learner says of itself; None: nothing."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def published(folder: Path) -> dict[int, float]:
    """Version -> when it was written, seconds since 1970, of those that are kept."""
    there = folder / versions.VERSIONS
    found = {}
    for number in versions.numbers(folder)[-UPDATES:]:
        try:
            found[number] = (there / f"{number:06d}" / versions.ABOUT).stat().st_mtime
        except FileNotFoundError:  # an old one that has just made room
            continue
    return found
