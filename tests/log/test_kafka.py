"""The engine on the client library's mock cluster: what is no log of ours, and what a broker does not answer."""

from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from incremental.errors import UserError
from incremental.log.kafka import MADE, check
from incremental.log.place import open_log
from tests.log.servers import Kafka, free_port

Told = Callable[[str, object], None]


@pytest.fixture(scope="module")
def server() -> Kafka:
    return Kafka()


def read(place: str) -> None:
    log = open_log(place)
    try:
        log.read(0, 10)
    finally:
        log.close()


def test_what_is_no_log_is_refused(server: Kafka, documented: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(situation: str, address: str, name: str) -> None:
        with pytest.raises(UserError) as error:
            read(f"kafka://{address}/{name}")
        documented(situation, str(error.value).replace(address, "HOST:PORT"))

    refused("a topic of Kafka that is not there", server.address, "none")
    server.topic("other")
    other = Producer({"bootstrap.servers": server.address, "log_level": 0})
    other.produce("other", b"hello", partition=0)
    other.flush(10.0)
    refused("a topic with other messages", server.address, "other")
    monkeypatch.setattr("incremental.log.kafka.ANSWER", 0.2)
    refused("a place where no broker of Kafka answers", f"127.0.0.1:{free_port()}", "live")


def test_a_topic_that_forgets_is_refused(documented: Told) -> None:
    """The mock cluster is not asked for a topic's settings; a broker's answer is."""
    check("kafka://HOST:PORT/live", {**MADE, "segment.bytes": "1000"})
    with pytest.raises(UserError) as error:
        check("kafka://HOST:PORT/live", {"retention.ms": "604800000", "cleanup.policy": "compact"})
    documented("a topic that forgets", error.value)
