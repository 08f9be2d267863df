"""Real NATS servers for tests, each in a folder of its own, on a free port of this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

BINARY = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Nats:
    """A server that may be killed and started again.

    `routes`: the cluster's ports, its own one first; `under`: the command that starts it, such as strace's.
    """

    def __init__(self, folder: Path, routes: tuple[int, ...] = (), under: tuple[str, ...] = ()) -> None:
        if BINARY is None:
            pytest.skip("nats-server is not installed")
        folder.mkdir(parents=True)
        self.folder, self.port, self.under = folder, free_port(), under
        cluster = ""
        if routes:
            others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
            cluster = f'cluster {{ name: "law", listen: "127.0.0.1:{routes[0]}", routes: [{others}] }}\n'
        (folder / "nats.conf").write_text(
            f'server_name: "{folder.name}"\nlisten: "127.0.0.1:{self.port}"\nports_file_dir: "{folder}"\n'
            f'jetstream {{ store_dir: "{folder}", sync_interval: always }}\n{cluster}',
            encoding="utf-8",
        )
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it listens."""
        for one in self.folder.glob("*.ports"):
            one.unlink()
        with (self.folder / "log").open("a", encoding="utf-8") as log:
            command = [*self.under, str(BINARY), "-c", str(self.folder / "nats.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 20.0
        while not any(one.stat().st_size and json.loads(one.read_text()) for one in self.folder.glob("*.ports")):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.01)

    def kill(self) -> None:
        """As a power cut does; once is enough."""
        for ports in self.folder.glob("*.ports"):
            ports.unlink()
            os.kill(int(ports.stem.rpartition("_")[2]), signal.SIGKILL)  # the server's own process
        self.process.wait()


class Kafka:
    """The mock cluster that the client library carries, in this process; it makes a topic when one is asked for."""

    def __init__(self) -> None:
        from confluent_kafka import Producer

        self.owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock:1", "log_level": 0})
        (broker,) = self.owner.list_topics(timeout=10.0).brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def topic(self, name: str) -> None:
        self.owner.list_topics(name, timeout=10.0)
