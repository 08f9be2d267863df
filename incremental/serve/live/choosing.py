"""Which version serves: the champion's newest, or what the log's last choice says. It is warm before it serves."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from incremental.errors import UserError
from incremental.serve.live import choices
from incremental.serve.live.model import Loader, Model
from incremental.serve.live.people import People

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
        self.learners, self.champion, self.people = learners, champion, people
        self.loader, self.observe = loader, observe
        self.current: Model | None = None
        self.since = 0.0  # by the monotonic clock: when the current version was put in place
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

    def serving(self) -> tuple[str, int | None]:
        """The learner that is to serve and its version, whether or not it is warm; None: there is none yet."""
        return choices.serving(self.learners, self.champion, self.people.choice)

    def look(self) -> bool:
        """Puts the wanted version in place; whether it serves."""
        try:
            (learner, number), now = self.serving(), self.current
            there = now is not None and (now.learner, now.number) == (learner, number) and not now.places.full
            if number is not None and not there:
                start = time.perf_counter()
                model = self.loader.load(learner, number, self.people)
                model.warm(self.people)
                self.current, self.since = model, time.monotonic()
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
