"""The server process: one event loop, which ends cleanly at SIGTERM and SIGINT."""

import gc
import logging
import signal
import socket
from collections.abc import Mapping
from typing import Any

import uvicorn

from incremental.app.trust import targets
from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.log.place import open_log
from incremental.serve.live.app import application
from incremental.serve.live.limits import Limits
from incremental.serve.live.making import types_of
from incremental.serve.live.model import Loader
from incremental.serve.live.service import Service, Settings
from incremental.serve.live.settings import live_of
from incremental.serve.live.versions import LEARNERS

PATIENCE = 10  # seconds that requests in progress have at the end
WAITING = 128  # connections that wait to be taken
CONNECTIONS = 4096  # open at once; more are answered with 503


def serve(settings: Settings, log: Log, loader: Loader) -> None:
    """Serves until SIGTERM or SIGINT: then it answers what it has, commits what waits, and returns.

    `loader` makes models of versions. Raises UserError where the address is taken, or other computers would reach it
    without a token.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    listener = bound(settings.host, settings.port)
    try:
        service = Service(settings, log, loader)
    except BaseException:
        listener.close()
        raise
    gc.collect()
    gc.freeze()  # all that is there stays; a collection that looks at it takes 0.16 s, and requests would wait for it
    where = f"[{settings.host}]" if ":" in settings.host else settings.host
    logging.getLogger("incremental.serve").info("http://%s:%d", where, listener.getsockname()[1])
    config = uvicorn.Config(
        application(service),
        http="h11",  # it bounds the headers of a request; httptools, which would be taken if it is there, does not
        access_log=False,  # its lines have what is asked
        log_level="warning",
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
        limit_concurrency=CONNECTIONS,
    )
    ends = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        uvicorn.Server(config).run(sockets=[listener])  # it ends at these, and then raises them again: to nobody
    finally:
        for each, handler in ends.items():
            signal.signal(each, handler)


def run(config: Mapping[str, Any]) -> None:
    """Serves what a resolved config with the node `live` says; it makes the log where there is none."""
    live = live_of(config)
    live.folder.mkdir(parents=True, exist_ok=True)
    data = config["data"]
    settings = Settings(
        live.folder,
        live.champion,
        live.host,
        live.port,
        live.types,
        data["history"],
        data["source"].get("kinds") or {},
        types_of(data),
        Limits(**{name: getattr(live, name) for name in Limits._fields}),
        live.access_log,
    )
    log, plugins = open_log(live.log, create=True), sorted({name.partition(".")[0] for _, name in targets(config, "")})
    serve(settings, log, Loader(live.folder / LEARNERS, log, live.most, data, plugins))


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at the address, which no other server has. Connections wait until the server is warm."""
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(WAITING)  # at once: until then another server could take the address too
    except (OSError, OverflowError) as error:
        if found is not None:
            found.close()
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"live.host={host}, live.port={port}: {what}; give another address or port") from None
    return found
