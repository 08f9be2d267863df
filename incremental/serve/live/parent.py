"""When a process of a live loop ends: at a signal, and a part with its supervisor, also where that was killed and could
tell nobody."""

import os
import signal
import threading
import time
from collections.abc import Callable

SUPERVISOR = "INCREMENTAL_SUPERVISOR"
"""the environment's variable with the process that a part belongs to"""
LOOK = 0.5


def told() -> Callable[[], bool]:
    """Whether SIGTERM or SIGINT has come since.

    When one comes, no lock is taken, as an Event would: another signal may come meanwhile, and would wait for that lock
    for ever.
    """
    came: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda one, _frame: came.append(one))
    return lambda: bool(came)


def follow() -> None:
    """Sends this process SIGTERM once its supervisor is gone; one that was started alone has none."""
    mine = int(os.environ.get(SUPERVISOR, 0))

    def watch() -> None:
        while os.getppid() == mine:
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    if mine:
        threading.Thread(target=watch, name="parent", daemon=True).start()
