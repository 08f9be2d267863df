"""What the server loads, and what it is not given to load."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from incremental.data.features import current
from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.serve.live import configuring, model, server
from incremental.serve.live.making import Making
from incremental.serve.live.model import Loader, Recipe
from incremental.serve.live.people import People
from incremental.serve.live.service import Settings
from tests.serve.live import small

DATA = {"history": 20, "source": {"kinds": None}, "cleaning": {"behaviours": None}}
OTHERS: dict[str, dict[str, Any]] = {
    "a learner with another history than the server": {"history": 30},
    "a learner with other kinds of ids than the server": {"source": {"kinds": {"shop": "s"}}},
    "a learner with another cleaning than the server": {"cleaning": {"behaviours": ["buy"]}},
}


@pytest.mark.parametrize("situation", OTHERS)
def test_a_learner_with_other_ids_or_histories_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Callable[[str, object], None], situation: str
) -> None:
    config: dict[str, Any] = {"data": {**DATA, **OTHERS[situation]}}
    monkeypatch.setattr(model, "config_of", lambda _folder: config)
    with contextlib.closing(small.log(tmp_path)) as log:
        with pytest.raises(UserError, match="the learner has data") as error:
            Loader(tmp_path, log, 8, DATA).recipe(tmp_path / "replay")
        documented(situation, error.value)
        with pytest.raises(UserError, match="no increment has ended"):  # the next thing that is looked at
            Loader(tmp_path, log, 8, config["data"]).recipe(tmp_path / "replay")


def test_what_the_server_has_not_got_for_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documented: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr("incremental.serve.live.people.SOON", 1)
    small.publish(tmp_path, 0)
    with contextlib.closing(small.log(tmp_path)) as log:
        people, loader = People(log, 4), Loader(tmp_path / "learners", log, 8, DATA)
        features = {name: current(kind="shop") for name in small.program().inputs}
        shop: Any = SimpleNamespace(features=features, task=SimpleNamespace(labels="item"))
        asks: Any = SimpleNamespace(task=SimpleNamespace(labels="behaviour"))
        for situation, changed, stream in (
            ("a version that is ahead of what the server has read", {}, small.stream()),
            ("a learner whose model reads a graph", {"window": 1}, small.stream()),
            ("a learner whose model reads the event itself", {}, shop),
        ):
            program = small.program()._replace(**changed)  # type: ignore[arg-type]
            loader.made = "champion", Recipe(lambda _sizes, own=program: own, stream, None), {}  # type: ignore[misc]
            with pytest.raises(UserError) as error:
                loader.load("champion", 0, people)
            documented(situation, error.value)
        loader.made = "champion", Recipe(lambda _sizes: small.program(), asks, None), {}
        with pytest.raises(UserError, match="predicts ids of the kind 'behaviour' and recommends no items"):
            loader.load("champion", 0, people)
        people.follow()
        assert people.read_until(7, sealed=False)
        assert not people.read_until(7, sealed=True)  # the cut itself is not there


def test_types_are_wanted_as_the_log_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the log "1.0" is "1": a server that waits for "1.0" would know of no event that its learners read."""
    made: list[Settings] = []

    def serve(settings: Settings, log: Log, _loader: Loader) -> None:
        made.append(settings)
        log.close()

    monkeypatch.setattr(server, "serve", serve)
    config, _ = configuring.composed_of(
        ["experiment=live", f"live.folder={tmp_path}", "data.cleaning.behaviours=['1.0',' buy ']", "live.types=['1.0']"]
    )
    server.run(config)
    assert made[0].only == Making(config["data"], "log").only == {"1", "buy"}
    assert made[0].types == ("1",)


def test_the_headers_of_a_request_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's h11 takes at most 64 KiB of them, and httptools as many as come."""
    made: list[Any] = []

    def fake(config: Any) -> Any:
        made.append(config)
        return SimpleNamespace(run=lambda sockets: [each.close() for each in sockets])

    monkeypatch.setattr("uvicorn.Server", fake)
    monkeypatch.setattr(server, "Service", lambda *_: None)
    nothing: Any = None
    server.serve(Settings(tmp_path, "champion", port=0), nothing, nothing)
    assert made[0].http == "h11"
