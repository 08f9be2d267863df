"""Curves, config and summary to Weights & Biases, which may fail without taking the run with it."""

import atexit
import contextlib
import errno
import logging
import netrc
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from incremental.errors import UserError
from incremental.run.progress import Cost, Epoch, EpochDone, Event, Progress, Record, Resumed, Trained
from incremental.shell import once

_START_SECONDS = 30.0  # wandb's own limits are 90 s to start, and none to finish
_FINISH_SECONDS = 120.0
_ROOM = 2**20  # bytes
_NAME = 128  # characters: W&B refuses a run with a longer name
_PUBLIC = {"api.wandb.ai", "api.forge.coreweave.com"}  # two names of one server: a login for either will do


class Tracker(NamedTuple):
    """Where a run's numbers go beside its directory. Neither function raises."""

    log: Callable[[int, str, Mapping[str, float]], None]
    """(step, axis, values): one point of each named curve, at `values[axis]`. `step` counts the points of a run; one
    that a resumed run logs again is known by it"""
    finish: Callable[[Mapping[str, Any]], None]
    """(summary): the run's final values, nested as they are; nothing is logged afterwards"""


Start = Callable[[str, Path, Mapping[str, Any], str], Tracker]


def tracker(
    *,
    mode: Literal["auto", "online", "offline", "disabled"] = "auto",
    project: str = "incremental",
    group: str | None = None,
    entity: str | None = None,
) -> Start:
    """A function (run name, run directory, resolved config, run id) -> Tracker.

    `auto` follows WANDB_MODE where it is set; otherwise it is online where there is a login and offline where
    there is none. The same run id continues a run's curves after a resume.
    """
    if mode == "disabled":
        return lambda _name, _directory, _config, _run_id: Tracker(lambda _step, _axis, _values: None, lambda _: None)

    def start(name: str, directory: Path, config: Mapping[str, Any], run_id: str) -> Tracker:
        attempt = _attempts(directory)
        host = attempt("starting", _quiet_host)
        if mode == "online" and host and not _logged_in(host):
            raise UserError(
                f"tracking.mode: online needs a login for {host}, and there is none; run `wandb login`, "
                "or choose auto, offline or disabled"
            )

        def init() -> Any:
            import wandb

            return wandb.init(
                project=project,
                group=group,
                entity=entity,
                name=name if len(name) <= _NAME else f"{name[: _NAME - 41]}…{name[-40:]}",
                id=re.sub(r"[\\/:;,#?%']", "-", run_id),  # W&B refuses these
                dir=directory,
                config=dict(config),
                mode=_automatic(host) if mode == "auto" else mode,
                resume="allow",
                reinit="create_new",  # the default hands back a last run that was never finished
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=_START_SECONDS,
                    finish_timeout=_FINISH_SECONDS,
                    finish_timeout_raises=True,
                ),
            )

        run = attempt("starting", init)

        curves: set[str] = set()

        def log(step: int, axis: str, values: Mapping[str, float]) -> None:
            def send() -> None:
                for name in values.keys() - curves - {axis}:
                    run.define_metric(name, step_metric=axis)
                curves.update(values)
                run.log(dict(values), step=step)

            attempt("logging", send)

        def finish(summary: Mapping[str, Any]) -> None:
            attempt("writing the summary", lambda: run.summary.update(dict(summary)))
            attempt("finishing", lambda: run.finish())

        return Tracker(log, finish)

    return start


def tracked(trackers: Sequence[Tracker]) -> Callable[[Event], None]:
    """A consumer that sends the numbers of epochs and increments to each lane's tracker.

    The curves of epochs (`train/...`, `report/...`) stand over "epoch", counted over the whole stream, those of
    increments over "increment". Points are counted in the order of the run: a resumed one gives the same numbers again.
    """
    curves = [Curves(tracker) for tracker in trackers]

    def consume(event: Event) -> None:
        if isinstance(event, EpochDone):
            curves[event.lane].epoch(event.epoch)
        elif isinstance(event, Trained):
            curves[event.lane].increment(event.cost, event.tested)
        elif isinstance(event, Resumed):
            curves[event.lane].again(event.progress)

    return consume


class Curves:
    """One run's curves."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.points = self.epochs = 0

    def again(self, progress: Progress) -> None:
        """A resumed offline run is a file of its own: tells the tracker again what was before."""
        epochs = list(progress.epochs)
        for cost in progress.costs:
            while epochs and epochs[0].increment == cost.increment:
                self.epoch(epochs.pop(0))
            t = cost.increment
            self.increment(cost, [r for r in progress.records if r.evaluated_on == t and r.trained_until == t - 1])
        for epoch in epochs:  # of the update that it continues
            self.epoch(epoch)

    def epoch(self, epoch: Epoch) -> None:
        """One point of every curve over epochs."""
        self.epochs += 1
        told = {"loss": epoch.loss, "validation": epoch.validation}
        values = {f"train/{name}": value for name, value in told.items() if value is not None}
        values |= {f"train/term/{name}": value for name, value in epoch.terms.items()}
        values |= {f"report/{name}": value for name, value in epoch.reports.items()}
        self.log("epoch", self.epochs, values)

    def increment(self, cost: Cost, tested: Sequence[Record]) -> None:
        """One point of every curve over increments."""
        costs = {
            f"cost/{name}": float(value) for name, value in cost._asdict().items() if name not in ("increment", "lanes")
        }
        self.log("increment", cost.increment, {**{record.metric: record.value for record in tested}, **costs})

    def log(self, axis: str, at: int, values: dict[str, float]) -> None:
        self.tracker.log(self.points, axis, {axis: float(at), **values})
        self.points += 1


def _attempts(directory: Path) -> Callable[[str, Callable[[], Any]], Any]:
    """A caller that reports the first failure and from then on does nothing."""
    failed = False

    def attempt(doing: str, call: Callable[[], Any]) -> Any:
        nonlocal failed
        if failed:
            return None
        try:
            # wandb's own process notes a full disk in its log and goes on losing records.
            if shutil.disk_usage(directory).free < _ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
            return call()
        except Exception as error:  # whatever it is, the run is worth more than its tracker
            failed = True
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            once(f"W&B failed while {doing} ({reason}); the run goes on without it, its results are on disk")
            atexit.register(_tear_down)
            return None

    return attempt


def _tear_down() -> None:
    """At exit and before wandb's own hook, which prints a traceback where its process is gone."""
    wandb = sys.modules.get("wandb")
    with contextlib.suppress(Exception, SystemExit):
        if wandb is not None:
            wandb.teardown()


def _quiet_host() -> str:
    """The server that wandb is set up for; from here on wandb is silent."""
    import wandb

    logging.getLogger("wandb").setLevel(logging.CRITICAL)  # debug.log: on a full disk, a traceback a line
    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    return urlsplit(settings.base_url).netloc


def _automatic(host: str) -> Literal["online", "offline"] | None:
    if os.environ.get("WANDB_MODE"):
        return None  # wandb reads it
    return "online" if _logged_in(host) else "offline"


def _logged_in(host: str) -> bool:
    """Where wandb looks for a login: its environment variables, then the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            logins = netrc.netrc(Path(path).expanduser())
            if any(logins.authenticators(name) for name in (_PUBLIC if host in _PUBLIC else {host})):
                return True
    return False
