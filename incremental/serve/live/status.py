"""`status.json` of a learner's folder: where it stands, for the server's page."""

import json
import os
import time
from pathlib import Path
from typing import Any

from incremental.run.progress import EpochDone, Event, Paused, Resumed, Trained
from incremental.serve.live.feed import Cutter

FILE = "status.json"
BETWEEN = 1.0  # seconds, while nothing happens


class Status:
    """A consumer that keeps the file up to date. It is replaced by a rename, and not forced to disk."""

    def __init__(self, folder: Path, name: str, cutter: Cutter) -> None:
        self.path, self.cutter, self.written = folder / FILE, cutter, -BETWEEN
        self.known: dict[str, Any] = {"learner": name, "pid": os.getpid(), "since": time.time(), "increment": -1}

    def __call__(self, event: Event) -> None:
        """See `incremental.app.experiment.Consumer`."""
        if isinstance(event, Resumed):
            costs = event.progress.costs
            self.known["increment"] = event.progress.increment - 1
            self.known |= {"last": costs[-1]._asdict()} if costs else {}
        elif isinstance(event, EpochDone):
            self.known |= {"epoch": event.epoch.epoch, "trains": event.epoch.increment}
        elif isinstance(event, Trained):
            self.known |= {"increment": event.cost.increment, "last": event.cost._asdict(), "learnt_at": time.time()}
            self.known |= {"tested": {one.metric: one.value for one in event.tested if one.value == one.value}}
        if not isinstance(event, Paused):
            self.write("trains")

    def waits(self) -> None:
        """Nothing is due."""
        if time.monotonic() - self.written >= BETWEEN:
            self.write("waits")

    def ends(self) -> None:
        """The learner was told to end."""
        self.write("ended")

    def lag(self) -> dict[str, float]:
        """Events that are not learnt, of those that were read, and the seconds between the last learnt one and the
        last."""
        tail, ends, increment = self.cutter.tail, self.cutter.made.ends, self.known["increment"]
        _, learnt, since = ends[increment] if 0 <= increment < len(ends) else (0, 0, tail.begin)
        if learnt == tail.number:
            return {"events": 0, "seconds": 0.0}
        return {"events": tail.number - learnt, "seconds": max(tail.latest - since, 0.0)}

    def write(self, doing: str) -> None:
        """Replaces the file.

        Its keys: learner, pid, since, doing (waits, trains, ended), time; increment (the last learnt one), last (its
        cost), tested (its metrics), learnt_at; cuts (number, reason and time of the last one), cuts_of_drift; lag:
        events that are not learnt, and seconds between the last of them and the last learnt; drift: value and limit of
        the detector.
        """
        cuts, watch = self.cutter.tail.cuts, self.cutter.watch
        about = {**self.known, "doing": doing, "time": time.time(), "lag": self.lag()}
        if cuts:
            about["cut"] = {"number": cuts[-1].number, "reason": cuts[-1].reason, "time": cuts[-1].time}
            about["cuts_of_drift"] = sum(cut.reason == "drift" for cut in cuts)
        if watch is not None and watch.detector is not None:
            about["drift"] = {"value": watch.detector.value, "limit": watch.detector.limit}
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text(json.dumps(about) + "\n", encoding="utf-8")
        new.replace(self.path)
        self.written = time.monotonic()
