"""The law with the log on a broker: a NATS server that is killed meanwhile, and Kafka's mock cluster."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from incremental.log.place import open_log
from tests.log.servers import Kafka, Nats
from tests.serve.live.test_learner import assert_law, crowd, killed, live_run, overrides

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    one = Nats(tmp_path / "nats")
    yield one
    one.kill()


def test_a_run_on_a_stream_of_nats_is_the_live_run_again(tmp_path: Path, server: Nats) -> None:
    """The learner is killed three times before, and the server once while it learns."""
    place = f"nats://{server.address}/live"
    given = overrides(tmp_path / "live", f"live.log={place}")
    (tmp_path / "live").mkdir()
    log = open_log(place, create=True)
    log.append(crowd()[:450])
    log.close()
    for after in range(1, 4):
        killed(given, min(after, 2))

    def again() -> None:
        server.kill()
        server.start()

    cut_off = threading.Timer(1.0, again)
    cut_off.start()
    live_run(given, crowd())
    cut_off.join()
    assert assert_law(given) == 4


def test_a_run_on_a_topic_of_kafka_is_the_live_run_again(tmp_path: Path) -> None:
    server = Kafka()
    server.topic("live")
    given = overrides(tmp_path / "live", f"live.log=kafka://{server.address}/live")
    live_run(given, crowd())
    assert assert_law(given) == 4
