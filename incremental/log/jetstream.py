"""The engine on NATS JetStream: a stream on disk, that answers once a message is kept.

A server writes to disk before it answers only where its configuration says `sync_interval: always`, which no client can
ask it. With several servers in the place the stream has as many copies, at most five.
"""

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

import nats
from nats.errors import Error
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from incremental.errors import UserError
from incremental.log.messages import Messages

T = TypeVar("T")
PATIENCE = 30.0  # seconds for what a server does not do at once: it may start anew, or choose a leader
ANSWER = 2.0  # seconds for one answer
PAUSE = 0.1  # seconds between two tries
WINDOW = 120.0  # seconds in which the server itself knows a message again
HEADERS = 1024  # bytes of a message's headers at most
FULL = {10023, 10047, 10077}  # the server's codes: no memory or disk, a stream's limit


class Server:
    """A stream as a broker, see `Broker`; nats-py needs a loop, which runs in a thread of its own."""

    def __init__(self, servers: Sequence[str], name: str, *, create: bool) -> None:
        self.place, self.name = f"nats://{','.join(servers)}/{name}", name
        self.loop, self.lock = asyncio.new_event_loop(), threading.Lock()
        self.reader: tuple[int, JetStreamContext.PullSubscription] | None = None  # its next message's number
        self.client, self.thread = nats.NATS(), threading.Thread(target=self.loop.run_forever, daemon=True)
        self.trouble: Exception | None = None
        self.thread.start()
        try:
            self._run(self._connect(servers, create))
        except BaseException:
            self.close()
            raise
        self.most = self.client.max_payload - HEADERS

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def _connect(self, servers: Sequence[str], create: bool) -> None:
        options: dict[str, Any] = {"max_reconnect_attempts": -1, "reconnect_time_wait": PAUSE, "error_cb": self._told}
        try:
            await asyncio.wait_for(self.client.connect([f"nats://{one}" for one in servers], **options), ANSWER)
        except (Error, OSError, TimeoutError) as error:
            why = f"no server answers ({said(self.trouble or error)})"
            raise UserError(f"{self.place}: {why}; start it, or check host and port") from None
        self.stream = self.client.jetstream(timeout=ANSWER)
        check(self.place, self.name, await self._tried(self._config, create, len(servers)))

    async def _told(self, error: Exception) -> None:
        """What goes wrong in between is said to whoever calls, where it lasts."""
        self.trouble = error

    async def _config(self, create: bool, servers: int) -> api.StreamConfig:
        try:
            return (await self.stream.stream_info(self.name)).config
        except NotFoundError:
            if not create:
                raise UserError(f"{self.place}: no such log; incremental-serve makes one") from None
        wanted = api.StreamConfig(
            name=self.name,
            subjects=[self.name],
            storage=api.StorageType.FILE,
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            duplicate_window=WINDOW,
            deny_delete=True,
            deny_purge=True,
            num_replicas=min(servers, 5),
        )
        return (await self.stream.add_stream(wanted)).config

    async def _tried(self, work: Any, *arguments: Any) -> Any:
        """What the work returns, tried again while the server may come back."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return await work(*arguments)
            except (Error, OSError, TimeoutError) as error:
                if isinstance(error, APIError) and error.err_code in FULL:
                    raise UserError(f"{self.place}: the server has no room ({said(error)}); make some") from None
                if time.monotonic() >= until:
                    why = f"the server has not done it in {PATIENCE:.0f} s ({said(error)})"
                    raise UserError(f"{self.place}: {why}; see its log, and send it again") from None
            await asyncio.sleep(PAUSE)

    def size(self) -> int:
        """See `Broker`."""
        return self._run(self._tried(self._size))

    async def _size(self) -> int:
        state = (await self.stream.stream_info(self.name)).state
        if state.messages and state.first_seq > 1:
            self._lost(0)
        return state.last_seq

    def _lost(self, number: int) -> NoReturn:
        raise UserError(f"{self.place}: message {number} is not there any more; take the log from a copy")

    def publish(self, body: bytes) -> tuple[int, bool]:
        """See `Broker`. Tries that follow a first one have its name, so that the message is kept once."""
        own = {"Nats-Msg-Id": hashlib.blake2b(body, digest_size=16).hexdigest(), "Nats-Expected-Stream": self.name}
        tries = 0

        async def once() -> tuple[int, bool]:
            nonlocal tries
            tries += 1
            found = await self.stream.publish(self.name, body, timeout=ANSWER, headers=own)
            return found.seq - 1, tries > 1 or not found.duplicate

        return self._run(self._tried(once))

    def fetch(self, first: int, number: int) -> list[bytes]:
        """See `Broker`."""
        with self.lock:
            return self._run(self._tried(self._fetch, first, number))

    async def _fetch(self, first: int, number: int) -> list[bytes]:
        if self.reader is not None and self.reader[0] != first:
            await self._leave()
        if self.reader is None:
            wanted = api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=first + 1,
                ack_policy=api.AckPolicy.NONE,
                mem_storage=True,
                inactive_threshold=PATIENCE,
            )
            self.reader = first, await self.stream.pull_subscribe(self.name, stream=self.name, config=wanted)
        try:
            found = await self.reader[1].fetch(number, timeout=ANSWER)
        except BaseException:
            await self._leave()  # its server may have gone, and the reader with it
            raise
        places = enumerate(found, first + 1)
        there = [one.data for number, one in places if one.metadata.sequence.stream == number]
        if len(there) == len(found):
            self.reader = first + len(found), self.reader[1]
            return there
        await self._leave()  # what was on its way to it is lost where a server goes, and the stream has it
        try:
            return [(await self.stream.get_msg(self.name, first + 1)).data or b""]
        except NotFoundError:
            self._lost(first)

    async def _leave(self) -> None:
        gone, self.reader = self.reader, None
        if gone is not None:
            try:
                await gone[1].unsubscribe()
            except (Error, OSError):
                return

    def close(self) -> None:
        """Lets the server go."""
        if self.thread.is_alive():
            self._run(self._close())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    async def _close(self) -> None:
        await self._leave()
        await self.client.close()


def said(error: BaseException) -> str:
    """The error in short."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, APIError) and error.err_code is None:
        return "JetStream does not answer, and may be off in the server's configuration"
    text = getattr(error, "description", None) or str(error)
    return text.removeprefix("nats: ") or type(error).__name__


def check(place: str, name: str, found: api.StreamConfig) -> None:
    """A UserError for a stream that would lose records."""
    unlimited = {None, -1, 0}
    wrong = {
        f"the subjects {', '.join(found.subjects or [])}": found.subjects != [name],
        "its storage in memory": found.storage != api.StorageType.FILE,
        f"the retention {found.retention}": found.retention != api.RetentionPolicy.LIMITS,
        "a limit of messages": found.max_msgs not in unlimited or found.max_msgs_per_subject not in unlimited,
        "a limit of age": found.max_age not in unlimited,
        "answers before a message is kept": bool(found.no_ack or found.persist_mode),
    }
    if faults := [what for what, is_so in wrong.items() if is_so]:
        raise UserError(
            f"{place}: the stream has {', '.join(faults)}, and a log would lose records; have incremental-serve make a "
            "stream of another name"
        )


def connect(servers: Sequence[str], name: str, *, create: bool = False) -> Messages:
    """The log in the stream `name`, which is made if `create`."""
    return Messages(Server(servers, name, create=create))
