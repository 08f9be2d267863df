"""The engine on the Kafka protocol: partition 0 of a topic. A reader says from where; there are no consumer groups.

The producer is idempotent and waits for all copies in sync. A topic made here writes each message to disk
(`flush.messages=1`) and keeps it for ever; of another one the broker's own settings say so.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from incremental.errors import UserError
from incremental.log.messages import Messages

PATIENCE = 30.0  # seconds for what a broker does not do at once: it may start anew, or choose a leader
ANSWER = 5.0  # seconds for the first answer
PAUSE = 0.1  # seconds between two looks
MOST = 1_000_000  # bytes of a message, below what brokers take
PARTITION = 0
MADE = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete", "flush.messages": "1"}
KEEPS = ("retention.ms", "retention.bytes", "cleanup.policy")


class Topic:
    """A topic as a broker, see `Broker`."""

    def __init__(self, servers: Sequence[str], name: str, *, create: bool) -> None:
        self.place, self.name, self.most = f"kafka://{','.join(servers)}/{name}", name, MOST
        common: dict[str, str | int | float | bool] = {
            "bootstrap.servers": ",".join(servers),
            "log_level": 0,
            "topic.metadata.refresh.interval.ms": 10_000,
        }
        with self._translated("no broker answers; start it, or check host and port"):
            self._topic(AdminClient(common), create)
        self.producer = Producer(
            {
                **common,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "delivery.timeout.ms": int(PATIENCE * 1000),
                "message.max.bytes": MOST,
            }
        )
        self.consumer = Consumer(
            {
                **common,
                "group.id": name,  # the library asks for one; nothing is ever committed to it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
            }
        )
        self.lock = threading.Lock()
        self.next: int | None = None  # the message that the consumer gives next

    @contextmanager
    def _translated(self, remedy: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise UserError(f"{self.place}: {said(error.args[0])}; {remedy}") from None

    def _topic(self, admin: AdminClient, create: bool) -> None:
        cluster = admin.list_topics(timeout=ANSWER)
        if self.name not in cluster.topics:
            if not create:
                raise UserError(f"{self.place}: no such log; incremental-serve makes one")
            copies = min(len(cluster.brokers), 3)
            asked = MADE if copies < 3 else {**MADE, "min.insync.replicas": "2"}  # so that one of three may go
            made = NewTopic(self.name, 1, copies, config=asked)
            try:
                admin.create_topics([made], request_timeout=ANSWER)[self.name].result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        self._wait(admin)
        if cluster.controller_id not in cluster.brokers:  # as with the protocol's mock: nobody can be asked
            return
        topic = ConfigResource(ConfigResource.Type.TOPIC, self.name)
        (answer,) = admin.describe_configs([topic], request_timeout=ANSWER).values()
        check(self.place, {name: str(one.value) for name, one in answer.result().items()})

    def _wait(self, admin: AdminClient) -> None:
        """Returns once a broker leads the partition, which takes a moment where the topic is new."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            partition = admin.list_topics(self.name, timeout=ANSWER).topics[self.name].partitions.get(PARTITION)
            if partition is not None and partition.leader >= 0:
                return
            time.sleep(PAUSE)
        raise UserError(f"{self.place}: no broker leads partition {PARTITION} of the topic; see the brokers' logs")

    def size(self) -> int:
        """See `Broker`."""
        with self.lock, self._translated("see the broker's log, and try again"):
            return self._size()

    def _size(self) -> int:
        first, end = self.consumer.get_watermark_offsets(TopicPartition(self.name, PARTITION), timeout=PATIENCE)
        if first > 0:
            raise UserError(
                f"{self.place}: the messages before {first} are not there any more; take the log from a copy"
            )
        return int(end)

    def publish(self, body: bytes) -> tuple[int, bool]:
        """See `Broker`. The library sends again what was not answered, and the broker keeps it once."""
        found: list[int | KafkaError | None] = []

        def told(error: KafkaError | None, message: Message) -> None:
            found.append(message.offset() if error is None else error)

        with self._translated("see the broker's log, and send it again"):
            self.producer.produce(self.name, body, partition=PARTITION, on_delivery=told)
            until = time.monotonic() + PATIENCE + ANSWER
            while not found and time.monotonic() < until:
                self.producer.poll(0.1)
            answer = found[0] if found else KafkaError(KafkaError._MSG_TIMED_OUT)
            if isinstance(answer, KafkaError):
                raise KafkaException(answer)
        if answer is None or answer < 0:  # an answer was lost, and the second one does not say
            raise UserError(f"{self.place}: the broker does not say where it put this; send it again, it counts once")
        return answer, True

    def fetch(self, first: int, number: int) -> list[bytes]:
        """See `Broker`."""
        with self.lock, self._translated("see the broker's log, and try again"):
            if self.next != first:
                self.consumer.assign([TopicPartition(self.name, PARTITION, first)])
            self.next = None
            found = self.consumer.consume(number, timeout=PATIENCE)
            if not found:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            bodies = [self._body(one, place) for place, one in enumerate(found, first)]
            self.next = first + len(bodies)
            return bodies

    def _body(self, message: Message, number: int) -> bytes:
        if (error := message.error()) is not None:
            raise KafkaException(error)
        if message.offset() != number:
            raise UserError(f"{self.place}: message {number} is not there any more; take the log from a copy")
        return message.value() or b""

    def close(self) -> None:
        """Lets the broker go."""
        self.producer.flush(ANSWER)
        self.consumer.close()


def said(error: KafkaError) -> str:
    """The error in short."""
    return str(error.str()).removeprefix("Local: ").removeprefix("Broker: ")


def check(place: str, settings: dict[str, str]) -> None:
    """A UserError for a topic that would lose records."""
    faults = [f"{name}={settings[name]}" for name in KEEPS if settings.get(name, MADE[name]) != MADE[name]]
    if faults:
        remedy = ", ".join(f"{name}={MADE[name]}" for name in KEEPS)
        raise UserError(f"{place}: the topic has {', '.join(faults)}, and a log would lose records; set {remedy}")


def connect(servers: Sequence[str], name: str, *, create: bool = False) -> Messages:
    """The log in the topic `name`, which is made if `create`."""
    return Messages(Topic(servers, name, create=create))
