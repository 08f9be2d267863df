"""What the server counts: for Prometheus, and the last ten minutes for the page."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = 600  # that the page shows
KEPT = 2000  # latencies of a second, at most
LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.5)


class Second:
    """What one second had."""

    def __init__(self, at: int) -> None:
        self.at, self.events, self.requests = at, 0, 0
        self.latencies: list[float] = []


class Lag(NamedTuple):
    """How far the version that serves is behind the log.

    Attributes:
        events: of the log that it has not learnt
        seconds: between the last event and the last that it has learnt, by their own times
        increments: that ended after the one that it has learnt
    """

    events: int
    seconds: float
    increments: int


class Metrics:
    """Counts; `gauges` are read when somebody asks: name -> (what it is, its value)."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]] = {}) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("incremental_requests", "Requests", ["route", "status"], **own)
        self.latency = Histogram(
            "incremental_request_seconds", "From a request to its answer", ["route"], buckets=LATENCIES, **own
        )
        self.verdicts = Counter("incremental_events", "Events by what became of them", ["verdict"], **own)
        self.commits = Histogram(
            "incremental_commit_seconds", "A commit of the log", buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1), **own
        )
        self.batches = Histogram("incremental_batch_requests", "Requests answered together", buckets=(1, 8, 64), **own)
        self.swaps = Counter("incremental_swaps", "Versions put in place", **own)
        self.swap_seconds = Gauge("incremental_swap_seconds", "To load and warm the last version", **own)
        for name, (what, value) in gauges.items():
            Gauge(f"incremental_{name}", what, **own).set_function(value)
        self.seconds: deque[Second] = deque(maxlen=SECONDS)

    def second(self) -> Second:
        """The one that it is."""
        at = int(time.time())
        if not self.seconds or self.seconds[-1].at != at:
            self.seconds.append(Second(at))
        return self.seconds[-1]

    def request(self, route: str, status: int, seconds: float) -> None:
        """One that was answered."""
        self.requests.labels(route, str(status)).inc()
        self.latency.labels(route).observe(seconds)
        now = self.second()
        now.requests += 1
        if route == "recommend" and len(now.latencies) < KEPT:
            now.latencies.append(seconds)

    def events(self, verdicts: Mapping[str, int]) -> None:
        """What became of a request's events: verdict -> how many."""
        for verdict, number in verdicts.items():
            self.verdicts.labels(verdict).inc(number)
        self.second().events += verdicts.get("new", 0)

    def recent(self, step: int) -> list[dict[str, float | None]]:
        """The last ten minutes in steps of so many seconds, the oldest first: rates a second, latencies in ms."""
        now, found = int(time.time()), []
        seconds = {each.at: each for each in [*self.seconds]}
        for first in range(now - now % step - SECONDS + step, now + 1, step):
            own = [seconds[at] for at in range(first, first + step) if at in seconds]
            latencies = [each for one in own for each in one.latencies]
            p50, p99 = (np.percentile(latencies, [50, 99]) * 1000).tolist() if latencies else (None, None)
            passed = min(step, now - first + 1)
            events, requests = (sum(getattr(one, name) for one in own) / passed for name in ("events", "requests"))
            found.append({"time": first, "events": events, "requests": requests, "p50": p50, "p99": p99})
        return found

    def text(self) -> bytes:
        """The format of Prometheus."""
        return generate_latest(self.registry)
