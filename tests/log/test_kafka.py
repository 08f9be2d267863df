"""The engine on the client library's mock cluster: what is no log of ours, and what a broker does not answer."""

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from incremental.errors import UserError
from incremental.log.kafka import MADE, Topic, check
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


class Admin:
    """A cluster of three brokers without the topic, in place of one that can be asked for it."""

    def __init__(self, refusal: int | None = None) -> None:
        self.refusal, self.made = refusal, list[Any]()

    def list_topics(self, name: str | None = None, timeout: float = 0.0) -> Any:
        del timeout
        found = {} if name is None else {name: SimpleNamespace(partitions={0: SimpleNamespace(leader=1)})}
        return SimpleNamespace(topics=found, brokers={1: None, 2: None, 3: None}, controller_id=1)

    def create_topics(self, topics: list[Any], **_: Any) -> Any:
        self.made += topics
        answer: Future[None] = Future()
        if self.refusal is None:
            answer.set_result(None)
        else:
            answer.set_exception(KafkaException(KafkaError(self.refusal)))
        return {topics[0].topic: answer}

    def describe_configs(self, asked: list[Any], **_: Any) -> Any:
        answer: Future[Any] = Future()
        answer.set_result({name: SimpleNamespace(value=value) for name, value in self.made[0].config.items()})
        return {asked[0]: answer}


def test_a_topic_is_made_that_keeps_everything_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    for refusal in (None, KafkaError.TOPIC_ALREADY_EXISTS):  # another process was faster
        admin = Admin(refusal)
        monkeypatch.setattr("incremental.log.kafka.AdminClient", lambda _, admin=admin: admin)
        Topic(["127.0.0.1:1"], "live", create=True).close()
        (made,) = admin.made
        assert (made.topic, made.num_partitions, made.replication_factor) == ("live", 1, 3)
        assert made.config == {**MADE, "min.insync.replicas": "2"}
        assert made.config["retention.ms"] == "-1"
        assert made.config["flush.messages"] == "1"
    admin = Admin(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    monkeypatch.setattr("incremental.log.kafka.AdminClient", lambda _: admin)
    with pytest.raises(UserError, match="authorization"):
        Topic(["127.0.0.1:1"], "live", create=True)
