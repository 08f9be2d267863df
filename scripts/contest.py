"""Contests with other libraries: their environments and processes, the table of their speeds."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# How each peer's environment is made: one `pip install` after the other. LightFM's last release does not build in
# isolation with today's setuptools.
INSTALLED = {
    "torch": [["torch==2.13.0", "numpy"]],
    "avalanche": [["torch==2.13.0", "torchvision==0.28.0", "avalanche-lib==0.6.0"]],
    "transformers": [["torch==2.13.0", "transformers>=5.0", "numpy"]],
    "implicit": [["implicit==0.7.3"]],
    "lightfm": [
        ["pip<25", "setuptools<70", "wheel", "numpy", "scipy"],
        ["--no-use-pep517", "--no-build-isolation", "lightfm==1.17"],
    ],
}


class Missing(Exception):
    """A peer that cannot be installed or run, and why."""


def environment(folder: Path, name: str) -> Path:
    """The Python of the peer's environment, made where it is not there yet."""
    home = folder / name
    python, stamp = home / "bin" / "python", home / "installed"
    if not stamp.exists():
        print(f"installing {name} into {home}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        for packages in INSTALLED[name]:
            done = subprocess.run([python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True)
            if done.returncode:
                said = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
                raise Missing("; ".join(dict.fromkeys(said)) or f"pip install {' '.join(packages)} failed")
        stamp.touch()
    return python


class Peer:
    """One of `peers.py`'s contestants, in a process of its own."""

    def __init__(self, python: Path, name: str, data: Path, cores: int) -> None:
        script = Path(__file__).with_name("peers.py")
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, script, name, data, str(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(cores), "OPENBLAS_NUM_THREADS": "1"},
        )
        self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise Missing(([line for line in self.log.read().splitlines() if line.strip()] or ["it stopped"])[-1])
        answered: dict[str, Any] = json.loads(line)
        return answered

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(json.dumps({"do": method, **arguments}), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        self.process.communicate()


Turn = Callable[[int], tuple[float, int]]  # (round) -> seconds, examples


def compared(
    title: str,
    turns: dict[str, Turn],
    missing: dict[str, str],
    rounds: int,
    quality: dict[str, float],
    measured: str = "Recall@20, %",
) -> None:
    """Prints the table of a contest; the first contestant is ours. What has a quality only has no speed in it."""
    from rich.console import Console
    from rich.table import Table

    rates: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(rounds):
        for name, contestant in turns.items():
            seconds, examples = contestant(turn)
            rates[name].append(examples / seconds)
    table = Table("", "examples a second", "ours against it", measured if quality or missing else "", title=title)
    first, *_ = rates.values()
    for name, rate in rates.items():
        ratio = statistics.median(a / b for a, b in zip(first, rate, strict=True))
        recall = f"{100 * quality[name]:.2f}" if name in quality else ""
        table.add_row(name, f"{statistics.median(rate):,.0f}", "" if rate is first else f"{ratio:.2f}", recall)
    for name in [name for name in quality if name not in rates]:
        table.add_row(name, "", "", f"{100 * quality[name]:.2f}")
    for name, reason in missing.items():
        table.add_row(name, "-", "-", f"not measured: {reason}")
    Console().print(table)


def met(
    wanted: dict[str, tuple[str, str]], folder: Path, data: Path, cores: int
) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers {row: (environment, contestant)} that run here, and why the others do not."""
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for row, (library, contestant) in wanted.items():
        try:
            found[row] = Peer(environment(folder, library), contestant, data, cores)
        except Missing as reason:
            missing[row] = str(reason)
    return found, missing


def timed(peer: Peer, method: str, _turn: int = 0, /, **arguments: Any) -> tuple[float, int]:
    """Seconds and examples of a peer's turn, which is the same in each."""
    answer = peer.ask(method, **arguments)
    return answer["seconds"], answer["examples"]
