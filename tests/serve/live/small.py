"""A small live folder for the server's tests: five items, a co-occurrence model written by hand, few programs."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from starlette.testclient import TestClient

from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.core.types import State
from incremental.data.stream import Stream
from incremental.errors import UserError
from incremental.log.records import Event
from incremental.log.sqlite import SQLite
from incremental.models.cooccurrence import cooccurrence
from incremental.run.executor import Snapshot
from incremental.run.progress import Progress
from incremental.serve.live import versions
from incremental.serve.live.app import application
from incremental.serve.live.model import Functions, Loader, Model, Recipe
from incremental.serve.live.people import People
from incremental.serve.live.service import Service, Settings
from tests import lab

__all__ = ["Event", "UserError"]

SIZES = Sizes(item=16, user=16)
MOST = 8
EVENTS = [("ann", "a"), ("ann", "b"), ("bob", "b"), ("bob", "c"), ("cid", "d"), ("cid", "e"), ("cid", "b")]
"""seven events: a, b, c, d, e are the items 1 to 5; ann, bob, cid the users 1 to 3"""
FOLLOWS = {1: {2: 2.0, 3: 2.0}, 2: {3: 3.0, 4: 1.0}, 3: {4: 1.0}, 5: {1: 1.0}}
"""what the model has counted: item -> its followers"""


@functools.cache
def stream() -> Stream:
    return lab.written([EVENTS[:4], EVENTS[4:]], history=4, heldout=0.0)


@functools.cache
def program() -> Program:
    spec = stream().spec
    return cooccurrence(neighbours=4, window=2).program(spec, SIZES, (10,))


@functools.cache
def functions() -> Functions:
    return Functions(program(), MOST)


def state(number: int = 0) -> State:
    """The model that has learnt items 1 to 5; version n has one event of item 1 more than version n - 1."""
    made = jax.jit(program().init)(jax.random.key(0))
    ids, weights = np.zeros((16, 4), np.int32), np.zeros((16, 4), np.float32)
    for item, followers in FOLLOWS.items():
        ids[item, : len(followers)], weights[item, : len(followers)] = [*followers], [*followers.values()]
    seen = jnp.arange(16) % 16 < 6
    counts = np.array([0, 1 + number, 3, 1, 1, 1] + [0] * 10, np.float32)
    catalogue = made.learner.catalogue._replace(seen=seen.at[0].set(False), events=jnp.asarray(counts))
    params: Any = {"ids": jnp.asarray(ids), "weights": jnp.asarray(weights)}
    return made._replace(learner=made.learner._replace(params=params, catalogue=catalogue))


def publish(folder: Path, number: int, learner: str = "champion", cut: int = 7) -> None:
    """Version `number` of a learner."""
    snapshot = Snapshot(state(number), None, None, SIZES, Progress(increment=number + 1))
    versions.publish(folder / "learners" / learner, program(), snapshot, cut=cut, keep=100, never=())


def client(made: Service) -> TestClient:
    """A client of the service, which ends with it."""
    return TestClient(application(made), base_url="http://localhost")


def loader(folder: Path) -> Loader:
    """One that shares compiled functions with all tests."""
    return Ready(folder / "learners", None, MOST, {})  # type: ignore[arg-type]


class Ready(Loader):
    """A loader of folders without a configuration."""

    def load(self, learner: str, number: int, people: People) -> Model:
        self.made = learner, Recipe(lambda _sizes: program(), stream(), None), {SIZES: functions()}
        return super().load(learner, number, people)


def event(number: int, user: str = "ann", item: str = "a", **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "user": user, "item": item, **more}


def log(folder: Path, events: Iterable[tuple[str, str]] = EVENTS) -> SQLite:
    """The folder's log, with these events."""
    folder.mkdir(exist_ok=True)
    made = SQLite(folder / "log.sqlite", create=True)
    pairs = [Event(f"first{n}", user, item, time=float(n)) for n, (user, item) in enumerate(events)]
    if pairs:
        made.append(pairs)
    return made


def service(folder: Path, events: Iterable[tuple[str, str]] = EVENTS, **changed: Any) -> Service:
    limits = Settings(folder, "").limits._replace(most=MOST, **changed.pop("limits", {}))
    settings = Settings(folder, "champion", history=4, limits=limits, **changed)
    return Service(settings, log(folder, events), loader(folder))
