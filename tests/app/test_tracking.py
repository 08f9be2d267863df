"""An offline run read back, and a tracker that fails at every point without taking the run with it."""

import json
import os
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import omegaconf
import pytest

from incremental.app import config, tracking
from incremental.errors import UserError

CONFIG = {"strategies": {"anchor": {"weight": 10.0}}, "seed": 1, "k": [10, 20]}
SUMMARY = {"metrics": {"ndcg@10": {"prequential": 0.25, "forgetting": None}}, "cost": {"examples": 640}}
RUN = f"""
import os, sys, warnings
warnings.simplefilter("error")
from pathlib import Path
from incremental.app import tracking
assert "wandb" not in sys.modules
start = tracking.tracker(group="sweep")
start("never finished", Path(sys.argv[1]), {{}}, "run6")
tracker = start("replay", Path(sys.argv[1]), {CONFIG!r} | {{"note": "x" * 100_000}}, "run7")
for step in range(3):
    tracker.log(2 * step, "epoch", {{"epoch": step + 1.0, "train/loss": 3.0 - step}})
    tracker.log(2 * step + 1, "increment", {{"increment": float(step), "ndcg@10": step / 4, "cost/seconds": 2.0}})
if "kill" in sys.argv:
    import wandb
    wandb.setup().ensure_service()._proc._process.kill()
    wandb.setup().ensure_service()._proc.join()
    for step in range(6, 100):
        tracker.log(step, "increment", {{"increment": float(step), "ndcg@10": 0.0}})
tracker.finish({SUMMARY!r})
print("done")
"""
BLOCK, HEADER = 32 * 1024, 7


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A real run, without the login, settings and cache of the machine's user."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    home = directory / "home"
    with tempfile.TemporaryDirectory() as short:  # wandb's socket is in it; the killed process leaves it there
        own = {"HOME": str(home), "NETRC": str(home / "netrc"), "TMPDIR": short}
        return subprocess.run(
            [sys.executable, "-c", RUN, str(directory), *arguments],
            env={**kept, **own, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            cwd=directory,
            timeout=120,
        )


def fragments(log: bytes) -> Iterator[tuple[int, bytes]]:
    """LevelDB's log: blocks of records (crc uint32, length uint16, type uint8, data), padded with zeros."""
    at = HEADER  # the file's own header has the same length as a record's
    while at + HEADER <= len(log):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        yield kind, log[at + HEADER : at + HEADER + length]
        at += HEADER + length


def records(path: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    full, first, _middle, last = 1, 2, 3, 4
    whole = b""
    for kind, data in fragments(path.read_bytes()):
        whole = data if kind in (full, first) else whole + data
        if kind in (full, last):
            yield wandb_internal_pb2.Record.FromString(whole)


class Offline(NamedTuple):
    run: Any
    config: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]
    summary: dict[str, Any]
    axes: dict[str, str]


def read(path: Path) -> Offline:
    """What an offline run recorded."""
    started: Any = None
    resolved: dict[str, Any] = {}
    curves: dict[str, list[tuple[int, float]]] = {}
    summary: dict[str, Any] = {}
    axes: dict[str, str] = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            started = record.run
            resolved |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            for item in record.history.item:
                key = item.key or "/".join(item.nested_key)
                curves.setdefault(key, []).append((record.history.step.num, json.loads(item.value_json)))
        elif kind == "metric":
            axes[record.metric.name] = record.metric.step_metric
        elif kind == "summary":
            summary |= {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
            }
    return Offline(started, resolved, curves, summary, {name: axis for name, axis in axes.items() if axis})


def test_an_offline_run_keeps_curves_config_and_summary(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.stdout == "done\n"
    assert done.stderr == ""
    (path,) = tmp_path.glob("wandb/offline-run-*/run-run7.wandb")
    offline = read(path)
    assert (offline.run.run_id, offline.run.display_name) == ("run7", "replay")
    assert (offline.run.project, offline.run.run_group) == ("incremental", "sweep")
    assert {key: offline.config[key] for key in CONFIG} == CONFIG
    assert offline.config["note"] == "x" * 100_000  # in fragments over several blocks
    assert offline.curves["ndcg@10"] == [(1, 0.0), (3, 0.25), (5, 0.5)]
    assert offline.curves["increment"] == [(1, 0.0), (3, 1.0), (5, 2.0)]
    assert offline.curves["cost/seconds"] == [(1, 2.0), (3, 2.0), (5, 2.0)]
    assert offline.curves["train/loss"] == [(0, 3.0), (2, 2.0), (4, 1.0)]
    assert offline.curves["epoch"] == [(0, 1.0), (2, 2.0), (4, 3.0)]
    assert offline.axes == {"ndcg@10": "increment", "cost/seconds": "increment", "train/loss": "epoch"}
    assert {key: offline.summary[key] for key in SUMMARY} == SUMMARY


def test_a_run_outlives_the_tracker_s_own_process(tmp_path: Path) -> None:
    done = run(tmp_path, "kill")
    assert done.stdout == "done\n"
    assert done.stderr.startswith("W&B failed while logging (")
    assert done.stderr.count("\n") == 1


class Broken:
    """A wandb that works until one named call."""

    def __init__(self, broken: str, error: Exception) -> None:
        self.broken, self.error = broken, error
        self.calls: list[str] = []
        self.settings: dict[str, Any] = {}

    def call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.broken:
            raise self.error

    def module(self) -> types.ModuleType:
        summary = types.SimpleNamespace(update=lambda _values: self.call("summary"))
        made = types.SimpleNamespace(
            log=lambda _values, step: self.call(f"log{step}"),
            define_metric=lambda _name, step_metric: None,  # noqa: ARG005
            finish=lambda: self.call("finish"),
            summary=summary,
        )

        def init(**settings: Any) -> object:
            self.settings = settings
            self.call("init")
            return made

        def setup(settings: object) -> object:  # noqa: ARG001
            self.call("setup")
            return types.SimpleNamespace(settings=types.SimpleNamespace(base_url="https://api.wandb.ai"))

        module = types.ModuleType("wandb")
        vars(module).update(init=init, setup=setup, Settings=dict, teardown=lambda: None)
        return module


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Broken]:
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def install(broken: str = "", error: Exception | None = None) -> Broken:
        fake = Broken(broken, error or RuntimeError("no network\nand more"))
        monkeypatch.setitem(sys.modules, "wandb", fake.module())
        return fake

    return install


def use(start: tracking.Start, directory: Path) -> None:
    tracker = start("name", directory, CONFIG, "id")
    for step in range(3):
        tracker.log(step, "epoch", {"epoch": step + 1.0, "loss": 1.0})
    tracker.finish(SUMMARY)


def test_a_long_name_is_shortened_in_the_middle(wandb: Callable[..., Broken], tmp_path: Path) -> None:
    fake = wandb()
    tracking.tracker(mode="offline")("sasrec-" + "x" * 160 + "-seed0-0123abcd", tmp_path, CONFIG, "id")
    assert len(fake.settings["name"]) == 128
    assert fake.settings["name"].startswith("sasrec-x")
    assert fake.settings["name"].endswith("x-seed0-0123abcd")


def test_the_id_has_nothing_that_wandb_refuses(wandb: Callable[..., Broken], tmp_path: Path) -> None:
    fake = wandb()
    tracking.tracker()("lr:0.1", tmp_path, CONFIG, "ewc-weight=1,rate=0.1-50%-why?-seed0-12345678")
    assert fake.settings["id"] == "ewc-weight=1-rate=0.1-50--why--seed0-12345678"
    assert fake.settings["name"] == "lr:0.1"


CALLS = ["setup", "init", "log0", "log1", "log2", "summary", "finish"]


@pytest.mark.parametrize("broken", CALLS)
def test_a_failure_is_said_once_and_ends_the_tracking(
    broken: str, wandb: Callable[..., Broken], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = wandb(broken)
    use(tracking.tracker(), tmp_path)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("W&B failed while ")
    assert said.err.endswith("(no network); the run goes on without it, its results are on disk\n")
    assert fake.calls == CALLS[: CALLS.index(broken) + 1]


def test_a_full_disk_is_said_though_wandb_does_not(
    wandb: Callable[..., Broken],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = wandb()
    monkeypatch.setattr(tracking.shutil, "disk_usage", lambda _path: types.SimpleNamespace(free=0))
    use(tracking.tracker(), tmp_path)
    assert "No space left on device" in capsys.readouterr().err
    assert fake.calls == []


def test_a_package_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    use(tracking.tracker(), tmp_path)
    assert capsys.readouterr().err.count("W&B failed") == 1


@pytest.mark.parametrize(
    ("variables", "machine", "expected"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": "k"}, None, "online"),
        ({"WANDB_IDENTITY_TOKEN_FILE": "f"}, None, "online"),
        ({}, "api.wandb.ai", "online"),
        ({}, "api.forge.coreweave.com", "online"),
        ({}, "example.org", "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, None, None),
    ],
)
def test_auto_is_online_where_there_is_a_login(
    variables: dict[str, str],
    machine: str | None,
    expected: str | None,
    wandb: Callable[..., Broken],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = wandb()
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    if machine:
        (tmp_path / "netrc").write_text(f"machine {machine}\n  login user\n  password secret\n")
    use(tracking.tracker(), tmp_path)
    assert fake.settings["mode"] == expected
    assert (fake.settings["id"], fake.settings["resume"]) == ("id", "allow")
    assert fake.settings["dir"] == tmp_path


def test_online_without_a_login_is_refused_before_the_run(wandb: Callable[..., Broken], tmp_path: Path) -> None:
    wandb()
    with pytest.raises(UserError, match=r"tracking\.mode: online needs a login for api\.wandb\.ai"):
        use(tracking.tracker(mode="online"), tmp_path)


def test_disabled_imports_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    use(tracking.tracker(mode="disabled"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "disabled"])
def test_the_configs_fit(name: str) -> None:
    path = Path(__file__).parents[2] / f"configs/tracking/{name}.yaml"
    node = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.load(path))
    assert callable(config.build(node, "tracking"))
