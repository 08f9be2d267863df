"""A run's directory: named by the run and a hash of its config, locked while it runs, never overwritten."""

import copy
import csv
import fcntl
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import yaml

from incremental.app.contents import of_run, without_data, without_places
from incremental.core.sharding import first_process
from incremental.errors import UserError
from incremental.metrics.continual import summarise
from incremental.run.progress import Epoch, Progress, Record, Result, total_cost

# What may differ between two starts of the same run.
NOT_IDENTITY = ("runs", "label", "study", "devices", "tracking", "debug", "profile", "dry_run", "continue")
LONGEST = 160  # bytes of a folder's name before seed and identity: disks take 255
COLUMNS = ("trained_until", "evaluated_on", "metric", "value", "count")


def identity(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the hash of what decides the results."""
    return short(in_order(deciding(config)))


def short(values: Any) -> str:
    """Eight hexadecimal digits of the hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def in_order(kept: dict[str, Any]) -> dict[str, Any]:
    """The strategies as a list: their order decides, that of other keys does not."""
    return {**kept, "strategies": [*(kept.get("strategies") or {}).items()]}


MADE_OF = ("_target_", "source", "cleaning", "cut", "text", "until")
"""the keys of the data that say which events there are; the others say how a run reads them"""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the results beside the events that a run keeps and its base part, which is trained: plain values.

    A run's checkpoint belongs to these, wherever its data lies now.
    """
    data = {key: value for key, value in config["data"].items() if key not in MADE_OF}
    kept = in_order(deciding({**config, "base": None, "data": data}))
    return dict(json.loads(json.dumps(kept)))


def question(config: Mapping[str, Any], *, cut: bool = True) -> str:
    """The hash of all that decides the results but what lies at the data's paths; without `cut` also but the cut.

    Runs of one question may be of one log, which has grown since.
    """
    base, data = config.get("base"), without_data(config["data"])
    data = {key: value for key, value in data.items() if cut or key != "cut"}
    return short([settings(config), base and (of_run(Path(str(base))) or base), data])


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without local paths and the keys of `NOT_IDENTITY`; of the devices only how tables are made."""
    kept = {key: value for key, value in without_places(config).items() if key not in NOT_IDENTITY}
    return {**kept, "tables": config["devices"].get("tables", "grow")}


class Literal(yaml.SafeDumper):
    """Writes what every reader of YAML reads back as it was: texts such as `1e5` and `nan`, and no second names."""

    def ignore_aliases(self, _: Any) -> bool:
        return True

    def represent_str(self, text: str) -> yaml.Node:
        """In quotes what some readers take for a number, or for the end of a line."""
        style = '"' if not text.isprintable() else "'" if re.match(r"[-+.]?(\d|nan|inf)", text.lower()) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


Literal.add_representer(str, Literal.represent_str)


class RunDirectory:
    """The files of one run. `summary.json` exists once the run is finished."""

    def __init__(self, root: Path, name: str, config: Mapping[str, Any]) -> None:
        self.root, self.identity = root, identity(config)
        end = f"seed{config['seed']}-{self.identity}"
        before = [*root.glob(f"*-{end}")]  # a run begun alone has no label, and is the same run
        label = re.sub(r"[^\w.=,+-]+", "-", "-".join([name, *filter(None, [config.get("label")])]))
        short = label.encode()[:LONGEST].decode(errors="ignore")  # the identity tells long ones apart
        self.path = before[0] if before else root / f"{short}-{end}"
        self.config = dict(config)
        self.lock: TextIO | None = None
        self.new = False

    def at(self, path: Path) -> "RunDirectory":
        """The same run in a directory that it has begun in, when its data was shorter or lay elsewhere."""
        there = copy.copy(self)
        there.path, there.identity = path, path.name.rpartition("-")[2]
        return there

    def open(self) -> None:
        """Makes the directory, locks it, and writes the resolved config; of several processes only the first does."""
        if not first_process():
            return
        try:
            self.new = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = (self.path / ".lock").open("w", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write the run's directory ({error.strerror}); choose another folder with runs=..."
            ) from None
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # the second one of a network's file system
            self.lock.close()
            raise UserError(
                f"{self.path}: this run is being executed by another process; wait for it, or stop it first"
            ) from None
        except OSError as error:
            self.lock.close()
            raise UserError(
                f"{self.path}/.lock: the file system has no locks ({error.strerror}), which keep two processes from "
                "writing one run; choose a folder on another one with runs=..."
            ) from None
        text = yaml.dump(self.config, Dumper=Literal, sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "config.yaml", text)
        (self.path / "error.txt").unlink(missing_ok=True)

    def run_id(self) -> str:
        """The run's name for a tracker, the same after a resume. The identity alone would be that of a run made before
        in another `runs`, or in this one and deleted since; a tracker would take them for one run."""
        path = self.path / "run_id.txt"
        if not path.exists():
            write_atomically(path, f"{self.identity}-{secrets.token_hex(4)}\n")
        return path.read_text(encoding="utf-8").strip() if path.exists() else self.identity

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None."""
        path = self.path / "summary.json"
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            raise UserError(
                f"{path}: not a readable summary; take it from a copy, or run again in another folder with runs=..."
            ) from None

    def progress(self, progress: Progress) -> None:
        """Rewrites evaluations.csv and epochs.csv."""
        self.evaluations(progress.records)
        self.epochs(progress.epochs)

    def failed(self, error: UserError) -> None:
        """Writes error.txt, which is gone again once the run is started again."""
        write_atomically(self.path / "error.txt", f"{error}\n")

    def evaluations(self, records: Iterable[Record]) -> None:
        """Rewrites evaluations.csv."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (*record[:3], "" if math.isnan(record.value) else record.value, record.events) for record in records
        )
        write_atomically(self.path / "evaluations.csv", text.getvalue())

    def epochs(self, epochs: Sequence[Epoch]) -> None:
        """Rewrites epochs.csv; a cell is empty where an epoch has no such value."""
        terms = dict.fromkeys(name for epoch in epochs for name in epoch.terms)
        reports = dict.fromkeys(name for epoch in epochs for name in epoch.reports)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        named = *(f"term/{name}" for name in terms), *(f"report/{name}" for name in reports)
        writer.writerow(("increment", "epoch", "loss", "validation", *named))
        writer.writerows(
            (*epoch[:4], *(epoch.terms.get(name) for name in terms), *(epoch.reports.get(name) for name in reports))
            for epoch in epochs
        )
        write_atomically(self.path / "epochs.csv", text.getvalue())

    def finish(self, name: str, row: str, result: Result) -> dict[str, Any]:
        """Writes summary.json and returns its content; its lanes are the most that shared the seconds of an update."""
        content = {
            "name": name,
            "row": row,
            "seed": self.config["seed"],
            "increments": len(result.costs) - 1,
            "lanes": max(cost.lanes for cost in result.costs),
            "early": list(result.early),
            "status": "finished",
            "config": self.identity,
            "metrics": summarise(result.records),
            "cost": total_cost(result),
        }
        write_atomically(self.path / "summary.json", json.dumps(content, indent=2) + "\n")
        return content

    def close(self) -> None:
        """Releases the lock; a directory that was made for this run, and got nothing worth keeping, is gone again."""
        if self.lock is None:
            return
        saves = self.path / "checkpoint"
        saved = saves.is_dir() and any(saves.iterdir())
        if self.new and not saved and {each.name for each in self.path.iterdir()} <= BEGUN:
            shutil.rmtree(self.path)
        self.lock.close()


BEGUN = {".lock", "config.yaml", "run_id.txt", "data", "checkpoint"}
"""what lies in a directory before the first save"""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that appears whole or not at all; of several processes only the first does."""
    if not first_process():
        return
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
