"""The container's files name what there is: Docker itself is not asked."""

import re
from pathlib import Path

import yaml

from incremental.log.place import ENGINES
from incremental.serve.live import configuring, supervisor

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs/live"


def test_the_image_is_made_of_what_there_is() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    copied = [path for line in re.findall("^COPY (.*)", text, re.M) for path in line.split()[:-1]]
    assert {"pyproject.toml", "configs", "incremental", "hydra_plugins"} <= {*copied}
    assert [path for path in copied if not (ROOT / path).exists()] == []
    extras = re.search(r"\[([\w,]+)\]\"", text)
    assert extras is not None
    assert {"serve", *ENGINES} == {*extras[1].split(",")}
    (command,) = re.findall("^CMD (.*)", text, re.M)
    _, live = configuring.composed_of(yaml.safe_load(command)[1:])
    assert (live.folder, live.host) == (Path("/data/live"), "0.0.0.0")


def test_the_loop_of_the_compose_file_has_the_brokers_place() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    loop, broker = services["loop"], services["broker"]["environment"]
    _, live = configuring.composed_of(loop["command"][1:])
    assert broker["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://broker:9092"
    assert live.log == "kafka://broker:9092/live"
    assert loop["ports"] == [f"127.0.0.1:{live.port}:{live.port}"]
    assert (FOLDER / loop["build"]["context"] / loop["build"]["dockerfile"]).resolve() == FOLDER / "Dockerfile"
    assert float(loop["stop_grace_period"].removesuffix("s")) > supervisor.PATIENCE
