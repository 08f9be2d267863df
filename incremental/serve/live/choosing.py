"""Which version serves: the champion's newest, or what the log's last choice says. It is warm before it serves."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from incremental.errors import UserError
from incremental.log.records import Choice
from incremental.serve.live import choices, versions
from incremental.serve.live.model import Loader, Model
from incremental.serve.live.people import People
from incremental.serve.live.refused import Refused

LOOK = 0.1  # seconds between two looks for a new version
AGAIN = 5.0  # seconds until a version that could not be loaded is tried again
said = logging.getLogger("incremental.serve")


class Chooser:
    """Watches the folder of the learners and the log's choices, in a thread of its own.

    `current` is the one reference to what serves. It is replaced at once; a request that has read it goes on with the
    version that it has read.
    """

    def __init__(
        self,
        learners: Path,
        champion: str,
        people: People,
        loader: Loader,
        observe: Callable[[Model, float], None] = lambda _model, _seconds: None,
    ) -> None:
        self.learners, self.champion, self.people, self.loader, self.observe = (
            learners,
            champion,
            people,
            loader,
            observe,
        )
        self.current: Model | None = None
        self.since = 0.0  # seconds since 1970: when the current version was put in place
        self.problem = ""  # why the wanted version does not serve
        self.ending, self.nudge = False, threading.Event()
        self.thread = threading.Thread(target=self._run, name="chooser", daemon=True)

    def start(self) -> None:
        """Loads what is there, and begins to watch."""
        self.look()
        self.thread.start()

    def close(self) -> None:
        """Ends."""
        self.ending = True
        self.nudge.set()
        if self.thread.is_alive():
            self.thread.join()

    def wanted(self) -> tuple[str, int] | None:
        """Learner and number of the version that is to serve; None: there is none yet."""
        choice = self.people.choice
        learner = self.champion if choice is None else choice.learner
        number = choice.version if choice is not None else None
        if number is None:
            number = versions.newest(self.learners / learner)
        return None if number is None else (learner, number)

    def look(self) -> bool:
        """Puts the wanted version in place; whether it serves."""
        try:
            wanted, now = self.wanted(), self.current
            if wanted is not None and (now is None or (now.learner, now.number) != wanted):
                start = time.perf_counter()
                model = self.loader.load(*wanted)
                model.warm(self.people)
                self.current, self.since = model, time.time()
                self.observe(model, time.perf_counter() - start)
                said.info("version %d of %s serves", model.number, model.learner)
            self.problem = ""
        except Exception as error:  # whatever it is, the version that serves goes on
            problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            if problem != self.problem:
                said.error("the version that serves stays: %s", problem)
            self.problem = problem
            return False
        return True

    def _run(self) -> None:
        while not self.ending:
            self.nudge.wait(LOOK if self.look() else AGAIN)
            self.nudge.clear()

    # -- choices ---------------------------------------------------------------------------------------------------

    def promotion(self, learner: str, version: int | None, reason: str) -> Choice:
        """The record by which a learner's model serves from now on. Raises Refused for one that is not there."""
        known = sorted(each.name for each in self.learners.iterdir() if each.is_dir()) if self.learners.is_dir() else []
        if learner not in known:
            there = ", ".join(known) or "none yet"
            raise Refused(404, f"there is no learner {learner!r}", f"one of: {there}", "correct the name")
        numbers = versions.numbers(self.learners / learner)
        if not numbers or (version is not None and version not in numbers):
            there = ", ".join(map(str, numbers)) or "none yet"
            what = "a version" if version is None else f"version {version}"
            raise Refused(404, f"{learner} has not got {what}", f"one of: {there}", "choose another one")
        return choices.promotion(self.learners.parent, learner, version, reason)

    def rollback(self, version: int | None, reason: str) -> Choice:
        """The record by which an earlier version of the learner that serves does so again: by default the last one
        before. Raises Refused where there is none."""
        model = self.current
        if model is None:
            raise Refused(409, "no version serves", "one to go back from", "wait for the first version")
        earlier = [each for each in versions.numbers(self.learners / model.learner) if each < model.number]
        number = (earlier[-1] if earlier else None) if version is None else version
        if number is None or number not in earlier:
            there = ", ".join(map(str, earlier)) or "none"
            what = "an earlier version" if number is None else f"version {number} before {model.number}"
            raise Refused(409, f"{model.learner} has not got {what}", f"one of: {there}", "choose another one")
        return self.promotion(model.learner, number, reason)
