"""Where a log is: one text, which says the engine too."""

from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from incremental.errors import UserError
from incremental.log.engine import Log
from incremental.log.sqlite import SQLite

ENGINES = {"nats": "incremental.log.jetstream", "kafka": "incremental.log.kafka"}
"""by scheme: the module, which needs the extra of this name"""


def open_log(place: str, *, create: bool = False) -> Log:
    """The log at a place: a path (SQLite), nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC.

    It is made if there is none and `create`. Raises UserError for a place that is none, where nothing answers, and
    for what is no log, or a log of another version.
    """
    scheme, mark, rest = place.partition("://")
    if not mark:
        return SQLite(Path(place).expanduser(), create=create)
    if scheme not in ENGINES:
        raise UserError(
            f"{place}: no such kind of log; expected a path, nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC"
        )
    at, _, name = rest.partition("/")
    for server in at.split(","):
        port(place, server)
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"{place}: after {scheme}://{at}/ comes the log's name, of letters, digits, - and _")
    try:
        connect = import_module(ENGINES[scheme]).connect
    except ModuleNotFoundError as error:
        missing = f"{place}: this needs the package {error.name}; .venv/bin/pip install -e '.[serve,{scheme}]'"
        raise UserError(missing) from None
    found: Log = connect(at.split(","), name, create=create)
    return found


def port(place: str, server: str) -> None:
    """A UserError where a server is not HOST:PORT."""
    if "@" in server:
        where = place.replace(server, server.rpartition("@")[2])
        raise UserError(f"{where}: a user or a password is refused in a place, which is written down with each run")
    try:
        parts = urlsplit(f"//{server}")
        fits = bool(parts.hostname and parts.port)
    except ValueError:
        fits = False
    if not fits:
        raise UserError(f"{place}: {server!r} is no server; expected HOST:PORT, or several with commas between")
