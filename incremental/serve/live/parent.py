"""A part of a live loop ends with its supervisor, also where that was killed and could tell nobody."""

import os
import signal
import threading
import time

SUPERVISOR = "INCREMENTAL_SUPERVISOR"
"""the environment's variable with the process that a part belongs to"""
LOOK = 0.5


def follow() -> None:
    """Sends this process SIGTERM once its supervisor is gone; one that was started alone has none."""
    mine = int(os.environ.get(SUPERVISOR, 0))

    def watch() -> None:
        while os.getppid() == mine:
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    if mine:
        threading.Thread(target=watch, name="parent", daemon=True).start()
