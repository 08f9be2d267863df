"""What the server takes: how much at once, and how often."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds on what clients send.

    Attributes:
        body: bytes of a request; one of brackets and commas takes thirty times as much memory while it is read
        batch: events of a request
        queue: events that wait for their commit; more are answered with 429
        rate: requests a second of one token, or of one address where no token is needed
        burst: requests at once, before `rate` counts
        new_items: items a second that no event had before; a minute's worth, or one full batch, may come at once
        most: items that a client may ask for
        ahead: seconds that an event may lie in the future, as clocks differ
        requests: recommendations that wait for the model; more are answered with 429
    """

    body: int = 1 << 20
    batch: int = 1000
    queue: int = 20_000
    rate: float = 1000.0
    burst: float = 2000.0
    new_items: float = 500.0
    most: int = 100
    ahead: float = 60.0
    requests: int = 1024


class Rate:
    """A token bucket for each name: `rate` a second, `burst` at once. Safe in any thread.

    Buckets that are full again are forgotten, so that names do not add up.
    """

    MOST = 10_000

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self.left: dict[Hashable, tuple[float, float]] = {}  # name -> (what was left, when)
        self.lock = threading.Lock()

    def take(self, name: Hashable, number: float = 1.0) -> float:
        """Takes so many; 0.0: they were there. Else the seconds until they are, and nothing is taken."""
        with self.lock:
            now = self.clock()
            left, since = self.left.get(name, (self.burst, now))
            left = min(self.burst, left + (now - since) * self.rate)
            if left < number:
                return max((min(number, self.burst) - left) / self.rate, 0.001)
            self.left[name] = left - number, now
            if len(self.left) > self.MOST:
                full = [each for each, (was, at) in self.left.items() if was + (now - at) * self.rate >= self.burst]
                for each in full:
                    del self.left[each]
            return 0.0
